# What the clients on trio and asyncio have in common: the methods, the one shared connection, the second try.
# It awaits, and knows neither of the two: connections, locks and time come from on_trio and on_asyncio.
from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from brokerd_client.address import find_socket
from brokerd_client.messages import Gone, Token, of_watched, read_proof, read_token, read_tokens
from brokerd_client.session import REPEATABLE, TIMEOUT, WAIT, Lost, get_params, lost, patience, read_result

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from contextlib import AbstractAsyncContextManager

    from brokerd_client.errors import BrokerError
    from brokerd_client.wire import Response

T = TypeVar("T")


class Connection(Protocol):
    """A connection that many tasks may use at once."""

    failure: BaseException | None  # what ended it

    async def ask(self, method: str, params: dict[str, Any]) -> Response:
        """Raises what ended the connection. May be cancelled: the answer is then dropped when it comes."""
        ...

    async def event(self) -> Token | Gone:
        """The next event. Raises what ended the connection. May be cancelled: no event is lost."""
        ...

    def close(self) -> None: ...


class AsyncBroker:
    """The methods of both asynchronous clients. Every one raises the errors of brokerd_client.errors.

    All requests share one connection, made when it is needed; many may be in progress, and cancelling one leaves
    the others alone. If the daemon was restarted, the connection is made anew and the request sent once more, where
    doing it twice changes nothing (session.REPEATABLE).

    `timeout`: seconds beyond `wait` until a daemon that does not answer is given up with Unavailable.
    """

    _lock: AbstractAsyncContextManager[object]  # held while connecting

    def __init__(self, socket: str | os.PathLike[str] | None = None, timeout: float = TIMEOUT) -> None:
        self._path = os.fspath(socket) if socket else None
        self._timeout = timeout
        self._connection: Connection | None = None

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
    ) -> Token:
        """A living token of the grant.

        `min_ttl`: seconds that it must live for at least. `wait`: seconds to wait for the provider if there is no
        living token, at most 60. `refused`: the value of a token that an API refused although it had not expired.
        `scope`, `audience`, `resource`: a token of the grant for these, in the place of its own.
        """
        params = get_params(grant, min_ttl, wait, refused, scope, audience, resource)
        return read_token(await self.call("get", **params), grant)

    async def proof(self, grant: str, method: str, url: str, *, nonce: str | None = None, wait: float = WAIT) -> Token:
        """The token of a grant whose tokens are bound to a key, for one request: its `header` holds a DPoP proof too.

        `method` and `url` are the request's, `nonce` the DPoP-Nonce that the API demanded last (RFC 9449 §9).
        """
        more = {} if nonce is None else {"nonce": nonce}
        return read_proof(await self.call("proof", grant=grant, http_method=method, url=url, wait=wait, **more), grant)

    async def get_many(
        self, grants: Iterable[str], *, min_ttl: float = 0, wait: float = WAIT
    ) -> dict[str, Token | BrokerError]:
        """Tokens of at most 64 grants: by grant the token, or the error that `get` would raise."""
        grants = list(grants)
        return read_tokens(grants, await self.call("get_many", grants=grants, min_ttl=min_ttl, wait=wait))

    def watch(self, *grants: str) -> Watch:
        """An endless iterator: a Token for each grant that has one, then each new Token or Gone as it comes."""
        return Watch(self, grants)

    async def call(self, method: str, /, **params: Any) -> Any:
        """Any method of docs/protocol.md; returns its result as plain maps and arrays."""
        return await self._within(patience(params, self._timeout), self._call(method, params))

    async def _call(self, method: str, params: dict[str, Any]) -> Any:
        for tries_left in (1, 0):
            async with self._lock:
                if self._connection is None or self._connection.failure is not None:
                    self._connection = await self._connect()
                connection = self._connection
            try:
                return read_result(await connection.ask(method, params))
            except Lost:
                if not tries_left or method not in REPEATABLE:
                    break
        raise lost(method)

    async def _connect(self) -> Connection:
        """A new connection. Raises NoDaemon."""
        raise NotImplementedError

    async def _within(self, seconds: float, work: Awaitable[T]) -> T:
        """Do the work. Raises Unavailable if it is not done after so many seconds."""
        raise NotImplementedError

    def _find(self) -> str:
        return self._path or find_socket()


class Watch:
    """The events of `watch`. Waiting for the next one has no deadline and may be cancelled: no event is lost.

    If the daemon was restarted, it watches anew, once for each event, and begins with the tokens that there are. It
    has a connection of its own, for one task at a time, closed with the Watch or at the latest with its Broker.
    """

    def __init__(self, broker: AsyncBroker, grants: tuple[str, ...]) -> None:
        self._broker = broker
        self._grants = list(grants)
        self._connection: Connection | None = None

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

    async def _open(self) -> Connection:
        connection = await self._broker._connect()
        try:
            read_result(await connection.ask("watch", {"grants": self._grants}))
        except BaseException:
            connection.close()
            raise
        return connection
