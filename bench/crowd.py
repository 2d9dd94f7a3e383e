# The crowd that a get is measured under: other users (root can become one), each with one of the parts that cost a
# daemon most. `python -m bench.crowd PART SOCKET GRANT`; says "ready", and when its stdin says something, what it did.
from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import sys
from collections import Counter
from collections.abc import Callable

import msgpack

PARTS = {"holder": 60_900, "denied": 60_901, "newcomer": 60_902}  # and their uids, which nobody knows
IDLE, STUCK, HALVES = 1_000, 8, 50
KINDS = "1,000 idle, 8 that pipeline and read nothing, 50 half-said, one that is always denied, new ones without end"
ALLOWED = f'\n[[allow]]\ngrants = ["*"]\ncaller = {{ uid = {PARTS["holder"]} }}\n'  # or nobody would be stuck
NICE = 10  # it takes what the daemon and the measurement leave of the processors: no get waits for it to compute
PIPELINED = 2_000  # requests that are sent at once


class Crowd:
    """Sockets, each with what is done when brokerd says something on it or hangs up."""

    def __init__(self, path: str, grant: str) -> None:
        self.did: Counter[str] = Counter()
        self._path = path
        self._get = msgpack.packb([0, 1, "get", [{"grant": grant}]])
        self._poll = select.epoll()
        self._news: dict[int, tuple[socket.socket, Callable[[socket.socket], None]]] = {}

    def hold(self) -> None:
        """Many connections, of which none is of any use."""
        for _ in range(IDLE):
            self._connect(self._gone)
        for _ in range(HALVES):
            self._say(self._connect(self._half), self._get[:-3])
        for _ in range(STUCK):
            self._pipeline()

    def ask(self) -> None:
        """For what is denied, again and again."""
        self._say(self._connect(self._denied), self._get)

    def run(self, *, connecting: bool) -> None:
        """Until stdin says something. `connecting`: make new connections all the while."""
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        while True:
            for fd, _ in self._poll.poll(0 if connecting else None):
                if fd == sys.stdin.fileno():
                    return
                sock, news = self._news[fd]
                news(sock)
            if connecting:
                with contextlib.suppress(BlockingIOError):  # as many wait to be accepted as may
                    self._connect(self._refused, blocking=False)
                    self.did["connections tried"] += 1

    def _connect(self, news: Callable[[socket.socket], None], *, blocking: bool = True) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(blocking)
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        self._news[sock.fileno()] = sock, news
        self._poll.register(sock, select.EPOLLIN)
        return sock

    def _gone(self, sock: socket.socket) -> None:
        del self._news[sock.fileno()]
        sock.close()

    def _refused(self, sock: socket.socket) -> None:
        self.did["connections refused"] += 1
        self._gone(sock)

    def _half(self, sock: socket.socket) -> None:
        self._gone(sock)
        self._say(self._connect(self._half), self._get[:-3])

    def _say(self, sock: socket.socket, data: bytes) -> None:
        """A user who connects too often is turned away before it has said anything."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.send(data)

    def _pipeline(self) -> None:
        sock = self._connect(self._gone)
        self._poll.unregister(sock)
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while True:
                sock.send(self._get * PIPELINED)

    def _denied(self, sock: socket.socket) -> None:
        try:
            answer = sock.recv(4096)
        except ConnectionResetError:
            answer = b""
        if answer:
            self.did["gets denied"] += 1
            self._say(sock, self._get)
        else:
            self._gone(sock)
            self.ask()


def main() -> None:
    part, path, grant = sys.argv[1:]
    uid = PARTS[part]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.nice(NICE)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    crowd = Crowd(path, grant)
    if part == "holder":
        crowd.hold()
    elif part == "denied":
        crowd.ask()
    print("ready", flush=True)
    crowd.run(connecting=part == "newcomer")
    print(json.dumps(crowd.did), flush=True)


if __name__ == "__main__":
    main()
