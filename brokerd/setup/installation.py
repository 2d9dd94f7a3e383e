# Opens what brokerd starts from: configuration, state directory, key and store. An error says what to do.
from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shlex import quote

from brokerd.config.load import load
from brokerd.config.settings import Configuration, DaemonSettings, ProviderSettings, StoreSettings
from brokerd.config.toml_files import is_there
from brokerd.core.ports import StoreError, StoreUnavailable, WrongKey
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.validation import ConfigError
from brokerd.edge.files import ownership
from brokerd.edge.files.secret_sources import SecretUnreadable, read_secret
from brokerd.edge.http.connection import HttpSettings
from brokerd.edge.store import key_file as keys
from brokerd.edge.store.lock import AWAY
from brokerd.edge.store.store import SqliteStore, in_thread
from brokerd.edge.store.unwritten_records import Pieces
from brokerd.edge.system import environment
from brokerd.edge.system.entropy import SystemEntropy
from brokerd.edge.system.machine import machine_id
from brokerd.edge.system.thread_limit import ThreadLimit
from brokerd.edge.systemd import notify, service_manager

DEFAULT_STATE_DIR = "/var/lib/brokerd"
DEFAULT_SOCKET = "/run/brokerd/brokerd.sock"
CREDENTIAL = "brokerd.key"  # as brokerd.service loads it
SEALED = ("/etc/credstore.encrypted", "/run/credstore.encrypted")  # where systemd finds it
EXIT_CONFIGURATION, EXIT_UNAVAILABLE = 2, 4
LONGER = 60.0  # seconds that systemd waits for the next progress message


class CannotStart(Exception):
    """The daemon cannot start; the text says why, and what to do. `code` is the exit status."""

    def __init__(self, message: str, code: int = EXIT_CONFIGURATION) -> None:
        super().__init__(message)
        self.code = code


async def read_configuration(path: str) -> Configuration:
    """The configuration; secrets in environment variables are removed from the environment. Its files may be on a disk
    that never answers, so the thread is neither the store's nor a shared one (law 13). Raises ConfigError."""
    return await _reading.run(lambda: _read_configuration(path))


_reading = ThreadLimit(1)


def _read_configuration(path: str) -> Configuration:
    configuration = load(path)
    grants = configuration.grants.values()
    credentials = (source for grant in grants for source in grant.credentials.values())
    store = configuration.store
    password = () if store is None or store.password is None else (store.password,)
    for source in (*key_sources(configuration), *password, *credentials):
        if source.env is not None:
            with contextlib.suppress(UnicodeError):  # read_secret reports that
                environment.take(source.env)
    return configuration


def state_path(configuration: Configuration, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a daemon with that environment has its state directory."""
    return Path(configuration.daemon.state_dir or environ.get("STATE_DIRECTORY", "").split(":")[0] or DEFAULT_STATE_DIR)


def socket_path(settings: DaemonSettings, environ: Mapping[str, str] = os.environ) -> Path:
    """Where a daemon with that environment has its socket."""
    runtime = environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(settings.socket or (f"{runtime}/brokerd.sock" if runtime else DEFAULT_SOCKET))


def _state_dir(configuration: Configuration) -> Path:
    """The state directory, created if missing, and closed to other users."""
    folder = state_path(configuration)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        faults = ownership.faults_of_state(folder)
    except OSError as error:
        words = f"state_dir: {folder}: {error.strerror}; create it, or set another state_dir in [daemon]"
        raise CannotStart(words, EXIT_UNAVAILABLE if error.errno in AWAY else EXIT_CONFIGURATION) from None
    refuse(faults)
    return folder


def refuse(faults: list[str]) -> None:
    if faults:
        raise CannotStart("; ".join(faults))


async def opened_store(configuration: Configuration, pieces: Pieces | None) -> SqliteStore:
    """The store in the state directory, locked for this process; `pieces`: unstored records that systemd holds."""
    sources = key_sources(configuration)
    found: Iterable[bytes | None] = (read_key(configuration.path, source) for source in sources) if sources else (None,)
    return await in_thread(functools.partial(_store_with, found, configuration, pieces))


def _store_with(found: Iterable[bytes | None], configuration: Configuration, pieces: Pieces | None) -> SqliteStore:
    """The store, opened with the first key that fits; a key is read only if those before it are wrong. Blocking."""
    wrong: WrongKey | None = None
    for kek in found:
        folder = _state_dir(configuration)
        try:
            return SqliteStore(folder, kek, machine_id(), SystemEntropy(), progress=_need_longer, pieces=pieces)
        except WrongKey as error:
            wrong = wrong or error
        except StoreError as error:
            unavailable = isinstance(error, StoreUnavailable)
            raise CannotStart(str(error), EXIT_UNAVAILABLE if unavailable else EXIT_CONFIGURATION) from None
    raise CannotStart(str(wrong))


def _need_longer(words: str) -> None:
    """Asks the service manager to wait for a start that takes long."""
    notify.notify(f"STATUS={words}", f"EXTEND_TIMEOUT_USEC={int(LONGER * 1e6)}")


def key_sources(configuration: Configuration) -> tuple[SecretSource, ...]:
    """The sources of the keys, the present key first; none: it is a passphrase."""
    settings = configuration.daemon
    if settings.passphrase:
        return ()
    key = settings.key or _installed_key(configuration.path)
    return (key,) if settings.previous_key is None else (key, settings.previous_key)


def _installed_key(path: str) -> SecretSource:
    """Where `brokerctl install` puts the key: a systemd credential of the unit, else a file beside the
    configuration."""
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
    """The file of a credential that systemd unseals for units that name it without a path."""
    return next((path for folder in SEALED if is_there(path := Path(folder) / name)), None)


def _unsealed(name: str) -> str:
    """A credential outside of its unit, opened by systemd-creds, which needs root: for verifying the audit log."""
    path = sealed(name)
    if path is None:
        return read_secret(SecretSource(credential=name)).reveal()  # which says that there is none, and what to do
    try:
        return service_manager.run("systemd-creds", "decrypt", f"--name={name}", str(path), "-").decode()
    except service_manager.CommandFailed as error:
        raise SecretUnreadable(f"credential {name}: {error}") from None


def http_settings(provider: ProviderSettings) -> HttpSettings:
    """How the HTTP client reaches the provider."""
    ca_file, cert_file, key_file = (
        None if file is None else Path(file) for file in (provider.ca_file, provider.cert_file, provider.key_file)
    )
    timeout = provider.answer_timeout
    return HttpSettings(ca_file, cert_file, key_file, provider.proxy, provider.insecure_http, answer_timeout=timeout)


def store_http_settings(store: StoreSettings) -> HttpSettings:
    """How the HTTP client reaches etcd: never through a proxy, whatever the environment says."""
    ca_file, cert_file, key_file = (
        None if file is None else Path(file) for file in (store.ca_file, store.cert_file, store.key_file)
    )
    return HttpSettings(ca_file, cert_file, key_file, proxy=Secret(""))


@contextlib.contextmanager
def as_config_error(path: str, key: str) -> Iterator[None]:
    try:
        yield
    except (SecretUnreadable, ValueError) as error:
        raise ConfigError(str(error), key=key, file=path) from None
