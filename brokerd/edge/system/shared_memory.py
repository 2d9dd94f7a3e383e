# Memory that this process writes and another one only reads: a memfd (memfd_create(2)) that is sealed, so that whoever
# gets it can neither write, nor map it writable, nor change its size.
from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal

MFD_NOEXEC_SEAL = 0x0008  # Linux 6.3: it can never be executed
F_ADD_SEALS = 1033
SEALS = (
    0x0001 | 0x0002 | 0x0004 | 0x0010
)  # F_SEAL_SEAL, SHRINK, GROW; FUTURE_WRITE (Linux 5.1): only our mapping writes


class SharedMemory:
    """`view` can be written until `close`. Raises OSError."""

    def __init__(self, size: int, name: str = "brokerd-shared-token") -> None:
        made = _made(name)
        try:
            os.ftruncate(made, size)
            self._mapping = mmap.mmap(made, size)
            os.fchmod(made, 0o400)  # nobody else can open it by /proc/PID/fd, not even for reading
            fcntl.fcntl(made, F_ADD_SEALS, SEALS)
            self._reading = os.open(f"/proc/self/fd/{made}", os.O_RDONLY | os.O_CLOEXEC)
            fcntl.fcntl(self._reading, fcntl.F_SETSIG, signal.SIGURG)  # a broken lease must not end us, as SIGIO would
        finally:
            os.close(made)
        self.view = memoryview(self._mapping)

    def descriptor(self) -> int:
        """A new descriptor of it, for reading only. Raises OSError."""
        return os.open(f"/proc/self/fd/{self._reading}", os.O_RDONLY | os.O_CLOEXEC)

    def stop_writing(self) -> None:
        """Release our mapping; `view` must have been released by its users."""
        self.view.release()
        self._mapping.close()

    def is_held(self) -> bool:
        """Whether anybody else has it open or mapped, or it is on the way to somebody. Until nobody has, its memory is
        counted as ours. The kernel knows: a write lease (fcntl(2)) is given only to who alone has the file open."""
        try:
            fcntl.fcntl(self._reading, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(self._reading, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:  # EAGAIN: somebody has. Another one: it cannot be known, which counts as the same
            return True
        return False

    def close(self) -> None:
        """After `stop_writing`: forget it."""
        os.close(self._reading)


def _made(name: str) -> int:
    """Raises OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags)
