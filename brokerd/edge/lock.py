# The state directory's lock file: whose the directory is, and how many commits its store has seen. The number lies
# outside the store, so that a store which was put back, or has lost its log, is known by it (law 15).
from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from brokerd.core.ports import StoreError, StoreUnavailable

LOCK = "lock"
AWAY = {errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # the disk may come back
WIDTHS = (10, 20)  # of pid and number: the line is overwritten in place, which a full disk allows


class Held(StoreUnavailable):
    """Another daemon has this state directory."""


class Lock:
    """The state directory, for this process alone until `release`. `seen`: the commits of its store, as last noted."""

    def __init__(self, folder: Path) -> None:
        """Raises Held, StoreError."""
        try:
            self._descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            kind = StoreUnavailable if error.errno in AWAY else StoreError
            raise kind(f"{folder}: the store cannot be opened: {LOCK}: {error.strerror}") from None
        try:
            holder, self.seen = _read(os.pread(self._descriptor, 100, 0))
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                words = f"{folder} is in use by the brokerd with pid {holder}; end that one first"
                raise Held(f"{words}, or set another state_dir") from None
        except BaseException:
            self.release()
            raise
        self.note(self.seen)

    def note(self, commits: int) -> None:
        """Called when that many are durable, so that it never says more than the store has. Losing a note costs
        nothing but sharpness, so it is not synced and may fail."""
        self.seen = commits
        pid, number = WIDTHS
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, f"{os.getpid():>{pid}} {commits:>{number}}\n".encode(), 0)

    def release(self) -> None:
        """May be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def is_held(folder: Path) -> bool:
    """Whether a daemon has this state directory now. Raises OSError."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read(line: bytes) -> tuple[str, int]:
    pid, number, *_ = [*line.decode(errors="replace").split(), "", ""]
    return pid or "unknown", int(number) if number.isascii() and number.isdigit() else 0
