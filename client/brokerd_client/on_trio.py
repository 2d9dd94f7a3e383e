# The client for trio programs. Each connection has two tasks in the Broker's nursery, one that writes and one that
# reads, so that a cancelled caller never leaves half a message in the socket.
from __future__ import annotations

import os
import socket as stdlib
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self

import trio

from brokerd_client.address import BUSY_PAUSE, connect
from brokerd_client.asynchronous import AsyncBroker, T
from brokerd_client.client_protocol import READ_SIZE, ClientProtocol, Lost, unanswered
from brokerd_client.errors import BrokerError
from brokerd_client.request import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from brokerd_client.messages import Gone, Token
    from brokerd_client.request import ClientRequest
    from brokerd_client.wire import Response

__all__ = ["Broker"]


class Broker(AsyncBroker):
    """A client of brokerd, for the tasks inside `async with Broker() as broker:`."""

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, timeout: float = TIMEOUT, *, share: bool = True
    ) -> None:
        super().__init__(socket, timeout, share=share)
        self._lock = trio.Lock()
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> Self:
        self._scope: AbstractAsyncContextManager[trio.Nursery] = trio.open_nursery()
        self._nursery = await self._scope.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._nursery is not None
        self._forget_tokens()
        # The nursery does not get the body's error: it would wrap it in a group, which `except Denied` does not catch.
        # The shield prevents a Cancelled here from replacing that error.
        self._nursery.cancel_scope.shield = True
        self._nursery.cancel_scope.cancel()
        self._nursery = None
        await self._scope.__aexit__(None, None, None)

    async def _connect(self) -> _TrioConnection:
        while True:
            if self._nursery is None:
                raise RuntimeError("use this Broker inside `async with`")
            if sock := connect(self._find(), stdlib.socket):
                connection = _TrioConnection(sock)
                self._nursery.start_soon(connection.read)
                self._nursery.start_soon(connection.write)
                return connection
            await trio.sleep(BUSY_PAUSE)

    def _in_thread(self, work: Callable[[str], None], grant: str) -> None:
        assert self._nursery is not None
        self._nursery.start_soon(partial(trio.to_thread.run_sync, work, grant, abandon_on_cancel=True))

    async def _checkpoint(self) -> None:
        await trio.lowlevel.checkpoint()

    async def _within(self, seconds: float, work: Awaitable[T]) -> T:
        with trio.move_on_after(seconds):
            return await work
        raise unanswered(seconds)


class _TrioConnection:
    def __init__(self, sock: stdlib.socket) -> None:
        self.failure: BaseException | None = None
        self._send = sock.send
        self._sock = trio.socket.from_stdlib_socket(sock)
        self._protocol = ClientProtocol()
        self._unsent = bytearray()
        self._to_send = trio.Event()
        self._news = trio.Event()

    async def ask(self, request: ClientRequest) -> Response:
        await trio.lowlevel.checkpoint_if_cancelled()
        waiter = _Waiter()
        if self.failure is None:
            alone = self._protocol.is_idle and not self._unsent
            self._unsent += self._protocol.request(request, waiter)
            if alone:  # many requests are better sent together, by `write`
                self._send_at_once()
            if self._unsent:
                self._to_send.set()
            await waiter.done.wait()
        if waiter.response is None:
            assert self.failure is not None
            raise self.failure
        return waiter.response

    async def event(self) -> Token | Gone:
        while True:
            if event := self._protocol.next_event():
                return event
            if self.failure is not None:
                raise self.failure
            self._news = trio.Event()
            await self._news.wait()

    def close(self) -> None:
        self._end(Lost())

    async def read(self) -> None:
        try:
            while True:
                for waiter, response in self._protocol.receive(await self._sock.recv(READ_SIZE)):
                    waiter.response = response
                    waiter.done.set()
                self._news.set()
        except BrokerError as error:
            self._end(error)
        except (OSError, trio.ClosedResourceError, Lost):
            pass
        finally:
            self._end(Lost())

    def _send_at_once(self) -> None:
        """What the socket takes without waiting. An error is found again by `write`."""
        with suppress(OSError):
            del self._unsent[: self._send(self._unsent)]

    async def write(self) -> None:
        try:
            while self.failure is None:
                await self._to_send.wait()
                self._to_send = trio.Event()
                while self._unsent:
                    del self._unsent[: await self._sock.send(bytes(self._unsent[:READ_SIZE]))]
        except (OSError, trio.ClosedResourceError):
            pass  # what the daemon has sent can still be read; the reader then ends the connection

    def _end(self, failure: BaseException) -> None:
        if self.failure is not None:
            return
        self.failure = failure
        self._sock.close()
        self._to_send.set()
        self._news.set()
        for waiter in self._protocol.abandon():
            waiter.done.set()


class _Waiter:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.response: Response | None = None
