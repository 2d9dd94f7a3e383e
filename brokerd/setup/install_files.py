# The files that `brokerctl install` writes: units, man pages, completions and a first configuration, each with its path
# and its text; and why systemd could not run the program from where it is. It writes nothing.
from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from brokerd.config.toml_files import DEFAULT_CONFIG
from brokerd.setup.layout import Layout

SYSTEMD = Path(__file__).parents[1] / "systemd"
MANUAL_PAGES = Path(__file__).parents[1] / "man"  # `make man` makes them from docs/man
PROGRAMS = "/opt/brokerd/bin"  # as the units name it
LINKED = (  # to where a shell finds it, and git, docker and bazel
    *("brokerctl", "brokerd", "brokerd-proxy"),
    *("bazel-credential-brokerd", "docker-credential-brokerd", "git-credential-brokerd"),
)
OPTIONAL = ("brokerd-credentials.socket", "brokerd-http.socket")  # off until an operator enables them
UNITS = (*OPTIONAL, "brokerd.service", "brokerd.socket")
PROXY_UNIT = "brokerd-proxy@.service"  # of the system alone: it has a user of its own
FILES_UNIT = {True: "brokerd-files@.service", False: "brokerd-files.service"}  # by whether it is the system's
COMPLETIONS = {
    "bash": "share/bash-completion/completions/brokerctl",
    "fish": "share/fish/vendor_completions.d/brokerctl.fish",
    "zsh": "share/zsh/site-functions/_brokerctl",
}
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - by ProtectHome= and PrivateTmp=


def files(layout: Layout, programs: Path, completions: Mapping[str, str]) -> dict[Path, str]:
    """The files under the prefix. `programs`: the folder with brokerd and brokerctl; `completions`: by shell."""
    source = SYSTEMD if layout.is_system else SYSTEMD / "user"
    found = {
        layout.units / name: _text(source / name).replace(PROGRAMS, str(programs))
        for name in (*UNITS, FILES_UNIT[layout.is_system], *([PROXY_UNIT] if layout.is_system else []))
    }
    if layout.is_system:
        for kind in ("sysusers.d", "tmpfiles.d"):
            found[layout.prefix / "lib" / kind / "brokerd.conf"] = _text(SYSTEMD / kind / "brokerd.conf")
        for file in sorted((SYSTEMD / "drop-ins").iterdir()):
            found[layout.prefix / "share/doc/brokerd/drop-ins" / file.name] = _text(file)
    for page in sorted(MANUAL_PAGES.iterdir()):
        found[layout.prefix / f"share/man/man{page.suffix[1:]}" / page.name] = _text(page)
    for shell, text in completions.items():
        found[layout.prefix / COMPLETIONS[shell]] = text
    return found


def links(layout: Layout, programs: Path) -> dict[Path, Path]:
    """The links to the programs, in the path of shells."""
    return {layout.prefix / "bin" / name: programs / name for name in LINKED}


def example(main: Path) -> str:
    """The text of a first configuration for that file: everything in it is a comment."""
    return _text(SYSTEMD / "brokerd.toml").replace(str(Path(DEFAULT_CONFIG).parent), str(main.parent))


def why_hidden(program: Path) -> str | None:
    """Why the user of the unit cannot run this program; None if it can."""
    for path in (program, program.resolve()):
        if any(path.is_relative_to(folder) for folder in HIDDEN):
            return f"{path} is hidden from services, as {', '.join(HIDDEN)} are"
        for each in (path, *path.parents):
            if not each.stat().st_mode & stat.S_IXOTH:
                return f"{path} cannot be run by the user brokerd: {each} is closed to others"
    return None


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
