# Opens a URL in the person's browser. The URL can be a secret (law 11), and every user can read the browser's command
# line. So that line names a file, which only its owner can read, and the file redirects the browser to the URL.
from __future__ import annotations

import os
import re
import stat
import subprocess
import tempfile
import webbrowser
from pathlib import Path

LOOKUP_WITHIN = 2.0  # seconds
SNAP = re.compile(r"([a-z0-9-]+)_[a-z0-9-]+\.desktop")  # SNAP_PROGRAM.desktop, as snapd names them


class Handoff:
    """A file with a page, in a folder of its own. `close` deletes both."""

    def __init__(self, page: bytes) -> None:
        """Raises OSError."""
        self._folder = tempfile.TemporaryDirectory(prefix="brokerd-login-", dir=_place(), ignore_cleanup_errors=True)
        self.path = Path(self._folder.name) / "login.html"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(page)

    def open(self) -> bool:
        """Whether a browser could be started."""
        return webbrowser.open(self.path.as_uri())

    def close(self) -> None:
        self._folder.cleanup()


def has_desktop() -> bool:
    """Whether a browser would be seen by the person who asks for it."""
    return bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()) and "SSH_CONNECTION" not in os.environ


def _place() -> Path | None:
    """A folder that the browser can read and other users cannot: the user's runtime directory. A browser that is a snap
    cannot see it, but has a folder of its own. None: the folder for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    places = [_of_snap(), Path(runtime) if runtime.startswith("/") else None]
    return next((place for place in places if place is not None and _is_ours(place)), None)


def _of_snap() -> Path | None:
    """The folder that the default browser shares with its user, if that browser is a snap."""
    snaps = Path(os.environ.get("HOME", "/"), "snap")
    if not snaps.is_dir():
        return None
    command = ["xdg-settings", "get", "default-web-browser"]
    try:
        found = subprocess.run(command, capture_output=True, timeout=LOOKUP_WITHIN, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    name = SNAP.fullmatch(found.stdout.decode(errors="replace").strip())
    return None if name is None else snaps / name[1] / "common"


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can write to the folder. The mode of our own file keeps others from reading it."""
    try:
        found = folder.stat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
