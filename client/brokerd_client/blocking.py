# The client for programs without an event loop: each connection is used for one request at a time, with a deadline.
# Every import here makes a get from a shell slower, so it uses no typing, no threading, and the C socket class.
from __future__ import annotations

import _socket
import os
import sys
from time import monotonic, sleep

from brokerd_client.address import BUSY_PAUSE, connect, find_socket
from brokerd_client.client_protocol import GETS, READ_SIZE, ClientProtocol, Lost, lost, unanswered
from brokerd_client.messages import of_watched, read_proof, read_tokens
from brokerd_client.request import REPEATABLE, TIMEOUT, WAIT, ClientRequest, Gets, get_params, patience
from brokerd_client.wire import read_result

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Self

    from brokerd_client.errors import BrokerError
    from brokerd_client.messages import Gone, Token
    from brokerd_client.shared_token import SharedTokenReaders
    from brokerd_client.wire import Response

KEPT = 8  # idle connections, at most
LATE = 0.01  # seconds by which a timeout may end too late
AT_ONCE = 10_000  # microseconds in which most answers come
TIMEVAL = bytes(8) + AT_ONCE.to_bytes(8, sys.byteorder)  # of 64 bits
SHORT = 4096  # bytes of a request that a connection always has room for


class Broker:
    """A client of brokerd. One Broker is enough for a whole program: all threads may use it, and forked processes too.

    Connections are made when they are needed, and kept. Each request in progress has its own, so a slow get in one
    thread does not delay the others. If a connection ends before the answer, because the daemon was restarted, the
    request is sent once more on a new connection if doing it twice changes nothing (REPEATABLE). All other requests
    always use a new connection. After a fork, the child makes its own connections.

    `timeout`: a call raises Unavailable if there is no answer so many seconds after the end of `wait`.
    `share`: after three gets of a grant, its token is read in memory that the daemon shares (docs/shared-token.md).
    Every method raises the errors of brokerd_client.errors.
    """

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, timeout: float = TIMEOUT, *, share: bool = True
    ) -> None:
        self._path = os.fspath(socket) if socket else None
        self._timeout = timeout
        self._share = share
        self._gets: dict[str, int] = {}  # of each grant, over the socket
        self._known = Gets()
        self._shared: SharedTokenReaders | None = None
        self._idle: list[_BlockingConnection] = []  # append and pop are atomic, so no lock is needed
        self._closed = False

    @property
    def path(self) -> str:
        """The socket that a new connection would use."""
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
        request_id: str | None = None,
    ) -> Token:
        """A valid token of the grant.

        `min_ttl`: for how many more seconds it must be valid. `wait`: how many seconds to wait for the provider if
        there is no valid token, at most 60. `refused`: the value of a token that an API refused before its expiry.
        `scope`, `audience`, `resource`: ask for a token with these instead of the grant's own. `request_id`: an id of
        yours for the log and audit log of brokerd; the provider gets it too, if this request makes brokerd ask it.
        """
        own = refused is None and scope is None and audience is None and resource is None
        if own and self._shared is not None and (token := self._shared.get(grant, min_ttl)) is not None:
            return token
        if refused is not None and self._shared is not None:
            self._shared.refuse(grant, refused)
        params = get_params(grant, min_ttl, wait, refused, scope, audience, resource, request_id)
        get = self._known.find(params)
        token = get.token(self._answered(get))
        if own and self._share:
            self._gets[grant] = number = self._gets.get(grant, 0) + 1
            if number >= GETS:
                self._share_token(grant)
        return token

    def proof(self, grant: str, method: str, url: str, *, nonce: str | None = None, wait: float = WAIT) -> Token:
        """The token of a grant whose tokens are bound to a key, for one request. Its `header` has a DPoP proof too.

        `method` and `url` are the request's. `nonce` is the last DPoP-Nonce of the API (RFC 9449 §9).
        """
        more = {} if nonce is None else {"nonce": nonce}
        return read_proof(self.call("proof", grant=grant, http_method=method, url=url, wait=wait, **more), grant)

    def get_many(
        self, grants: Iterable[str], *, min_ttl: float = 0, wait: float = WAIT
    ) -> dict[str, Token | BrokerError]:
        """Tokens of at most 64 grants: for each grant its token, or the error that `get` would raise."""
        grants = list(grants)
        return read_tokens(grants, self.call("get_many", grants=grants, min_ttl=min_ttl, wait=wait))

    def watch(self, *grants: str) -> Watch:
        """An endless iterator: first a Token for each grant that has one, then each new Token or Gone."""
        return Watch(self, grants)

    def trace(self, grant: str, *, only_wait: bool = False) -> Iterator[dict[str, Any]]:
        """The steps of one renewal while they happen, as docs/protocol.md has them; the last one is `end`.

        It begins a renewal; `only_wait`: it waits for one that begins by itself or for a caller.
        """
        params: dict[str, Any] = {"grant": grant, "only_wait": True} if only_wait else {"grant": grant}
        connection = self._connected("trace", params)
        try:
            while True:
                yield (step := connection.step())
                if step.get("step") == "end":
                    return
        except Lost:
            raise lost("trace") from None
        finally:
            connection.close()

    def call(self, method: str, /, **params: Any) -> Any:
        """Calls any method of docs/protocol.md. Returns its result as plain maps and arrays."""
        return read_result(self._answered(ClientRequest(method, params)))

    def _answered(self, request: ClientRequest) -> Response:
        seconds = patience(request.params, self._timeout)
        deadline = monotonic() + seconds
        repeatable = request.method in REPEATABLE
        for first in (True, False) if repeatable else (False,):
            connection = self._take() if first else None
            try:
                return self._ask(connection or self._connect(deadline, seconds), request, deadline, seconds)
            except Lost:
                self._forget_idle()  # they are just as old
        raise lost(request.method)

    def call_on_one(self, requests: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Any]:
        """The results of requests that continue each other (`backup`, `import_part`), all on one new connection. The
        next request is made when the result before was taken."""
        connection: _BlockingConnection | None = None
        try:
            for method, params in requests:
                seconds = patience(params, self._timeout)
                deadline = monotonic() + seconds
                connection = connection or self._connect(deadline, seconds)
                try:
                    response = connection.ask(ClientRequest(method, params), deadline)
                except TimeoutError:
                    raise unanswered(seconds) from None
                except Lost:
                    raise lost(method) from None
                yield read_result(response)
        finally:
            if connection is not None:
                connection.close()

    def _share_token(self, grant: str) -> None:
        """Have the next gets of the grant read it in memory, if that is possible."""
        if self._shared is None:
            try:
                from brokerd_client.shared_token import SharedTokenReaders  # seldom needed, and slow to import
            except (ImportError, OSError):  # not on this system
                self._share = False
                return
            self._shared = SharedTokenReaders(self._path, self._gets)
        if not self._closed and self._shared.claim(grant):
            self._shared.ask(grant)

    def close(self) -> None:
        """Closes the connections. A connection that another thread uses is closed after its answer."""
        self._closed = True
        self._known.clear()
        if self._shared is not None:
            self._shared.close()
            self._shared = None
        self._forget_idle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(
        self, connection: _BlockingConnection, request: ClientRequest, deadline: float, seconds: float
    ) -> Response:
        try:
            response = connection.ask(request, deadline)
        except TimeoutError:
            connection.close()
            raise unanswered(seconds) from None
        except BaseException:  # Ctrl-C too: the missing answer must not be read as that of the next request
            connection.close()
            raise
        if self._closed or len(self._idle) >= KEPT:
            connection.close()
        else:
            self._idle.append(connection)
        return response

    def _take(self) -> _BlockingConnection | None:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread took it
                return None
            if connection.pid == os.getpid():
                return connection
            connection.close()  # only our copy: the connection is the parent's
        return None

    def _connect(self, deadline: float, seconds: float) -> _BlockingConnection:
        if self._closed:
            raise RuntimeError("this Broker is closed; make a new one")
        path = self.path
        # Importing `socket` would take as long as everything else together. If the program has imported it anyway, its
        # class is used, because gevent and others replace it by their own.
        kind = sys.modules.get("socket", _socket).socket
        while True:
            sock = None
            try:
                if sock := connect(path, kind):
                    return _BlockingConnection(sock, kind)
            except BaseException:  # Ctrl-C too
                if sock:
                    sock.close()
                raise
            if monotonic() > deadline:
                raise unanswered(seconds)
            sleep(BUSY_PAUSE)

    def _connected(self, method: str, params: dict[str, Any]) -> _BlockingConnection:
        """A new connection on which that request was answered; notifications follow."""
        seconds = patience(params, self._timeout)
        deadline = monotonic() + seconds
        connection = self._connect(deadline, seconds)
        try:
            read_result(connection.ask(ClientRequest(method, params), deadline))
        except TimeoutError:
            connection.close()
            raise unanswered(seconds) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _forget_idle(self) -> None:
        while connection := self._take():
            connection.close()


