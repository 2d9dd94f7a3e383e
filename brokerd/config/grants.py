# The [grants.NAME] tables: what applications ask for by name, and with which credentials it is got.
from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from brokerd.config.secrets import secret_of
from brokerd.config.settings import GrantSettings, ProviderSettings
from brokerd.core.duration import Duration
from brokerd.core.renewal import Pace
from brokerd.core.secret import SecretSource
from brokerd.core.typed import ConfigError, convert, expected, unknown_key
from brokerd.dialects.oauth2 import OAuth2
from brokerd.dialects.oauth2 import settings as oauth2
from brokerd.dialects.oauth2.added import STEPS, Added, Kept
from brokerd.dialects.oauth2.grant_types import GRANT_TYPES
from brokerd.dialects.recipe import IDENTIFYING

PUBLIC = frozenset(IDENTIFYING) - {"api_key"}  # credentials that may stand where everybody can read
OAUTH2_KEYS = (
    "grant_type",
    "client_auth",
    "dpop",
    "assertion",
    "client_assertion",
    "subject",
    "redirect_uri",
    "authorization_params",
    "pushed_request",
    "variants",
    "request",
)
DEFAULT_AUTH = {"client_secret": "client_secret_basic", "private_key": "private_key_jwt"}


class GrantFile(msgspec.Struct, forbid_unknown_fields=True):
    provider: str
    credentials: dict[str, Any] = {}
    grant_type: str | None = None
    client_auth: str | None = None
    scope: list[str] = []
    audience: str | None = None
    resource: str | None = None
    dpop: bool = False
    assertion: oauth2.AssertionFile | None = None
    client_assertion: oauth2.ClientAssertionFile | None = None
    subject: oauth2.SubjectFile | None = None
    redirect_uri: str | None = None
    authorization_params: dict[str, str] = {}
    pushed_request: bool = False
    variants: oauth2.VariantsFile | None = None
    request: dict[str, dict[str, Any]] = {}
    on_demand: bool = False
    lifetime: Duration | None = None
    settings: dict[str, Any] = {}


def read_grant(
    name: str,
    raw: Any,
    providers: Mapping[str, ProviderSettings],
    exposed: ConfigError | None,
    known: Collection[str],
) -> GrantSettings:
    """`known`: the names of all providers, those with mistakes of their own as well."""
    table = convert(raw, GrantFile)
    provider = providers.get(table.provider)
    if provider is None:
        names = ", ".join(sorted(known)) or "none is configured"
        raise expected(f"a provider of this configuration ({names})", table.provider, key="provider")
    if table.lifetime is not None and table.lifetime < 1:
        raise expected("a duration of a second or more", float(table.lifetime), key="lifetime")
    credentials = {key: secret_of(value, f"credentials.{key}") for key, value in table.credentials.items()}
    for key, source in credentials.items():
        if exposed and source.text is not None and key not in PUBLIC:
            raise exposed.within(f"credentials.{key}")
    settings: dict[str, object] = dict(table.settings)
    settings.update({k: v for k in ("scope", "audience", "resource") if (v := getattr(table, k))})
    if type(provider.dialect) is OAuth2:  # isinstance is slow where a Protocol is among the bases
        settings.update(_oauth2(table, provider.dialect, frozenset(credentials)))
    else:
        for key in OAUTH2_KEYS:
            if getattr(table, key):
                raise ConfigError("only oauth2 has this; a recipe says itself what is sent", key=key)
    provider.dialect.check(frozenset(credentials), settings)
    credentials |= _kept(table.request)
    pace = Pace(on_demand=table.on_demand, reuse_grace=provider.reuse_grace)
    if table.lifetime is not None:
        pace = replace(pace, lifetime=float(table.lifetime), lifetime_named=True)
    return GrantSettings(name, provider, credentials, settings, pace)


def _oauth2(table: GrantFile, dialect: OAuth2, credentials: frozenset[str]) -> dict[str, object]:
    if table.settings:
        raise ConfigError("oauth2 has no further settings", key="settings")
    offered = ("auto",) if dialect.issuer else ()
    grant_type = GRANT_TYPES.get(table.grant_type or "")
    own = grant_type.takes if grant_type and "client_id" not in credentials else ()  # what shows no client
    by_credential = [method for name, method in DEFAULT_AUTH.items() if name in credentials and name not in own]
    settings: dict[str, object] = {"grant_type": table.grant_type}
    settings["client_auth"] = table.client_auth or (*offered, *by_credential, "none")[0]
    if table.dpop:
        settings["dpop"] = True
    if table.assertion:
        settings["assertion"] = oauth2.assertion(table.assertion)
    if table.client_assertion:
        settings["client_assertion"] = oauth2.client_assertion(table.client_assertion)
    if table.redirect_uri:
        settings["redirect_uri"] = table.redirect_uri
    if table.authorization_params:
        settings["authorization_params"] = dict(table.authorization_params)
    if table.pushed_request:
        settings["pushed_request"] = True
    if table.subject or table.grant_type == "token_exchange":
        settings["subject"] = oauth2.subject(table.subject or oauth2.SubjectFile())
    if table.variants:
        settings["variants"] = oauth2.variants(table.variants)
    if table.request:
        settings["request"] = _added(table.request)
    return settings


def _added(request: Mapping[str, Mapping[str, Any]]) -> Added:
    for step, fields in request.items():
        if step not in STEPS:
            raise unknown_key(step, list(STEPS), "request")
        for name, value in fields.items():
            if not name or not name.isprintable():
                raise expected("the name of a form field", name, key=f"request.{step}")
            if not isinstance(value, str | dict):
                wanted = "text, or a table with one of file, credential, env, command"
                raise expected(wanted, value, key=f"request.{step}.{name}", show=False)
    return Added(
        {
            step: {
                name: value if isinstance(value, str) else Kept(f"request.{step}.{name}")
                for name, value in each.items()
            }
            for step, each in request.items()
        }
    )


def _kept(request: Mapping[str, Mapping[str, Any]]) -> dict[str, SecretSource]:
    """The values that are secrets: they are read, looked after and masked as credentials are."""
    tables = ((f"request.{step}.{name}", value) for step, each in request.items() for name, value in each.items())
    return {key: secret_of(value, key) for key, value in tables if isinstance(value, dict)}


def check_subjects(grants: Mapping[str, GrantSettings]) -> Iterator[tuple[str, ConfigError]]:
    """Grants whose tokens are got with another one's: it is there, and no grant waits for itself."""
    subject = {name: each.provider.dialect.needs(each.settings).subject for name, each in grants.items()}
    for name, other in subject.items():
        if other is None:
            continue
        if other not in grants:
            yield name, expected("a grant of this configuration", other, key="subject.grant")
        seen = [name]
        while other is not None and other in grants and other not in seen:
            seen.append(other)
            other = subject[other]
        if other == name:
            words = f"grants are each other's subject: {' needs '.join([*seen, name])}"
            yield name, ConfigError(words, key="subject.grant")


def check_keys(grants: Mapping[str, GrantSettings]) -> Iterator[tuple[str, ConfigError]]:
    """One private key for one provider: what is signed for one must be worth nothing at another."""
    users: dict[SecretSource, str] = {}
    for name, grant in grants.items():
        source = grant.credentials.get("private_key")
        if source is not None and users.setdefault(source, grant.provider.name) != grant.provider.name:
            words = f"this key is that of provider {users[source]} too; every provider needs a key of its own"
            yield name, ConfigError(words, key="credentials.private_key")
