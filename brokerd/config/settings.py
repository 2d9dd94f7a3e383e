# The configuration as checked values. The defaults of [daemon] and of providers are here.
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field
from ipaddress import ip_address
from sys import intern
from typing import NamedTuple

from brokerd.core.access.admission import Limits
from brokerd.core.access.policy import Rule
from brokerd.core.alerts import OnEvent
from brokerd.core.exchange.request_ids import HEADER
from brokerd.core.grant.renewal import Pace
from brokerd.core.secret import Secret, SecretSource
from brokerd.dialects.dialect import Dialect

# A change of these changes nothing about the grant's own tokens.
NOT_REQUESTED = ("client_auth", "client_assertion", "variants", "fields")
REUSE_GRACE = 0.0  # seconds
CONCURRENCY = 8  # requests under way at once
CLOCK_DIFFERENCE = 120.0  # seconds


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    socket: str | None = None  # None: systemd's, or the default
    state_dir: str | None = None
    key: SecretSource | None = None  # None: where brokerctl install puts it, unless it is a passphrase
    passphrase: bool = False  # which is given to `unlock`
    previous_key: SecretSource | None = None
    socket_mode: int = 0o660
    socket_group: str | None = None
    limits: Limits = field(default_factory=Limits)
    audit: str = "serve"  # what happens when the audit log cannot be written; "off": there is none
    audit_size: int = 64  # MiB of all its files together
    warn_refresh_token: float = 7 * 86_400.0  # seconds before a refresh token expires
    warn_certificate: float = 14 * 86_400.0  # seconds before a certificate ends


class TcpAddress(NamedTuple):
    """`host`: an IP address."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """`metrics`: of [http] alone."""

    socket: str | None = None  # None: systemd's, or off
    metrics: TcpAddress | None = None  # None: off


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The etcd of a fleet. `name`: of this host. `offline`: for how many seconds tokens are served while etcd is away;
    None: as long as they live. `clock_difference`: how many seconds the clocks of two hosts may differ."""

    etcd: tuple[str, ...]
    fleet: str
    name: str
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    user: str | None = None
    password: SecretSource | None = None
    offline: float | None = None
    clock_difference: float = CLOCK_DIFFERENCE


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Where requests go and how. `concurrency`: requests under way at once; times in seconds. `answer_timeout` of None:
    minutes if a stored token is sent, else less. `request_id_header`: in which each request carries the id of its
    exchange; "": in none.

    Many attributes: each is a key of the configuration."""

    name: str
    dialect: Dialect
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    proxy: Secret | None = None
    insecure_http: bool = False
    reuse_grace: float = REUSE_GRACE
    concurrency: int = CONCURRENCY
    answer_timeout: float | None = None
    request_id_header: str = HEADER


@dataclass(frozen=True, slots=True)
class GrantSettings:
    name: str
    provider: ProviderSettings
    credentials: Mapping[str, SecretSource]
    settings: Mapping[str, object]
    pace: Pace
    like: InitVar[GrantSettings | None] = None  # a grant with equal settings at the same provider
    requested: str = field(
        init=False, repr=False
    )  # as text to compare: if it changes, the grant gets a new token (law 14)
    has_tokens_of_grants: bool = field(init=False, repr=False)  # whether a credential is another grant's token

    @property
    def sources(self) -> Iterator[tuple[str, SecretSource]]:
        """Each secret with its key within the grant."""
        for name, source in self.credentials.items():
            yield name if "." in name else f"credentials.{name}", source

    def __post_init__(self, like: GrantSettings | None) -> None:
        # Made once: it is looked at by every get of a downscoped token.
        object.__setattr__(self, "requested", like.requested if like else intern(repr(self._asked())))
        of_grants = any(source.grant is not None for source in self.credentials.values())
        object.__setattr__(self, "has_tokens_of_grants", of_grants)

    def _asked(self) -> list[tuple[str, object]]:
        asked = sorted((key, value) for key, value in self.settings.items() if key not in NOT_REQUESTED)
        if fields := self.provider.dialect.fields(self.settings):
            asked.append(("fields", sorted(fields)))
        return asked


@dataclass(frozen=True, slots=True)
class Configuration:
    """`store`: None for the store in the state directory alone."""

    path: str
    daemon: DaemonSettings = DaemonSettings()
    providers: Mapping[str, ProviderSettings] = field(default_factory=dict)
    grants: Mapping[str, GrantSettings] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    on_event: tuple[OnEvent, ...] = ()
    http: ListenSettings = ListenSettings()
    credentials: ListenSettings = ListenSettings()
    store: StoreSettings | None = None
