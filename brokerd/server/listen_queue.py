# The kernel's queue of connections that wait to be accepted, first come, first served. While one user floods it,
# brokerd keeps it short: then the others wait behind a few connections, not behind a thousand.
from __future__ import annotations

import socket
from contextlib import suppress

LONG = socket.SOMAXCONN  # connections that may wait; the kernel's somaxconn may allow fewer
SHORT = 32


class ListenQueue:
    """Of one listener at a Unix socket. SO_PEERCRED tells its clients who listened last (unix(7)): after the first
    `lengthen`, that is brokerd."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self._length = 0  # not known: a brokerd that was killed may have left it short

    def accept(self) -> socket.socket:
        """The next connection. Raises BlockingIOError if nobody waits, and OSError. socket.accept() does the same in
        twice the time, because it looks up the listener's family and type."""
        descriptor, _ = self.listener._accept()  # type: ignore[attr-defined] # what accept() calls, since Python 3.4
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, descriptor)

    def shorten(self) -> None:
        self._listen(SHORT)

    def lengthen(self) -> None:
        self._listen(LONG)

    def _listen(self, length: int) -> None:
        if self._length != length:
            self._length = length
            with suppress(OSError):  # it was closed
                self.listener.listen(length)
