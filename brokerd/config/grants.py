# The [grants.NAME] tables: what applications ask for by name, and the credentials that its tokens come from.
from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from sys import intern
from typing import Any

import msgspec

from brokerd.config.secrets import WANTED, CredentialFile, secret_of
from brokerd.config.settings import GrantSettings, ProviderSettings
from brokerd.core.grant.renewal import Pace
from brokerd.core.secret import SecretSource
from brokerd.core.timing.duration import Duration
from brokerd.core.validation import ConfigError, convert, expected, unknown_key
from brokerd.dialects.oauth2.client_auth import ASSERTED, ClientAssertion
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.dialects.oauth2.grant_types import (
    GRANT_TYPES,
    SUBJECT_GRANT,
    Assertion,
    Downscoping,
    Subject,
    with_uris,
)
from brokerd.dialects.oauth2.request_fields import STEPS, Added, Kept
from brokerd.dialects.recipe.dialect import IDENTIFYING
from brokerd.dialects.static import TOKEN, Static

PUBLIC = frozenset(IDENTIFYING) - {"api_key"}  # credentials that may stand where everybody can read
OAUTH2_KEYS = (
    *("grant_type", "client_auth", "dpop", "assertion", "client_assertion", "subject"),
    *("redirect_uri", "authorization_params", "pushed_request", "variants", "request", "fields"),
)
DEFAULT_AUTH = {
    ASSERTED: "client_assertion",
    "client_secret": "client_secret_basic",
    "private_key": "private_key_jwt",
}


class GrantFile(msgspec.Struct, forbid_unknown_fields=True):
    provider: str
    credentials: dict[str, Any] = {}
    grant_type: str | None = None
    client_auth: str | None = None
    scope: list[str] = []
    audience: str | None = None
    resource: str | None = None
    dpop: bool = False
    assertion: Assertion | None = None
    client_assertion: ClientAssertion | None = None
    subject: Subject | None = None
    redirect_uri: str | None = None
    authorization_params: dict[str, str] = {}
    pushed_request: bool = False
    variants: Downscoping | None = None
    request: dict[str, dict[str, Any]] = {}
    fields: list[str] = []
    on_demand: bool = False
    lifetime: Duration | None = None
    settings: dict[str, Any] = {}


def read_grant(
    name: str,
    providers: Mapping[str, ProviderSettings],
    exposed: ConfigError | None,
    known: Collection[str],
    alike: dict[tuple[str, ...], GrantSettings],
    raw: Any,
) -> GrantSettings:
    """`known`: the names of all providers, also of those with mistakes. `alike`: the first grant of each kind. Grants
    of a kind have the same provider, names of credentials and settings, so the dialect checks only the first."""
    _check_signed_by_others(raw)
    table = convert(raw, GrantFile)
    provider = providers.get(table.provider)
    if provider is None:
        names = ", ".join(sorted(known)) or "none is configured"
        raise expected(f"a provider of this configuration ({names})", table.provider, key="provider")
    if table.lifetime is not None and table.lifetime < 1:
        raise expected("a duration of a second or more", float(table.lifetime), key="lifetime")
    credentials = {intern(key): secret_of(value, f"credentials.{key}") for key, value in table.credentials.items()}
    for key, source in credentials.items():
        if exposed and source.text is not None and key not in PUBLIC:
            raise exposed.within(f"credentials.{key}")
        if source.grant is not None and key in IDENTIFYING:
            words = "it says whose tokens the grant has, so it cannot come from another grant; write it here"
            raise ConfigError(words, key=f"credentials.{key}")
    settings: dict[str, object] = dict(table.settings)
    settings.update({k: v for k in ("scope", "audience", "resource") if (v := getattr(table, k))})
    if type(provider.dialect) is Static:
        _check_static(table, credentials)
    elif type(provider.dialect) is OAuth2:  # isinstance is slow where a Protocol is among the bases
        settings.update(_oauth2(table, provider.dialect, credentials))
    else:
        for key in (key for key in OAUTH2_KEYS if getattr(table, key)):
            words = "only dialect oauth2 uses this key; remove it: a recipe defines itself what is sent"
            raise ConfigError(words, key=key)
    kind = (provider.name, repr(settings), *credentials)
    first = alike.get(kind)
    if first is None or first.settings != settings:
        provider.dialect.check(frozenset(credentials), settings)
        first = None
    credentials |= _secret_fields(table.request)
    if table.subject is not None and table.subject.grant is not None:
        credentials[SUBJECT_GRANT] = SecretSource(grant=table.subject.grant)
    pace = _pace(table.on_demand, provider.reuse_grace, None if table.lifetime is None else float(table.lifetime))
    made = GrantSettings(name, provider, credentials, first.settings if first else settings, pace, first)
    alike[kind] = first or made
    return made


@lru_cache(maxsize=64)
def _pace(on_demand: bool, reuse_grace: float, lifetime: float | None) -> Pace:
    """One object for all grants that keep the same pace."""
    pace = Pace(on_demand=on_demand, reuse_grace=reuse_grace)
    return pace if lifetime is None else replace(pace, lifetime=lifetime, lifetime_named=True)


