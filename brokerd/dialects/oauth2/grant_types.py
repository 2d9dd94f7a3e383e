# What each grant type sends to the token endpoint: RFC 6749 §4.3 and §4.4, RFC 7523 §2.1, RFC 8693 §2.1. How the client
# shows who it is, and what comes back, is not known here.
from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from brokerd.core.exchange import Answer, Step, token_of
from brokerd.core.secret import Secret
from brokerd.core.signing import default_algorithm
from brokerd.core.typed import ConfigError
from brokerd.dialects.dialect import GrantView

TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"  # noqa: S105 - RFC 8693 §3, a prefix of names
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - RFC 8693 §2.1, a name


@dataclass(frozen=True, slots=True)
class GrantType:
    """`wire`: what is sent as grant_type. `needs` and `takes`: credentials besides the client's. `issues`: tokens can
    be had from them without a person; where one of them is `asked` for, only if it is configured. `login`: tokens can
    be had with a person's help. `anonymous`: a client need not name itself."""

    wire: str
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    issues: bool = True
    asked: str | None = None
    login: bool = False
    anonymous: bool = False


GRANT_TYPES: Mapping[str, GrantType] = {
    "client_credentials": GrantType("client_credentials"),
    "password": GrantType("password", ("username",), ("password",), asked="password", login=True, anonymous=True),
    "refresh_token": GrantType("refresh_token", issues=False),
    "jwt_bearer": GrantType(JWT_BEARER, takes=("assertion", "private_key"), anonymous=True),
    "token_exchange": GrantType(TOKEN_EXCHANGE, takes=("subject_token", "actor_token"), anonymous=True),
    "device_code": GrantType("urn:ietf:params:oauth:grant-type:device_code", issues=False, login=True),
    "authorization_code": GrantType("authorization_code", issues=False, login=True),
}
VOLATILE = ("assertion", "subject_token", "actor_token")  # others renew their files: read again before each exchange


@dataclass(frozen=True, slots=True)
class Assertion:
    """What the assertion of a JWT bearer grant says (RFC 7523 §3). `lifetime` in seconds."""

    issuer: str
    audience: str
    subject: str | None = None
    algorithm: str | None = None
    key_id: str | None = None
    lifetime: float = 300.0
    claims: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose token is exchanged (RFC 8693 §2.1): that of a credential, or of another grant."""

    grant: str | None = None
    token_type: str = TOKEN_TYPE + "jwt"
    actor_token_type: str = TOKEN_TYPE + "jwt"
    requested_token_type: str | None = None


@dataclass(frozen=True, slots=True)
class Variants:
    """How variants are got: by `exchange` of the grant's own token (RFC 8693), else with the refresh token or from
    credentials. `audience` and `resource`: what a refresh token is good for besides the grant's own."""

    exchange: bool = False
    audience: tuple[str, ...] = ()
    resource: tuple[str, ...] = ()


def check(name: str, credentials: frozenset[str], settings: Mapping[str, object]) -> None:
    """What a grant type needs besides its credentials. Raises ConfigError."""
    if name == "jwt_bearer":
        if len(credentials & {"assertion", "private_key"}) != 1:
            words = "a JWT bearer grant needs either an assertion (made by others) or a private_key to make it with"
            raise ConfigError(words, key="credentials.private_key")
        if "private_key" in credentials and "assertion" not in settings:
            words = 'say what is asserted: assertion = { issuer = "…", audience = "…" } (RFC 7523 §3)'
            raise ConfigError(words, key="assertion")
    elif "assertion" in settings:
        raise ConfigError('only grant_type = "jwt_bearer" has this', key="assertion")
    if name == "token_exchange":
        subject = settings.get("subject")
        has_grant = isinstance(subject, Subject) and subject.grant is not None
        if has_grant == ("subject_token" in credentials):
            words = 'a token exchange needs either a subject_token or subject = { grant = "…" } (RFC 8693 §2.1)'
            raise ConfigError(words, key="credentials.subject_token")
    elif "subject" in settings:
        raise ConfigError('only grant_type = "token_exchange" has this', key="subject")
    for key in ("redirect_uri", "authorization_params", "pushed_request"):
        if key in settings and name != "authorization_code":
            raise ConfigError('only grant_type = "authorization_code" has this', key=key)


def fields(name: str, view: GrantView) -> Generator[Step, Answer, tuple[dict[str, str], tuple[Secret, ...]]]:
    """What an issue sends, and the secrets in it that are no credentials. Raises UnusableKey."""
    sent = {"grant_type": GRANT_TYPES[name].wire}
    for each in GRANT_TYPES[name].needs:
        sent[each] = view.credentials[each].reveal()
    if name == "password":
        sent["password"] = view.credentials["password"].reveal()
    if name == "jwt_bearer":
        assertion = view.credentials.get("assertion") or _assertion(view)
        return {**sent, "assertion": assertion.reveal()}, (assertion,)
    if name == "token_exchange":
        subject = view.settings.get("subject", Subject())
        assert isinstance(subject, Subject)
        token = (yield from token_of(subject.grant)) if subject.grant else view.credentials["subject_token"]
        sent |= {"subject_token": token.reveal(), "subject_token_type": subject.token_type}
        if actor := view.credentials.get("actor_token"):
            sent |= {"actor_token": actor.reveal(), "actor_token_type": subject.actor_token_type}
        if subject.requested_token_type:
            sent["requested_token_type"] = subject.requested_token_type
        return sent, (token,)
    return sent, ()


def exchange_of_own(view: GrantView) -> tuple[dict[str, str], tuple[Secret, ...]]:
    """What brings a variant in exchange for the grant's own living token (RFC 8693 §2.1)."""
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
