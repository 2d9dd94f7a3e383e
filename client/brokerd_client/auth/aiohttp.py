# The middleware for aiohttp (3.12 and later): a token of brokerd on each request to one origin, and one more try with
# another token after a 401.
from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from brokerd_client.auth.origin import origin_of
from brokerd_client.messages import Token
from brokerd_client.on_asyncio import Broker


class BrokerAuth:
    """`aiohttp.ClientSession(middlewares=[BrokerAuth("ix-prod", "https://api.ix.example")])`.

    aiohttp asks its middlewares for redirects too: the token goes to the origin alone that is named here. `broker`:
    one that the program has already, and closes; without it, each token has a connection of its own. Raises the errors
    of brokerd_client.errors.
    """

    def __init__(self, grant: str, origin: str, broker: Broker | None = None, **get: Any) -> None:
        """`get`: further arguments of Broker.get, such as min_ttl or scope."""
        self._grant = grant
        self._origin = origin_of(origin)
        self._broker = broker
        self._get = get

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if origin_of(str(request.url)) != self._origin:
            return await handler(request)
        token = await self._token()
        request.headers.update(token.header)
        response = await handler(request)
        if response.status != 401 or not _can_be_sent_again(request):
            return response
        response.release()
        token = await self._token(refused=token.value)
        request.headers.update(token.header)
        return await handler(request)

    async def _token(self, refused: str | None = None) -> Token:
        """An asynchronous Broker belongs to one event loop, and nobody tells a middleware when that ends: without the
        program's own, there is one for each token."""
        async with nullcontext(self._broker) if self._broker is not None else Broker() as broker:
            return await broker.get(self._grant, refused=refused, **self._get)


def _can_be_sent_again(request: ClientRequest) -> bool:
    """Whether its body is still there: bytes are, a stream is not."""
    from aiohttp.payload import BytesPayload

    return not request.body or isinstance(request.body, (bytes, BytesPayload))
