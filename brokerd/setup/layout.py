# Where the files of an installation are: prefix, units, configuration, state directory and socket, of the system or of
# one user.
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brokerd.config.load import daemon_settings
from brokerd.config.settings import Configuration
from brokerd.config.toml_files import DEFAULT_CONFIG
from brokerd.core.validation import ConfigError
from brokerd.setup.installation import DEFAULT_STATE_DIR, socket_path, state_path


@dataclass(frozen=True, slots=True)
class Layout:
    """`prefix`: uninstall removes what install put there. All other files belong to the operator."""

    prefix: Path
    units: Path
    config: Path
    state: Path
    is_system: bool

    @property
    def manifest(self) -> Path:
        """The list of installed files, by which uninstall knows the files that somebody has changed since."""
        return self.prefix / "share/brokerd/installed.json"


def of_system(prefix: Path | None) -> Layout:
    prefix = prefix or Path("/usr/local")
    config = Path(DEFAULT_CONFIG)
    return Layout(prefix, prefix / "lib/systemd/system", config, Path(DEFAULT_STATE_DIR), is_system=True)


def of_user(home: Path, prefix: Path | None) -> Layout:
    prefix = prefix or home / ".local"
    config = home / ".config/brokerd/brokerd.toml"
    return Layout(prefix, prefix / "share/systemd/user", config, home / ".local/state/brokerd", is_system=False)


def in_use(named: str | None) -> tuple[str, Mapping[str, str]]:
    """The named configuration, else the user's own if it exists, else the system's; and the environment variables that
    tell its brokerd the state directory and the socket."""
    own = _own()
    path = named or (str(own.config) if os.geteuid() and os.access(own.config, os.F_OK) else DEFAULT_CONFIG)
    return path, _own_folders() if is_own(path) else os.environ


def state_in_use(named: str | None, configuration: str | None) -> Path:
    """The `named` state directory, else the one of the brokerd with this `configuration`. A default configuration may
    be missing. Raises ConfigError."""
    if named is not None:
        return Path(named).absolute()
    path, environ = in_use(configuration)
    if configuration is None and not os.access(path, os.F_OK):
        return state_path(Configuration(path), environ)
    return state_path(Configuration(path, daemon_settings(path)), environ)


def socket_in_use(path: str) -> str:
    """The socket of the brokerd with that configuration: as configured, else its unit's. Raises ConfigError."""
    return str(socket_path(daemon_settings(path), _own_folders() if is_own(path) else {}))


def told_socket(*, expected: bool) -> str | None:
    """The socket in a user's own configuration, if that can be read; if it names none and a socket is `expected`, the
    default of the user's own brokerd. None for root."""
    own = _own().config
    if not os.geteuid() or not os.access(own, os.R_OK):
        return None
    try:
        settings = daemon_settings(own)
    except ConfigError:
        return None
    return settings.socket or (str(socket_path(settings, _own_folders())) if expected else None)


def _own() -> Layout:
    try:
        return of_user(Path.home(), None)
    except RuntimeError:  # a user without a home, as some containers have
        return of_user(Path("/"), None)


def is_own(path: str) -> bool:
    return Path(path).absolute() == _own().config


def _own_folders() -> Mapping[str, str]:
    """The folders that the unit of a user's own brokerd sets: without the unit they are the same."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return {"STATE_DIRECTORY": str(_own().state), **({"RUNTIME_DIRECTORY": f"{runtime}/brokerd"} if runtime else {})}
