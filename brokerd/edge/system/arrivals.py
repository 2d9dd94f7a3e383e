# Which of many sockets have something to read: each is registered once, for as long as it is open, and a function is
# called when bytes or an end have come. A task that waits for one socket costs system calls and a switch each time.
from __future__ import annotations

import select
import socket
from collections.abc import Callable

import trio

AT_ONCE = 32  # sockets that are looked at together
LOOKS = 4  # before other tasks have their turn
EVENTS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
ENDS = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR


class Arrivals:
    """`calls`: by descriptor, what is called when something has come since the last time, and is told whether the other
    side has ended its sending. It may be called once too often, must not raise, and must not wait. Whoever closes a
    socket removes its call first. `run` must run."""

    def __init__(self) -> None:
        self.calls: dict[int, Callable[[bool], None]] = {}
        self._epoll = select.epoll()

    def add(self, sock: socket.socket) -> None:
        """Look at a socket from now on, until it is closed."""
        self._epoll.register(sock, EVENTS)

    async def run(self) -> None:
        calls, look = self.calls, self._epoll.poll
        while True:
            await trio.lowlevel.wait_readable(self._epoll)
            for _ in range(LOOKS):
                if not (found := look(0, AT_ONCE)):
                    break
                for descriptor, events in found:
                    if (call := calls.get(descriptor)) is not None:
                        call(events & ENDS != 0)

    def close(self) -> None:
        self._epoll.close()
