# What the clients for trio and asyncio share: the methods, the use of one connection, the second try. Connections,
# locks and timeouts come from on_trio and on_asyncio.
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from brokerd_client.address import find_socket
from brokerd_client.client_protocol import GETS, Lost, lost
from brokerd_client.errors import from_map
from brokerd_client.messages import Gone, Token, of_watched, read_proof, read_tokens
from brokerd_client.request import REPEATABLE, TIMEOUT, WAIT, ClientRequest, Gets, get_params, patience
from brokerd_client.wire import read_result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from brokerd_client.errors import BrokerError
    from brokerd_client.shared_token import SharedTokenReaders
    from brokerd_client.wire import Response

T = TypeVar("T")


class SharedConnection(Protocol):
    """A connection that many tasks may use at once."""

    failure: BaseException | None  # why it ended

    async def ask(self, request: ClientRequest) -> Response:
        """Raises `failure`. May be cancelled: the answer is then ignored."""
        ...

    async def event(self) -> Token | Gone:
        """The next event. Raises `failure`. May be cancelled: no event is lost."""
        ...

    def close(self) -> None: ...


class AsyncBroker:
    """The methods of both asynchronous clients. All of them raise the errors of brokerd_client.errors.

    All requests share one connection, which is made when it is needed. Many may be in progress, and cancelling one
    does not change the others. If the daemon was restarted, the request is sent once more on a new connection, if
    doing it twice changes nothing (REPEATABLE).

    `timeout`: a call raises Unavailable if there is no answer so many seconds after the end of `wait`.
    `share`: after three gets of a grant, its token is read in memory that the daemon shares (docs/shared-token.md).
    """

    _lock: AbstractAsyncContextManager[object]  # held while connecting

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, timeout: float = TIMEOUT, *, share: bool = True
    ) -> None:
        self._path = os.fspath(socket) if socket else None
        self._timeout = timeout
        self._share = share
        self._gets: dict[str, int] = {}  # of each grant, over the socket
        self._known = Gets()
        self._shared: SharedTokenReaders | None = None
        self._connection: SharedConnection | None = None

    async def get(
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
            await self._checkpoint()
            return token
        if refused is not None and self._shared is not None:
            self._shared.refuse(grant, refused)
        params = get_params(grant, min_ttl, wait, refused, scope, audience, resource, request_id)
        get = self._known.find(params)
        token = get.token(await self._answered(get))
        if own and self._share:
            self._gets[grant] = number = self._gets.get(grant, 0) + 1
            if number >= GETS:
                self._share_token(grant)
        return token

    async def proof(self, grant: str, method: str, url: str, *, nonce: str | None = None, wait: float = WAIT) -> Token:
        """The token of a grant whose tokens are bound to a key, for one request. Its `header` has a DPoP proof too.

        `method` and `url` are the request's. `nonce` is the last DPoP-Nonce of the API (RFC 9449 §9).
        """
        more = {} if nonce is None else {"nonce": nonce}
        return read_proof(await self.call("proof", grant=grant, http_method=method, url=url, wait=wait, **more), grant)

    async def get_many(
        self, grants: Iterable[str], *, min_ttl: float = 0, wait: float = WAIT
    ) -> dict[str, Token | BrokerError]:
        """Tokens of at most 64 grants: for each grant its token, or the error that `get` would raise."""
        grants = list(grants)
        return read_tokens(grants, await self.call("get_many", grants=grants, min_ttl=min_ttl, wait=wait))

    def watch(self, *grants: str) -> Watch:
        """An endless iterator: first a Token for each grant that has one, then each new Token or Gone."""
        return Watch(self, grants)

    def follow(self, *grants: str) -> Following:
        """As `watch`, but it begins with the state of every grant: a Token or a Gone."""
        return Following(self, grants)

    async def call(self, method: str, /, **params: Any) -> Any:
        """Calls any method of docs/protocol.md. Returns its result as plain maps and arrays."""
        return read_result(await self._answered(ClientRequest(method, params)))

    async def _answered(self, request: ClientRequest) -> Response:
        return await self._within(patience(request.params, self._timeout), self._ask(request))

    async def _ask(self, request: ClientRequest) -> Response:
        for tries_left in (1, 0):
            connection = self._connection
            if connection is None or connection.failure is not None:
                connection = await self._one_for_all()
            try:
                return await connection.ask(request)
            except Lost:
                if not tries_left or request.method not in REPEATABLE:
                    break
        raise lost(request.method)

    async def _one_for_all(self) -> SharedConnection:
        async with self._lock:
            if self._connection is None or self._connection.failure is not None:
                self._connection = await self._connect()
            return self._connection

    def _share_token(self, grant: str) -> None:
        """Have the next gets of the grant read it in memory, if that is possible."""
        if self._shared is None:
            try:
                from brokerd_client.shared_token import SharedTokenReaders  # seldom needed, and slow to import
            except (ImportError, OSError):  # not on this system
                self._share = False
                return
            self._shared = SharedTokenReaders(self._path, self._gets)
        if self._shared.claim(grant):
            self._in_thread(self._shared.ask, grant)

    def _forget_tokens(self) -> None:
        self._known.clear()
        self._share = False
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def _in_thread(self, work: Callable[[str], None], grant: str) -> None:
        """Do blocking work beside all others. It takes some milliseconds, and raises nothing."""
        raise NotImplementedError

    async def _checkpoint(self) -> None:
        """What every call does at least, where tasks expect it."""

    async def _connect(self) -> SharedConnection:
        """A new connection. Raises NoDaemon."""
        raise NotImplementedError

    async def _within(self, seconds: float, work: Awaitable[T]) -> T:
        """Do the work. Raises Unavailable if it takes longer than so many seconds."""
        raise NotImplementedError

    def _find(self) -> str:
        return self._path or find_socket()


class Watch:
    """The events of `watch`. Waiting for the next event has no deadline, and may be cancelled: no event is lost.

    If the daemon was restarted, it connects again, once for each event, and starts with the current tokens. It has its
    own connection, for one task at a time, which is closed with the Watch or its Broker.
    """

    def __init__(self, broker: AsyncBroker, grants: tuple[str, ...]) -> None:
        self._broker = broker
        self._grants = list(grants)
        self._connection: SharedConnection | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Token | Gone:
        if self._connection:
            try:
                return of_watched(await self._connection.event(), self._grants)
            except Lost:
                self.close()
        try:
            seconds = patience({}, self._broker._timeout)
            self._connection = await self._broker._within(seconds, self._open())
            return of_watched(await self._connection.event(), self._grants)
        except Lost:
            self.close()
            raise lost("watch") from None

    def close(self) -> None:
        """Ends the watch."""
        if self._connection:
            self._connection.close()
        self._connection = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    async def _open(self) -> SharedConnection:
        connection = await self._broker._connect()
        try:
            read_result(await connection.ask(ClientRequest("watch", {"grants": self._grants})))
        except BaseException:
            connection.close()
            raise
        return connection


class Following(Watch):
    """The events of `follow`, of at most 64 grants. Each new connection begins with the state of every grant: a Token,
    or a Gone with the error that `get` would raise. A grant that this caller may not use does not end the others.

    It raises NoDaemon when the daemon has gone. The next event then connects again.
    """

    def __init__(self, broker: AsyncBroker, grants: tuple[str, ...]) -> None:
        super().__init__(broker, grants)
        self._states: list[Token | Gone] = []

    async def __anext__(self) -> Token | Gone:
        try:
            if self._connection is None:
                self._states.clear()
                self._connection = await self._broker._within(patience({}, self._broker._timeout), self._open())
            if self._states:
                return self._states.pop()
            return of_watched(await self._connection.event(), self._grants)
        except Lost:
            self.close()
            raise lost("watch") from None

    async def _open(self) -> SharedConnection:
        """What changes after a grant is watched comes as an event, so nothing is missed between both requests."""
        connection = await self._broker._connect()
        try:
            watched = []
            for grant in self._grants:
                response = await connection.ask(ClientRequest("watch", {"grants": [grant]}))
                if response.error is None:
                    watched.append(grant)
                else:
                    self._states.append(_gone(grant, from_map(response.error)))
            if watched:
                many = ClientRequest("get_many", {"grants": watched, "min_ttl": 0, "wait": 0})
                for grant, found in read_tokens(watched, read_result(await connection.ask(many))).items():
                    self._states.append(found if isinstance(found, Token) else _gone(grant, found))
        except BaseException:
            connection.close()
            raise
        return connection


def _gone(grant: str, error: BrokerError) -> Gone:
    """Raises errors that say nothing about the grant."""
    if error.code in ("limit", "bad_request", "internal"):
        raise error
    return Gone(grant, error)
