# What an authorization server says of itself (RFC 8414 §2, OpenID Connect Discovery 1.0 §3), as far as it is used here,
# and what of it is believed: hostile metadata must not direct credentials or requests elsewhere. Pure.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from brokerd.core.moment import Moment, seconds_until

FRESH = 86_400.0  # seconds for which it is believed without asking again
ENDPOINTS = (
    "token_endpoint",
    "authorization_endpoint",
    "device_authorization_endpoint",
    "introspection_endpoint",
    "pushed_authorization_request_endpoint",
    "registration_endpoint",
    "revocation_endpoint",
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """One server's metadata. `endpoints` goes by the names of RFC 8414; `aliases` are those for mutual TLS (RFC 8705
    §5). `unusable` says of other endpoints what the server named instead of a URL. `auth_methods` are the token
    endpoint's, `endpoint_auth_methods` those of others. `origins` are pinned at first use. `public`: the issuer
    was reached at a public address, so that an endpoint at a private one is refused. `agreed`: an operator said that
    what it names is right, whatever its addresses."""

    issuer: str
    fetched: Moment
    endpoints: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)
    auth_methods: tuple[str, ...] = ("client_secret_basic",)  # RFC 8414 §2: the default
    endpoint_auth_methods: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    signing_algorithms: tuple[str, ...] = ()
    names_issuer: bool = False  # authorization_response_iss_parameter_supported (RFC 9207)
    offers_offline_access: bool = False  # a scope of OpenID Connect Core §11, in scopes_supported
    wants_pushed: bool = False  # require_pushed_authorization_requests (RFC 9126 §5)
    origins: tuple[str, ...] = ()
    public: bool = False
    agreed: bool = False

    def is_fresh(self, now: Moment) -> bool:
        return bool(self.endpoints) and seconds_until(self.fetched, now) > -FRESH

    @property
    def guarded(self) -> bool:
        """Whether its endpoints must be at public addresses."""
        return self.public and not self.agreed


def origin(url: str) -> str:
    """Scheme, host and port as written; a port that the scheme has anyway is left out."""
    parts = urlsplit(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, usual) else f":{parts.port}")


def origins(endpoints: Mapping[str, str], aliases: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted({origin(url) for url in (*endpoints.values(), *aliases.values())}))


def stray(known: Metadata | None, found: Metadata) -> str | None:
    """The first origin that is named now and was not when the server was first met, with its endpoint, in words."""
    if known is None or not known.origins:
        return None
    for name, url in sorted({**found.endpoints, **{f"{n} (mutual TLS)": u for n, u in found.aliases.items()}}.items()):
        if origin(url) not in known.origins:
            return f"{name} at {origin(url)}"
    return None


def to_agree(known: Metadata | None, issuer: str, now: Moment) -> Metadata:
    """What is kept when an operator agrees: nothing but that, so that the server is met anew."""
    return Metadata(issuer, known.fetched if known else now, agreed=True)
