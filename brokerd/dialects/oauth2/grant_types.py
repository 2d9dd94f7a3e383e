# What each grant type sends to the token endpoint: RFC 6749 §4.3 and §4.4, RFC 7523 §2.1, RFC 8693 §2.1.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from brokerd.core.exchange.algorithms import ALGORITHMS
from brokerd.core.exchange.signing import default_algorithm
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.timing.duration import Duration
from brokerd.core.validation import ConfigError, check_one_of, expected
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.client_auth import ASSERTED
from brokerd.dialects.oauth2.signed_by_others import signed_by_others

TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"  # noqa: S105 - RFC 8693 §3, a prefix of names
TOKEN_TYPES = ("access_token", "refresh_token", "id_token", "saml1", "saml2", "jwt")  # RFC 8693 §3
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - RFC 8693 §2.1, a name


@dataclass(frozen=True, slots=True)
class GrantType:
    """`wire`: what is sent as grant_type. `needs` and `takes`: required and optional credentials besides the client's.
    `issues`: they bring tokens without a person; only if `asked`, which a login asks for, is configured. `login`: a
    person can log in. `anonymous`: works without a client_id."""

    wire: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    issues: bool = True
    asked: str | None = None
    login: bool = False
    anonymous: bool = False

    @property
    def is_of_person(self) -> bool:
        """A person logged in once, here or elsewhere: the refresh token stands for that. The others have none to import
        (RFC 6749 §4.4.3, RFC 7521 §4.1)."""
        return self.login or not self.issues


GRANT_TYPES: Mapping[str, GrantType] = {
    "client_credentials": GrantType("client_credentials"),
    "password": GrantType("password", ("username",), ("password",), asked="password", login=True, anonymous=True),
    "refresh_token": GrantType("refresh_token", issues=False),
    "jwt_bearer": GrantType(JWT_BEARER, takes=("assertion", "private_key"), anonymous=True),
    "token_exchange": GrantType(TOKEN_EXCHANGE, takes=("subject_token", "actor_token"), anonymous=True),
    "device_code": GrantType("urn:ietf:params:oauth:grant-type:device_code", issues=False, login=True),
    "authorization_code": GrantType("authorization_code", issues=False, login=True),
}
SUBJECT_GRANT = "subject.grant"  # the credential that `subject = { grant = … }` is
# Other programs renew their files: they are read before each exchange.
VOLATILE = ("assertion", "subject_token", "actor_token", ASSERTED)


# Assertion, Subject and Downscoping are tables of a grant's configuration. The store compares the repr of the first two
# (GrantSettings.requested): rename neither the classes nor their fields.


class Assertion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the assertion of a JWT bearer grant says (RFC 7523 §3). `lifetime` in seconds."""

    issuer: str
    audience: str
    subject: str | None = None
    algorithm: str | None = None
    key_id: str | None = None
    lifetime: Duration = Duration(300.0)
    claims: dict[str, Any] = {}


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which token is exchanged (RFC 8693 §2.1): a credential, or the token of another grant."""

    grant: str | None = None
    token_type: str | None = None
    actor_token_type: str = "jwt"  # noqa: S105 - RFC 8693 §3, a name
    requested_token_type: str | None = None


class Downscoping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the grant's downscoped tokens are got: by `exchange` of its own token (RFC 8693), else with the refresh token
    or from credentials. `audience` and `resource`: what the refresh token may be used for besides the grant's own."""

    exchange: bool = False
    audience: tuple[str, ...] = ()
    resource: tuple[str, ...] = ()


def with_uris(subject: Subject, source: SecretSource | None = None) -> Subject:
    """The same with its token types as the protocol writes them. `source`: of the credential subject_token. Raises
    ConfigError."""
    source = SecretSource(grant=subject.grant) if subject.grant else source
    kind = "jwt"
    if source is not None and source.grant is not None:
        kind = "access_token" if source.field is None else source.field if source.field in TOKEN_TYPES else kind
    return Subject(
        subject.grant,
        _uri(subject.token_type or kind, "token_type"),
        _uri(subject.actor_token_type, "actor_token_type"),
        _uri(subject.requested_token_type, "requested_token_type") if subject.requested_token_type else None,
    )


