# Creates new configuration files: all or none, and never over an existing file. They are readable for those who can
# read the main file, which includes the daemon. Blocking.
from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

OPEN, CLOSED = 0o755, 0o750  # mode bits that are copied from the main file and its folder


class CreatedFiles:
    """Files that were created. `undo` removes them again, with the folders that were created for them."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    def create(self, texts: Mapping[Path, str], like: Path, *, private: frozenset[Path]) -> None:
        """Create the files durably, in this order, with the owner and group of `like`. If everybody may read `like`,
        everybody may read those that are not `private`. If it raises OSError, no file is left."""
        about = like.stat()
        try:
            for path, text in texts.items():
                mask = CLOSED if path in private else OPEN
                self._make_folder(path.parent, about, like.parent.stat().st_mode & mask | 0o700)
                self._make(path, text, about, about.st_mode & mask & 0o666 | 0o600)
        except BaseException:
            self.undo()
            raise

    def undo(self) -> None:
        while self._made:
            path = self._made.pop()
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()

    def _make_folder(self, folder: Path, about: os.stat_result, mode: int) -> None:
        if not folder.exists():
            folder.mkdir(mode=0o700)
            self._made.append(folder)
            _own(folder, folder.stat(), about)
            folder.chmod(mode)

    def _make(self, path: Path, text: str, about: os.stat_result, mode: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._made.append(path)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _own(descriptor, os.fstat(descriptor), about)
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)


def _own(path: Path | int, now: os.stat_result, about: os.stat_result) -> None:
    if (now.st_uid, now.st_gid) != (about.st_uid, about.st_gid):
        os.chown(path, about.st_uid, about.st_gid)
