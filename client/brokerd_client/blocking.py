# The client for programs without an event loop: sockets with a deadline, one request at a time on each.
# A get from a shell pays for every import here, hence no typing, no threading, and the interpreter's own socket class.
from __future__ import annotations

import _socket
import os
import sys
from time import monotonic, sleep

from brokerd_client.address import BUSY_PAUSE, connect, find_socket
from brokerd_client.messages import of_watched, read_proof, read_token, read_tokens
from brokerd_client.session import (
    READ_SIZE,
    REPEATABLE,
    TIMEOUT,
    WAIT,
    Lost,
    Session,
    get_params,
    lost,
    patience,
    read_result,
    unanswered,
)

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Self

    from brokerd_client.errors import BrokerError
    from brokerd_client.messages import Gone, Token
    from brokerd_client.wire import Response

KEPT = 8  # connections at most that wait for the next request


class Broker:
    """brokerd at its socket. One Broker serves a whole program: all threads, and its forks.

    Connections are made when they are needed and kept: each request in progress has one of its own, so a slow get
    in one thread holds up no other. If a connection ends before the answer (the daemon was restarted), another is
    made and the request sent once more, where doing it twice changes nothing (session.REPEATABLE); the rest always
    gets a new connection. After a fork the child makes connections of its own.

    `timeout`: seconds beyond `wait` until a daemon that does not answer is given up with Unavailable.
    Every method raises the errors of brokerd_client.errors.
    """

    def __init__(self, socket: str | os.PathLike[str] | None = None, timeout: float = TIMEOUT) -> None:
        self._path = os.fspath(socket) if socket else None
        self._timeout = timeout
        self._idle: list[_Connection] = []  # append and pop are whole steps in every Python: no lock is needed
        self._closed = False

    @property
    def path(self) -> str:
        """Where it connects now."""
        return self._path or find_socket()

    def get(
        self,
        grant: str,
        *,
        min_ttl: float = 0,
        wait: float = WAIT,
        refused: str | None = None,
        scope: Iterable[str] | None = None,
        audience: str | None = None,
        resource: str | None = None,
    ) -> Token:
        """A living token of the grant.

        `min_ttl`: seconds that it must live for at least. `wait`: seconds to wait for the provider if there is no
        living token, at most 60. `refused`: the value of a token that an API refused although it had not expired.
        `scope`, `audience`, `resource`: a token of the grant for these, in the place of its own.
        """
        params = get_params(grant, min_ttl, wait, refused, scope, audience, resource)
        return read_token(self.call("get", **params), grant)

    def proof(self, grant: str, method: str, url: str, *, nonce: str | None = None, wait: float = WAIT) -> Token:
        """The token of a grant whose tokens are bound to a key, for one request: its `header` holds a DPoP proof too.

        `method` and `url` are the request's, `nonce` the DPoP-Nonce that the API demanded last (RFC 9449 §9).
        """
        more = {} if nonce is None else {"nonce": nonce}
        return read_proof(self.call("proof", grant=grant, http_method=method, url=url, wait=wait, **more), grant)

    def get_many(
        self, grants: Iterable[str], *, min_ttl: float = 0, wait: float = WAIT
    ) -> dict[str, Token | BrokerError]:
        """Tokens of at most 64 grants: by grant the token, or the error that `get` would raise."""
        grants = list(grants)
        return read_tokens(grants, self.call("get_many", grants=grants, min_ttl=min_ttl, wait=wait))

    def watch(self, *grants: str) -> Watch:
        """An endless iterator: a Token for each grant that has one, then each new Token or Gone as it comes."""
        return Watch(self, grants)

    def call(self, method: str, /, **params: Any) -> Any:
        """Any method of docs/protocol.md; returns its result as plain maps and arrays."""
        seconds = patience(params, self._timeout)
        deadline = monotonic() + seconds
        repeatable = method in REPEATABLE
        for first in (True, False) if repeatable else (False,):
            connection = self._take() if first else None
            try:
                return self._ask(connection or self._connect(deadline, seconds), method, params, deadline, seconds)
            except Lost:
                self._forget_idle()  # they are as old as that one
        raise lost(method)

    def close(self) -> None:
        """Closes the connections; those in use by other threads are closed when they are done."""
        self._closed = True
        self._forget_idle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(
        self, connection: _Connection, method: str, params: dict[str, Any], deadline: float, seconds: float
    ) -> Any:
        try:
            response = connection.ask(method, params, deadline)
        except TimeoutError:
            connection.close()
            raise unanswered(seconds) from None
        except BaseException:  # Ctrl-C too: the answer that is still to come must not meet the next request
            connection.close()
            raise
        if self._closed or len(self._idle) >= KEPT:
            connection.close()
        else:
            self._idle.append(connection)
        return read_result(response)

    def _take(self) -> _Connection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took it
                return None
            if connection.pid == os.getpid():
                return connection
            connection.close()  # our copy alone: it is the parent's
        return None

    def _connect(self, deadline: float, seconds: float) -> _Connection:
        if self._closed:
            raise RuntimeError("this Broker is closed; make another")
        path = self.path
        # The module `socket` brings enums and selectors along, which take as long as all the rest. Where the program
        # has it anyway, its class is the one to use: gevent and the like put their own there.
        kind = sys.modules.get("socket", _socket).socket
        while True:
            sock = None
            try:
                if sock := connect(path, kind):
                    return _Connection(sock)
            except BaseException:  # Ctrl-C too
                if sock:
                    sock.close()
                raise
            if monotonic() > deadline:
                raise unanswered(seconds)
            sleep(BUSY_PAUSE)

    def _forget_idle(self) -> None:
        while connection := self._take():
            connection.close()