def _uri(token_type: str, key: str) -> str:
    if ":" in token_type:  # a URI that the server defines
        return token_type
    if token_type not in TOKEN_TYPES:
        raise expected(f"one of {', '.join(TOKEN_TYPES)}, or a URI", token_type, key=f"subject.{key}")
    return TOKEN_TYPE + token_type


def check(name: str, credentials: frozenset[str], settings: Mapping[str, object]) -> None:
    """What a grant type needs besides its credentials. Raises ConfigError."""
    if name == "jwt_bearer":
        if len(credentials & {"assertion", "private_key"}) != 1:
            words = "jwt_bearer needs one of assertion (signed by others) and private_key (brokerd signs)"
            raise ConfigError(words, key="credentials.private_key")
        if "private_key" in credentials and "assertion" not in settings:
            words = 'write what the assertion says: assertion = { issuer = "…", audience = "…" } (RFC 7523 §3)'
            raise ConfigError(words, key="assertion")
    elif "assertion" in settings:
        raise ConfigError('only grant_type = "jwt_bearer" uses this key; remove it', key="assertion")
    if isinstance(assertion := settings.get("assertion"), Assertion):
        check_one_of(assertion.algorithm or ALGORITHMS[0], ALGORITHMS, "assertion.algorithm")
        if not 1 <= assertion.lifetime <= 3_600:
            raise expected("a duration from a second to an hour", float(assertion.lifetime), key="assertion.lifetime")
    if name == "token_exchange":
        subject = settings.get("subject")
        has_grant = isinstance(subject, Subject) and subject.grant is not None
        if has_grant == ("subject_token" in credentials):
            words = (
                'token_exchange needs one of the credential subject_token and subject = { grant = "…" } (RFC 8693 §2.1)'
            )
            raise ConfigError(words, key="credentials.subject_token")
    elif "subject" in settings:
        raise ConfigError('only grant_type = "token_exchange" uses this key; remove it', key="subject")
    for key in ("redirect_uri", "authorization_params", "pushed_request"):
        if key in settings and name != "authorization_code":
            raise ConfigError('only grant_type = "authorization_code" uses this key; remove it', key=key)


def fields(name: str, view: GrantView) -> tuple[dict[str, str], tuple[Secret, ...]]:
    """The fields of an issue, and the secrets in them that are no credentials. Raises UnusableKey and UnusableToken."""
    sent = {"grant_type": GRANT_TYPES[name].wire}
    for each in GRANT_TYPES[name].needs:
        sent[each] = view.credentials[each].reveal()
    if name == "password":
        sent["password"] = view.credentials["password"].reveal()
    if name == "jwt_bearer":
        assertion = signed_by_others(view, "assertion") if "assertion" in view.credentials else _assertion(view)
        return {**sent, "assertion": assertion.reveal()}, (assertion,)
    if name == "token_exchange":
        subject = view.settings["subject"]
        assert isinstance(subject, Subject)
        assert subject.token_type is not None
        token = signed_by_others(view, SUBJECT_GRANT if subject.grant else "subject_token")
        sent |= {"subject_token": token.reveal(), "subject_token_type": subject.token_type}
        if "actor_token" in view.credentials:
            actor = signed_by_others(view, "actor_token")
            sent |= {"actor_token": actor.reveal(), "actor_token_type": subject.actor_token_type}
        if subject.requested_token_type:
            sent["requested_token_type"] = subject.requested_token_type
    return sent, ()


def exchange_of_own(view: GrantView) -> tuple[dict[str, str], tuple[Secret, ...]]:
    """What brings a downscoped token in exchange for the grant's own living token (RFC 8693 §2.1)."""
    assert view.access_token is not None
    token, kind = view.access_token.value, TOKEN_TYPE + "access_token"
    sent = {"grant_type": TOKEN_EXCHANGE, "subject_token": token.reveal(), "subject_token_type": kind}
    return {**sent, "requested_token_type": kind}, (token,)


def _assertion(view: GrantView) -> Secret:
    said = view.settings["assertion"]
    assert isinstance(said, Assertion)
    key = view.credentials["private_key"]
    claims = {"iss": said.issuer, "sub": said.subject or said.issuer, "aud": said.audience, **said.claims}
    algorithm = said.algorithm or default_algorithm(key)
    return view.sign.assertion(claims, key, algorithm, key_id=said.key_id, lifetime=said.lifetime)
