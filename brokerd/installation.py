# What brokerd is installed on: its configuration, state directory, key and store, each opened or refused with a remedy.
# What is done with them is the daemon's matter.
from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shlex import quote

from brokerd.config import Configuration, DaemonSettings, ProviderSettings, load
from brokerd.config.tables import is_there
from brokerd.core.ports import StoreError, StoreUnavailable, WrongKey
from brokerd.core.secret import SecretSource
from brokerd.core.typed import ConfigError
from brokerd.edge import environment, keys, place, service_manager, systemd
from brokerd.edge.connection import HttpSettings
from brokerd.edge.entropy import SystemEntropy
from brokerd.edge.lock import AWAY
from brokerd.edge.machine import machine_id
from brokerd.edge.secrets import SecretUnreadable, read_secret
from brokerd.edge.store import Store, in_thread
from brokerd.edge.unstored import Pieces

DEFAULT_STATE_DIR = "/var/lib/brokerd"
DEFAULT_SOCKET = "/run/brokerd/brokerd.sock"
CREDENTIAL = "brokerd.key"  # as brokerd.service loads it
SEALED = ("/etc/credstore.encrypted", "/run/credstore.encrypted")  # where systemd finds it
EXIT_CONFIGURATION, EXIT_UNAVAILABLE = 2, 4
LONGER = 60.0  # seconds until the next word of something long, at most


class CannotStart(Exception):
    """The daemon cannot start; the text says why, and what to do. `code` is the exit status."""

    def __init__(self, message: str, code: int = EXIT_CONFIGURATION) -> None:
        super().__init__(message)
        self.code = code


def loaded(path: str) -> Configuration:
    """The configuration, and none of its secrets in the environment any more. Blocking. Raises ConfigError."""
    configuration = load(path)
    grants = configuration.grants.values()
    credentials = (source for grant in grants for source in grant.credentials.values())
    for source in (*key_sources(configuration), *credentials):
        if source.env is not None:
            with contextlib.suppress(UnicodeError):  # who reads it says so
                environment.take(source.env)
    return configuration


def state_path(configuration: Configuration, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the state directory is, or is to be, for a daemon with that environment."""
    return Path(configuration.daemon.state_dir or environ.get("STATE_DIRECTORY", "").split(":")[0] or DEFAULT_STATE_DIR)


def socket_path(settings: DaemonSettings, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the socket is, or is to be, for a daemon with that environment."""
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(settings.socket or (f"{runtime}/brokerd.sock" if runtime else DEFAULT_SOCKET))


def _state_dir(configuration: Configuration) -> Path:
    """The state directory, made where it is not there and closed to others."""
    folder = state_path(configuration)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        faults = place.faults_of_state(folder)
    except OSError as error:
        words = f"state_dir: {folder}: {error.strerror}; make it, or set another: [daemon] state_dir"
        raise CannotStart(words, EXIT_UNAVAILABLE if error.errno in AWAY else EXIT_CONFIGURATION) from None
    refuse(faults)
    return folder


def refuse(faults: list[str]) -> None:
    if faults:
        raise CannotStart("; ".join(faults))


async def opened_store(configuration: Configuration, pieces: Pieces | None) -> Store:
    """The store in the state directory, which is ours alone from now on; `pieces`: what is held outside of it."""
    sources = key_sources(configuration)
    found: Iterable[bytes | None] = (read_key(configuration.path, source) for source in sources) if sources else (None,)
    return await in_thread(functools.partial(_store_with, found, configuration, pieces))


def _store_with(found: Iterable[bytes | None], configuration: Configuration, pieces: Pieces | None) -> Store:
    """With the first key that opens it; each is read when those before it are wrong. Blocking."""
    wrong: WrongKey | None = None
    for kek in found:
        folder = _state_dir(configuration)
        try:
            return Store(folder, kek, machine_id(), SystemEntropy(), progress=_need_longer, pieces=pieces)
        except WrongKey as error:
            wrong = wrong or error
        except StoreError as error:
            unavailable = isinstance(error, StoreUnavailable)
            raise CannotStart(str(error), EXIT_UNAVAILABLE if unavailable else EXIT_CONFIGURATION) from None
    raise CannotStart(str(wrong))


def _need_longer(words: str) -> None:
    """Of a start that would take the service manager too long."""
    systemd.notify(f"STATUS={words}", f"EXTEND_TIMEOUT_USEC={int(LONGER * 1e6)}")


def key_sources(configuration: Configuration) -> tuple[SecretSource, ...]:
    """Where the key is to be had, the present one first; none: it is a passphrase."""
    settings = configuration.daemon
    if settings.passphrase:
        return ()
    key = settings.key or _installed_key(configuration.path)
    return (key,) if settings.previous_key is None else (key, settings.previous_key)


def _installed_key(path: str) -> SecretSource:
    """Where `brokerctl install` puts it: a credential that systemd gives its unit, else beside the configuration."""
    beside = Path(path).absolute().with_name("key")
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    folders = (given,) if given else () if is_there(beside) else SEALED
    if any(is_there(Path(folder) / CREDENTIAL) for folder in folders):
        return SecretSource(credential=CREDENTIAL)
    return SecretSource(file=str(beside))


def read_key(path: str, source: SecretSource) -> bytes:
    with as_config_error(path, "daemon.key"):
        if source.file is not None and not Path(source.file).exists():
            words = f"there is no key at {source.file}; put the store's own key there, or for a new store make one"
            words += f" with: brokerctl keygen {quote(source.file)}"
            raise SecretUnreadable(words)
        if source.credential is not None and "CREDENTIALS_DIRECTORY" not in os.environ:
            return keys.parse(_unsealed(source.credential))
        return keys.parse(read_secret(source).reveal())


def sealed(name: str) -> Path | None:
    """Where a credential lies that systemd unseals for units which name it without a path."""
    return next((path for folder in SEALED if is_there(path := Path(folder) / name)), None)


def _unsealed(name: str) -> str:
    """A credential outside of its unit, for whom systemd's own tool opens it: root, who verifies the audit log."""
    path = sealed(name)
    if path is None:
        return read_secret(SecretSource(credential=name)).reveal()  # which says that there is none, and what to do
    try:
        return service_manager.run("systemd-creds", "decrypt", f"--name={name}", str(path), "-").decode()
    except service_manager.CommandFailed as error:
        raise SecretUnreadable(f"credential {name}: {error}") from None


def http_settings(provider: ProviderSettings) -> HttpSettings:
    """A provider's way out."""
    ca_file, cert_file, key_file = (
        None if file is None else Path(file) for file in (provider.ca_file, provider.cert_file, provider.key_file)
    )
    timeout = provider.answer_timeout
    return HttpSettings(ca_file, cert_file, key_file, provider.proxy, provider.insecure_http, answer_timeout=timeout)


@contextlib.contextmanager
def as_config_error(path: str, key: str) -> Iterator[None]:
    try:
        yield
    except (SecretUnreadable, ValueError) as error:
        raise ConfigError(str(error), key=key, file=path) from None
