# What an installation has beside the package itself: units, pages, completions and the first configuration, each with
# its place and its text, and what keeps a service from running the program where it lies. It writes nothing.
from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brokerd.config import DEFAULT_CONFIG, Configuration, daemon_settings
from brokerd.core.typed import ConfigError
from brokerd.installation import DEFAULT_STATE_DIR, socket_path, state_path

SYSTEMD = Path(__file__).parent / "systemd"
PROGRAMS = "/opt/brokerd/bin"  # as the units name it
UNITS = ("brokerd.service", "brokerd.socket")
COMPLETIONS = {
    "bash": "share/bash-completion/completions/brokerctl",
    "fish": "share/fish/vendor_completions.d/brokerctl.fish",
    "zsh": "share/zsh/site-functions/_brokerctl",
}
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - by ProtectHome= and PrivateTmp=


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are. `prefix`: what install puts there, uninstall takes away; all else is the operator's."""

    prefix: Path
    units: Path
    config: Path
    state: Path
    is_system: bool

    @property
    def manifest(self) -> Path:
        """What was put, so that a file that somebody changed since is known."""
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
    """The configuration that is named, else a user's own where there is one, else the system's; and the environment by
    which its brokerd knows its state directory and its socket."""
    own = _own()
    path = named or (str(own.config) if os.geteuid() and os.access(own.config, os.F_OK) else DEFAULT_CONFIG)
    return path, _own_folders() if is_own(path) else os.environ


def state_in_use(named: str | None, configuration: str | None) -> Path:
    """The state directory that is `named`, else that of the brokerd with this `configuration`, which need not be there
    any more. Raises ConfigError."""
    if named is not None:
        return Path(named).absolute()
    path, environ = in_use(configuration)
    if configuration is None and not os.access(path, os.F_OK):
        return state_path(Configuration(path), environ)
    return state_path(Configuration(path, daemon_settings(path)), environ)


def socket_in_use(path: str) -> str:
    """The socket of the brokerd with that configuration: what it says, else its unit's. Raises ConfigError."""
    return str(socket_path(daemon_settings(path), _own_folders() if is_own(path) else {}))


def told_socket(*, expected: bool) -> str | None:
    """The socket of a user's own configuration, where that can be read: what it says, else, if that is `expected`,
    where the user's own brokerd is going to listen. Root's own is the system's."""
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
    """What the unit of a user's own brokerd sets, so that one without its unit has the same folders."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return {"STATE_DIRECTORY": str(_own().state), **({"RUNTIME_DIRECTORY": f"{runtime}/brokerd"} if runtime else {})}


def files(
    layout: Layout, programs: Path, manuals: Mapping[str, str], completions: Mapping[str, str]
) -> dict[Path, str]:
    """The files under the prefix. `programs`: the folder with brokerd and brokerctl; `manuals`: by name, such as
    brokerd.8; `completions`: by shell."""
    source = SYSTEMD if layout.is_system else SYSTEMD / "user"
    found = {layout.units / name: _text(source / name).replace(PROGRAMS, str(programs)) for name in UNITS}
    if layout.is_system:
        for kind in ("sysusers.d", "tmpfiles.d"):
            found[layout.prefix / "lib" / kind / "brokerd.conf"] = _text(SYSTEMD / kind / "brokerd.conf")
        for file in sorted((SYSTEMD / "drop-ins").iterdir()):
            found[layout.prefix / "share/doc/brokerd/drop-ins" / file.name] = _text(file)
    for name, text in manuals.items():
        found[layout.prefix / f"share/man/man{name.rpartition('.')[2]}" / name] = text
    for shell, text in completions.items():
        found[layout.prefix / COMPLETIONS[shell]] = text
    return found


def links(layout: Layout, programs: Path) -> dict[Path, Path]:
    """The programs, where a shell looks for them."""
    return {layout.prefix / "bin" / name: programs / name for name in ("brokerctl", "brokerd")}


def example(main: Path) -> str:
    """A configuration of nothing, with all that it could be in comments, for that file."""
    return _text(SYSTEMD / "brokerd.toml").replace(str(Path(DEFAULT_CONFIG).parent), str(main.parent))


def why_hidden(program: Path) -> str | None:
    """Why the unit's own user could not run what lies here; None where he can."""
    for path in (program, program.resolve()):
        if any(path.is_relative_to(folder) for folder in HIDDEN):
            return f"{path} is hidden from services, as {', '.join(HIDDEN)} are"
        for each in (path, *path.parents):
            if not each.stat().st_mode & stat.S_IXOTH:
                return f"{path} cannot be run by the user brokerd: {each} is closed to others"
    return None


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
