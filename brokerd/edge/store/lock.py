# The state directory's lock file: which process uses the directory, and the number of its store's commits. The number
# is outside the store, so that it shows a store that was replaced by an older copy or has lost its log (law 15).
from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from brokerd.core.ports import StoreError, StoreUnavailable
from brokerd.edge.store.database import FILE, Database, opened

LOCK = "lock"
AWAY = {errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # the disk may come back
WIDTHS = (10, 20)  # of pid and number: fixed, so that the line can be overwritten on a full disk


class InUse(StoreUnavailable):
    """Another daemon uses this state directory."""


class Lock:
    """The state directory belongs to this process until `release`. `seen`: the store's commits, as last noted."""

    def __init__(self, folder: Path) -> None:
        """Raises InUse, StoreError."""
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
                raise InUse(f"{words}, or set another state_dir") from None
        except BaseException:
            self.release()
            raise
        self.note(self.seen)

    def note(self, commits: int) -> None:
        """Call it after the commit is durable, so that the number is never too high. It may be too low: then it only
        detects less. So it is not synced and may fail."""
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
    """Whether a daemon uses this state directory now. Raises OSError."""
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


def opened_alone(folder: Path) -> tuple[Lock, Database]:
    """Lock the state directory, and open its store or make one. Raises InUse, StoreError."""
    lock = Lock(folder)
    try:
        return lock, opened(folder, create=not lock.seen)
    except StoreUnavailable as error:
        lock.release()
        if (folder / FILE).exists() or not lock.seen:
            raise
        words = f"put it back; or delete {folder}/lock to begin with nothing: revoked grants come to life then"
        raise StoreUnavailable(f"{error}; {words}") from None
    except BaseException:
        lock.release()
        raise


def _read(line: bytes) -> tuple[str, int]:
    pid, number, *_ = [*line.decode(errors="replace").split(), "", ""]
    return pid or "unknown", int(number) if number.isascii() and number.isdigit() else 0
