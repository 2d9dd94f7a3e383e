# The metadata of an authorization server (RFC 8414 §2, OpenID Connect Discovery 1.0 §3): the members that brokerd uses,
# and what it believes. Hostile metadata must not send credentials or requests elsewhere. Pure.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from brokerd.core.timing.moment import Moment, seconds_until

FRESH = 86_400.0  # seconds until the server is asked again
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
    """One server's metadata. `endpoints`: URLs by the names of RFC 8414; `aliases`: the same for mutual TLS (RFC 8705
    §5); `unusable`: what the server named instead of a URL. `auth_methods`: of the token endpoint;
    `endpoint_auth_methods`: of the others. `origins` are pinned at first use. `public`: the issuer was reached at a
    public address, so an endpoint at a private one is refused. `agreed`: an operator accepted the metadata, whatever
    its addresses.

    Many attributes: they are the members of the server's document, and how it was reached."""

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
    """Scheme, host and port as written, without the scheme's usual port."""
    parts = urlsplit(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, usual) else f":{parts.port}")


def origins(endpoints: Mapping[str, str], aliases: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted({origin(url) for url in (*endpoints.values(), *aliases.values())}))


def stray(known: Metadata | None, found: Metadata) -> str | None:
    """The first origin that the metadata names now and did not name at first, with its endpoint, in words."""
    if known is None or not known.origins:
        return None
    for name, url in sorted({**found.endpoints, **{f"{n} (mutual TLS)": u for n, u in found.aliases.items()}}.items()):
        if origin(url) not in known.origins:
            return f"{name} at {origin(url)}"
    return None


def to_agree(known: Metadata | None, issuer: str, now: Moment) -> Metadata:
    """What is kept when an operator agrees: only the agreement, so that the metadata is read again."""
    return Metadata(issuer, known.fetched if known else now, agreed=True)
