# The kernel's queue of connections that wait to be accepted, first come, first served. While somebody floods it, it is
# kept short, so that others wait behind a few of his connections and not behind a thousand.
from __future__ import annotations

import socket
from contextlib import suppress

LONG = socket.SOMAXCONN  # connections that may wait; the kernel's somaxconn may allow fewer
SHORT = 32


class ListenQueue:
    """Of one listener. Who listened last is what SO_PEERCRED tells its clients (unix(7)): brokerd, after the first
    `lengthen`."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._length = 0  # not known: a brokerd that was killed may have left it short

    def shorten(self) -> None:
        self._listen(SHORT)

    def lengthen(self) -> None:
        self._listen(LONG)

    def _listen(self, length: int) -> None:
        if self._length != length:
            self._length = length
            with suppress(OSError):  # it was closed
                self._listener.listen(length)
