# What `brokerctl files` remembers of each file over a restart: until when its token lives, and whether on_change is
# still to run. No secret is in it. One small file for each, in a folder that one process at a time uses. Blocking.
from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from brokerd.edge.files import replaced_file

MODE = 0o600
LOCK = "lock"


class FilesInUse(Exception):
    """Another process keeps these files."""


@dataclass(frozen=True, slots=True)
class KeptFile:
    """`inode`: of the file that was written; None while it is being replaced. `due`: on_change is still to run."""

    path: str
    expires_at: float | None = None
    inode: int | None = None
    due: bool = False


class KeptFiles:
    """Raises OSError and, if another process uses the folder, FilesInUse."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (fault := replaced_file.fault_of_folder(folder)) is not None:  # what is in it says which files are removed
            raise OSError(errno.EPERM, fault, str(folder))
        self._folder = folder
        self._lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise FilesInUse(f"{folder} is in use: another process keeps these files; stop it first") from None

    def close(self) -> None:
        os.close(self._lock)

    def read(self) -> dict[Path, KeptFile]:
        """All of them. What cannot be read was never completed, so nothing depended on it."""
        found = {}
        files = list(self._folder.glob("*.json"))
        replaced_file.sweep(files)
        for file in files:
            with contextlib.suppress(ValueError, TypeError, OSError):
                kept = KeptFile(**json.loads(file.read_text(encoding="utf-8")))
                found[Path(kept.path)] = kept
        return found

    def save(self, kept: KeptFile) -> None:
        replaced_file.replace(self._place(Path(kept.path)), json.dumps(asdict(kept)).encode(), MODE, None)

    def forget(self, path: Path) -> None:
        self._place(path).unlink(missing_ok=True)

    def _place(self, path: Path) -> Path:
        return self._folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"