class Watch:
    """The events of `Broker.watch`. Waiting for the next event has no deadline.

    If the daemon was restarted, it connects again, once for each event, and starts with the current tokens. It has its
    own connection, for one thread at a time, which is closed with the Watch or when the Watch is garbage.
    """

    def __init__(self, broker: Broker, grants: tuple[str, ...]) -> None:
        self._broker = broker
        self._grants = list(grants)
        self._connection: _BlockingConnection | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Token | Gone:
        if self._connection and self._connection.pid == os.getpid():
            try:
                return of_watched(self._connection.event(), self._grants)
            except Lost:
                self.close()
        try:
            self._connection = self._broker._connected("watch", {"grants": self._grants})
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


class _BlockingConnection:
    """A socket with one request in progress.

    Python polls a socket that has a timeout before each call, and is woken later than by the call itself. So the first
    wait for an answer is left to the kernel (socket(7), SO_RCVTIMEO), which needs a socket that blocks.
    """

    def __init__(self, sock: _socket.socket, kind: type[_socket.socket]) -> None:
        self.pid = os.getpid()
        self._sock = sock
        self._timeout = 0.0  # the socket's, if it has one
        self._protocol = ClientProtocol()
        # Not on 32 bits, where a timeval has two forms, and not if gevent or others wait in their own way.
        self._may_block = kind.recv is _socket.socket.recv and sys.maxsize > 2**32
        self._blocks = False

    def ask(self, request: ClientRequest, deadline: float) -> Response:
        """Raises Lost, TimeoutError, ProtocolError."""
        data = self._protocol.request(request)
        if not self._block(data):
            self._wait_until(deadline)
        try:  # noqa: SIM105 - contextlib costs time to import
            self._sock.sendall(data)
        except ConnectionError:
            pass  # what the daemon sent before it closed the connection can still be read
        while True:
            for _, response in list(self._protocol.receive(self._receive(deadline))):
                return response

    def _block(self, data: bytes) -> bool:
        """Have the socket block, and wait no longer than AT_ONCE for something to read. False: it must not block."""
        if not self._may_block or len(data) > SHORT:
            return False
        if not self._blocks:
            self._sock.settimeout(None)
            self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, TIMEVAL)
            self._blocks, self._timeout = True, 0.0
        return True

    def event(self) -> Token | Gone:
        """The next event. Waits without a deadline. Raises Lost, ProtocolError."""
        while True:
            if event := self._protocol.next_event():
                return event
            for _ in self._protocol.receive(self._receive(None)):
                pass

    def step(self) -> dict[str, Any]:
        """The next step of the renewal that is followed. Waits without a deadline. Raises Lost, ProtocolError."""
        while not self._protocol.steps:
            for _ in self._protocol.receive(self._receive(None)):
                pass
        return self._protocol.steps.pop(0)

    def close(self) -> None:
        self._sock.close()

    def _receive(self, deadline: float | None) -> bytes:
        try:
            if self._blocks:
                try:
                    return self._sock.recv(READ_SIZE)
                except BlockingIOError:  # nothing yet
                    pass
            self._wait_until(deadline)
            return self._sock.recv(READ_SIZE)
        except ConnectionError:
            raise Lost from None

    def _wait_until(self, deadline: float | None) -> None:
        """Setting the socket's timeout is a system call: one that ends a little too late stays."""
        if deadline is None:
            if self._blocks:
                self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, bytes(len(TIMEVAL)))
            self._blocks, self._timeout = False, 0.0
            self._sock.settimeout(None)
        elif not 0.0 <= self._timeout - (left := max(deadline - monotonic(), 0.001)) <= LATE:
            self._blocks, self._timeout = False, left + LATE / 2
            self._sock.settimeout(self._timeout)

    def __del__(self) -> None:  # if nobody closed the Broker: a socket would warn
        if hasattr(self, "_sock"):  # an interrupt may have come before it was set
            self._sock.close()
