# The client for asyncio programs. asyncio's own transport writes and reads, so that a cancelled caller never leaves
# half a message in the socket.
from __future__ import annotations

import asyncio
import os
import socket as stdlib
from typing import TYPE_CHECKING, Self

from brokerd_client.address import BUSY_PAUSE, connect
from brokerd_client.asynchronous import AsyncBroker, T
from brokerd_client.client_protocol import ClientProtocol, Lost, unanswered
from brokerd_client.errors import BrokerError
from brokerd_client.request import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from brokerd_client.messages import Gone, Token
    from brokerd_client.request import ClientRequest
    from brokerd_client.wire import Response

__all__ = ["Broker"]


class Broker(AsyncBroker):
    """A client of brokerd, for the tasks of one event loop. `async with` or `close()` ends it."""

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, timeout: float = TIMEOUT, *, share: bool = True
    ) -> None:
        super().__init__(socket, timeout, share=share)
        self._lock = asyncio.Lock()
        self._open: set[_AsyncioConnection] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        await asyncio.sleep(0)  # asyncio closes a socket in the next iteration of its loop

    def close(self) -> None:
        """Closes the connections; requests in progress fail."""
        self._closed = True
        self._forget_tokens()
        for connection in list(self._open):
            connection.close()

    async def _connect(self) -> _AsyncioConnection:
        while True:
            if self._closed:
                raise RuntimeError("this Broker is closed; make a new one")
            if sock := connect(self._find(), stdlib.socket):
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_unix_connection(lambda: _AsyncioConnection(self._open), sock=sock)
                return connection
            await asyncio.sleep(BUSY_PAUSE)

    def _in_thread(self, work: Callable[[str], None], grant: str) -> None:
        asyncio.get_running_loop().run_in_executor(None, work, grant)

    async def _within(self, seconds: float, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise unanswered(seconds) from None


class _AsyncioConnection(asyncio.Protocol):
    def __init__(self, siblings: set[_AsyncioConnection]) -> None:
        self.failure: BaseException | None = None
        self.loop = asyncio.get_running_loop()
        self._siblings = siblings
        self._protocol = ClientProtocol()
        self._news = asyncio.Event()

    async def ask(self, request: ClientRequest) -> Response:
        if self.loop is not asyncio.get_running_loop():
            raise RuntimeError("this Broker belongs to another event loop; make one for each loop")
        response = None
        if self.failure is None:
            waiter: asyncio.Future[Response | None] = self.loop.create_future()
            self._transport.write(self._protocol.request(request, waiter))
            response = await waiter
        if response is None:
            assert self.failure is not None
            raise self.failure
        return response

    async def event(self) -> Token | Gone:
        while True:
            if event := self._protocol.next_event():
                return event
            if self.failure is not None:
                raise self.failure
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        self._end(Lost())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._siblings.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            for waiter, response in self._protocol.receive(data):
                if not waiter.done():
                    waiter.set_result(response)
        except BrokerError as error:
            self._end(error)
        self._news.set()

    def connection_lost(self, _: Exception | None) -> None:
        self._end(Lost())

    def _end(self, failure: BaseException) -> None:
        if self.failure is not None:
            return
        self.failure = failure
        self._siblings.discard(self)
        self._transport.abort()
        self._news.set()
        for waiter in self._protocol.abandon():
            if not waiter.done():
                waiter.set_result(None)