class Watch:
    """The events of `Broker.watch`. Waiting for the next one has no deadline.

    If the daemon was restarted, it watches anew, once for each event, and begins with the tokens that there are. It
    has a connection of its own, for one thread at a time, closed with the Watch or when that is collected.
    """

    def __init__(self, broker: Broker, grants: tuple[str, ...]) -> None:
        self._broker = broker
        self._grants = list(grants)
        self._connection: _Connection | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Token | Gone:
        if self._connection and self._connection.pid == os.getpid():
            try:
                return of_watched(self._connection.event(), self._grants)
            except Lost:
                self.close()
        try:
            self._connection = self._open()
            return of_watched(self._connection.event(), self._grants)
        except Lost:
            self.close()
            raise lost("watch") from None

    def close(self) -> None:
        """Ends the watch."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> _Connection:
        params = {"grants": self._grants}
        seconds = patience(params, self._broker._timeout)
        deadline = monotonic() + seconds
        connection = self._broker._connect(deadline, seconds)
        try:
            read_result(connection.ask("watch", params, deadline))
        except TimeoutError:
            connection.close()
            raise unanswered(seconds) from None
        except BaseException:
            connection.close()
            raise
        return connection


class _Connection:
    """A socket with one request in progress."""

    def __init__(self, sock: _socket.socket) -> None:
        self.pid = os.getpid()
        self._sock = sock
        self._session = Session()

    def ask(self, method: str, params: dict[str, Any], deadline: float) -> Response:
        """Raises Lost, TimeoutError, ProtocolError."""
        data = self._session.request(method, params)
        self._sock.settimeout(max(deadline - monotonic(), 0.001))
        try:  # noqa: SIM105 - contextlib costs time to import
            self._sock.sendall(data)
        except ConnectionError:
            pass  # what the daemon said before it hung up can still be read
        while True:
            for _, response in list(self._session.receive(self._receive(deadline))):
                return response

    def event(self) -> Token | Gone:
        """The next event, however long it takes. Raises Lost, ProtocolError."""
        while True:
            if event := self._session.next_event():
                return event
            for _ in self._session.receive(self._receive(None)):
                pass

    def close(self) -> None:
        self._sock.close()

    def _receive(self, deadline: float | None) -> bytes:
        self._sock.settimeout(None if deadline is None else max(deadline - monotonic(), 0.001))
        try:
            return self._sock.recv(READ_SIZE)
        except ConnectionError:
            raise Lost from None

    def __del__(self) -> None:  # of a Broker that nobody closed; a socket would warn
        if hasattr(self, "_sock"):  # an interrupt may come before it is there
            self._sock.close()