def _check_static(table: GrantFile, credentials: Mapping[str, SecretSource]) -> None:
    for name, source in credentials.items():
        if source.grant is not None:
            words = (
                f"a static token is one that somebody wrote down; let callers ask for the grant {source.grant} instead"
            )
            raise ConfigError(words, key=f"credentials.{name}.grant")
    for key in GrantFile.__struct_fields__[2:]:
        if getattr(table, key) != getattr(GrantFile(""), key):
            words = "remove this key: a static grant has credentials only, and its token is what token says"
            raise ConfigError(words, key=key)


def _check_signed_by_others(raw: Any) -> None:
    """The table `client_assertion` says how brokerd signs; what others signed is a credential. Raises ConfigError."""
    table = raw.get("client_assertion") if isinstance(raw, dict) else None
    if isinstance(table, dict) and (source := next((k for k in CredentialFile.__struct_fields__ if k in table), None)):
        words = "this table says how brokerd signs; for an assertion that others signed, write"
        example = f'credentials = {{ client_assertion = {{ {source} = "…" }} }}'
        raise ConfigError(f"{words} {example}", key=f"client_assertion.{source}")


def _oauth2(table: GrantFile, dialect: OAuth2, credentials: Mapping[str, SecretSource]) -> dict[str, object]:
    if table.settings:
        raise ConfigError("dialect oauth2 has no table of settings; remove it", key="settings")
    offered = ("auto",) if dialect.issuer else ()
    grant_type = GRANT_TYPES.get(table.grant_type or "")
    own = grant_type.takes if grant_type and "client_id" not in credentials else ()  # what shows no client
    by_credential = [method for name, method in DEFAULT_AUTH.items() if name in credentials and name not in own]
    settings = {key: value for key in OAUTH2_KEYS if (value := getattr(table, key))}
    settings["grant_type"] = table.grant_type
    settings["client_auth"] = table.client_auth or (*offered, *by_credential, "none")[0]
    if table.subject or table.grant_type == "token_exchange":
        settings["subject"] = with_uris(table.subject or Subject(), credentials.get("subject_token"))
    if table.request:
        settings["request"] = _added(table.request)
    return settings


def _added(request: Mapping[str, Mapping[str, Any]]) -> Added:
    added: dict[str, dict[str, str | Kept]] = {}
    for step, fields in request.items():
        if step not in STEPS:
            raise unknown_key(step, list(STEPS), "request")
        added[step] = {}
        for name, value in fields.items():
            if not name or not name.isprintable():
                raise expected("the name of a form field", name, key=f"request.{step}")
            if not isinstance(value, str | dict):
                raise expected(WANTED, value, key=f"request.{step}.{name}", show=False)
            added[step][name] = value if isinstance(value, str) else Kept(f"request.{step}.{name}")
    return Added(added)


def _secret_fields(request: Mapping[str, Mapping[str, Any]]) -> dict[str, SecretSource]:
    """The values that are secrets. They are read, watched and masked as credentials are."""
    tables = ((f"request.{step}.{name}", value) for step, each in request.items() for name, value in each.items())
    return {key: secret_of(value, key) for key, value in tables if isinstance(value, dict)}


def check_tokens_of_grants(grants: Mapping[str, GrantSettings]) -> Iterator[tuple[str, ConfigError]]:
    """Credentials that are tokens of other grants: these grants exist, and no grant waits for itself."""
    needs = {
        name: {source.grant for source in grant.credentials.values() if source.grant is not None}
        for name, grant in grants.items()
    }
    for name, grant in grants.items():
        for place, source in grant.sources:
            if source.grant is None:
                continue
            key = place if place == SUBJECT_GRANT else f"{place}.grant"
            if (other := grants.get(source.grant)) is None:
                yield name, expected("a grant of this configuration", source.grant, key=key)
            elif circle := _way(needs, source.grant, name):
                words = f"these grants need each other's token: {' needs '.join([name, *circle])}"
                yield name, ConfigError(f"{words}; let one of them have another credential", key=key)
            elif source.field is not None and source.field not in (there := _fields(other)):
                words = (
                    f"expected a field of the grant {source.grant} ({', '.join(there) or 'none'}), found {source.field}"
                )
                yield name, ConfigError(f"{words}; name it in the fields of that grant", key=f"{place}.field")


def _fields(grant: GrantSettings) -> tuple[str, ...]:
    """The names of the fields of its tokens."""
    if type(grant.provider.dialect) is Static:
        return tuple(name for name in grant.credentials if name != TOKEN)
    return grant.provider.dialect.fields(grant.settings)


def _way(needs: Mapping[str, Collection[str]], start: str, end: str) -> list[str] | None:
    """The names from `start` to `end`, each of which needs the next one; None: `start` does not need `end`."""
    ways, seen = [[start]], {start}
    while ways:
        way = ways.pop()
        if way[-1] == end:
            return way
        following = [each for each in needs.get(way[-1], ()) if each not in seen]
        seen.update(following)
        ways += [[*way, each] for each in following]
    return None


def check_keys(grants: Mapping[str, GrantSettings]) -> Iterator[tuple[str, ConfigError]]:
    """A private key is for one provider: what is signed for one must not be valid at another."""
    users: dict[SecretSource, str] = {}
    for name, grant in grants.items():
        source = grant.credentials.get("private_key")
        if source is not None and users.setdefault(source, grant.provider.name) != grant.provider.name:
            words = f"provider {users[source]} uses this private key too; give every provider a key of its own"
            yield name, ConfigError(words, key="credentials.private_key")
