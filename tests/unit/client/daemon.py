# A small daemon for the tests of clients: real Unix socket, wire's server role, answers from functions.
# One thread per connection and one per request, so that answers come in any order; `stop` joins them all.
from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from brokerd_client.errors import BadRequest, BrokerError, ProtocolError, UnknownGrant
from brokerd_client.wire import Reader, pack_error, pack_notification, pack_result, read_request

Answer = Callable[[dict[str, Any]], Any]


class Hangup(Exception):
    """Raised by an answer: the connection is closed instead."""


class Daemon:
    """Answers at `path`; `answers` may be changed at any time. `calls` is what was asked, `connections` how often."""

    def __init__(self, path: Path, answers: Mapping[str, Answer] | None = None) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {"get": self.token, "watch": self.watching, **(answers or {})}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0
        self.open: list[Connection] = []
        self.called = threading.Condition()

    def token(self, params: dict[str, Any]) -> dict[str, Any]:
        grant = params["grant"]
        if grant == "nope":
            raise UnknownGrant(f"no grant {grant}", grant=grant)
        return {"grant": grant, "value": f"token-of-{grant}", "token_type": "Bearer", "expires_at": 2e9}

    def watching(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"watching": params["grants"]}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self, backlog: int = 100) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(backlog)
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.path.unlink()
        while self.open:
            self.open.pop().close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def wait_for_calls(self, count: int) -> None:
        """Until so many requests came."""
        with self.called:
            assert self.called.wait_for(lambda: len(self.calls) >= count, 10), self.calls

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """An event on every connection."""
        for connection in self.open:
            connection.send(pack_notification(method, params))

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(Connection(self, sock))
            self.open[-1].start()


class Connection:
    def __init__(self, daemon: Daemon, sock: socket.socket) -> None:
        self._daemon = daemon
        self._sock = sock
        self._sending = threading.Lock()
        self._threads = [threading.Thread(target=self._read)]

    def start(self) -> None:
        self._threads[0].start()

    def send(self, data: bytes) -> None:
        with self._sending:
            try:
                self._sock.sendall(data)
            except OSError:
                return  # the client is gone

    def close(self) -> None:
        self.hang_up()
        while self._threads:
            self._threads.pop().join()
        self._sock.close()

    def hang_up(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it was first

    def _read(self) -> None:
        reader = Reader()
        while data := self._receive():
            reader.feed(data)
            try:
                for message in reader:
                    self._begin(message)
            except ProtocolError as error:
                self.send(pack_error(error.id, error.as_map()))
                break
        self.hang_up()

    def _receive(self) -> bytes:
        try:
            return self._sock.recv(65536)
        except ConnectionError:
            return b""

    def _begin(self, message: list[Any]) -> None:
        request = read_request(message)
        with self._daemon.called:
            self._daemon.calls.append(request[1:])
            self._daemon.called.notify_all()
        thread = threading.Thread(target=self._answer, args=request)
        thread.start()
        self._threads.append(thread)

    def _answer(self, msgid: int, method: str, params: dict[str, Any]) -> None:
        try:
            if method not in self._daemon.answers:
                raise BadRequest(f"unknown method {method!r}")
            self.send(pack_result(msgid, self._daemon.answers[method](params)))
        except BrokerError as error:
            self.send(pack_error(msgid, error.as_map()))
        except Hangup:
            self.hang_up()
