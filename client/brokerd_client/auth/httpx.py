# The auth class for httpx, for its blocking and its asynchronous client: a token of brokerd on each request, and one
# more try with another token after a 401.
from __future__ import annotations

from threading import Lock

import httpx

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from typing import Any

    from brokerd_client.asynchronous import AsyncBroker
    from brokerd_client.blocking import Broker
    from brokerd_client.messages import Token


_MAKING = Lock()


class BrokerAuth(httpx.Auth):
    """`httpx.Client(auth=BrokerAuth("ix-prod"))`, or `httpx.AsyncClient(auth=BrokerAuth("ix-prod"))`.

    `broker`: one that the program has already: a Broker for httpx.Client, one of brokerd_client.on_asyncio or
    on_trio for httpx.AsyncClient. Raises the errors of brokerd_client.errors. A body that is a generator is sent
    once only: then a 401 is returned as it is.

    On a redirect to another origin httpx removes Authorization and no other header. A token that goes into another
    header is therefore refused with ValueError, unless `any_header` says that the client follows no redirects.
    """

    def __init__(
        self, grant: str, broker: Broker | AsyncBroker | None = None, *, any_header: bool = False, **get: Any
    ) -> None:
        """`get`: further arguments of Broker.get, such as min_ttl or scope."""
        self._any_header = any_header
        self._grant = grant
        self._broker = broker
        self._own: Broker | None = None  # for httpx.Client, if the program has none
        self._get = get

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        broker: Any = self._broker or self._blocking()
        token = broker.get(self._grant, **self._get)
        self._put(request, token)
        response = yield request
        if _try_again(request, response, token):
            self._put(request, broker.get(self._grant, refused=token.value, **self._get))
            yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        async with self._asynchronous() as broker:
            token = await broker.get(self._grant, **self._get)
        self._put(request, token)
        response = yield request
        if _try_again(request, response, token):
            async with self._asynchronous() as broker:
                token = await broker.get(self._grant, refused=token.value, **self._get)
            self._put(request, token)
            yield request

    def _put(self, request: httpx.Request, token: Token) -> None:
        for name in token.header:
            if name.lower() != "authorization" and not self._any_header:
                raise ValueError(
                    f"{self._grant}: its token goes into the header {name}, which httpx sends to other origins too "
                    "if it follows a redirect. Use a client with follow_redirects=False, and any_header=True here."
                )
        request.headers.update(token.header)

    def _blocking(self) -> Broker:
        """One for all requests and threads."""
        if self._own is None:
            from weakref import finalize

            from brokerd_client.blocking import Broker

            with _MAKING:
                if self._own is None:
                    self._own = Broker()
                    finalize(self, self._own.close)  # with this object, also where a cycle of references holds it
        return self._own

    def _asynchronous(self) -> Any:
        """The program's broker, or one for this request: an asynchronous one belongs to one event loop."""
        if self._broker is not None:
            from contextlib import nullcontext

            return nullcontext(self._broker)
        import sniffio

        if sniffio.current_async_library() == "trio":
            from brokerd_client.on_trio import Broker as OnTrio

            return OnTrio()
        from brokerd_client.on_asyncio import Broker as OnAsyncio

        return OnAsyncio()


def _try_again(request: httpx.Request, response: httpx.Response, token: Token) -> bool:
    """Whether this very token was refused by where it was to go, and the request can be sent again."""
    same = response.request.url.copy_with(path="/", query=None, fragment=None) == request.url.copy_with(
        path="/", query=None, fragment=None
    )
    sent = all(response.request.headers.get(name) == value for name, value in token.header.items())
    again = isinstance(request.stream, httpx.ByteStream)
    return response.status_code == 401 and same and sent and again
