# The configuration as checked values, which all of brokerd works with.
from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from brokerd.core.admission import Limits
from brokerd.core.policy import Rule
from brokerd.core.renewal import Pace
from brokerd.core.secret import Secret, SecretSource
from brokerd.dialects.dialect import Dialect

# How a client shows who it is, and how variants are got, changes nothing about the grant's own tokens.
NOT_ASKED = ("client_auth", "client_assertion", "variants")


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


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Where requests go and how. `concurrency`: requests in flight at once; times in seconds. `answer_timeout` of None:
    minutes where a stored token is sent, less elsewhere."""

    name: str
    dialect: Dialect
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    proxy: Secret | None = None
    insecure_http: bool = False
    reuse_grace: float = 0.0
    concurrency: int = 8
    answer_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class GrantSettings:
    name: str
    provider: ProviderSettings
    credentials: Mapping[str, SecretSource]
    settings: Mapping[str, object]
    pace: Pace
    asked: str = field(init=False, repr=False)  # as text to compare: where it changes, a new token is got (law 14)

    @property
    def sources(self) -> Iterator[tuple[str, SecretSource]]:
        """Each secret with the key that it stands at, within the grant."""
        for name, source in self.credentials.items():
            yield name if name.startswith("request.") else f"credentials.{name}", source

    def __post_init__(self) -> None:
        asked = sorted((key, value) for key, value in self.settings.items() if key not in NOT_ASKED)
        object.__setattr__(self, "asked", repr(asked))  # once: it is looked at by every get of a variant


@dataclass(frozen=True, slots=True)
class Configuration:
    path: str
    daemon: DaemonSettings = DaemonSettings()
    providers: Mapping[str, ProviderSettings] = field(default_factory=dict)
    grants: Mapping[str, GrantSettings] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
