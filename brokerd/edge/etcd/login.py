# The token of our etcd user: asked for when it is needed, and again when etcd says that it counts no longer (it ends
# after five minutes without use, and with the server that made it).
from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from brokerd.core.fleet.gateway_errors import EtcdFailure
from brokerd.core.secret import Secret

Password = Callable[[], Awaitable[Secret]]
AskForToken = Callable[[str, str, Secret], Awaitable[Secret | EtcdFailure]]  # the server, the user, the password


@dataclass(frozen=True, slots=True)
class EtcdUser:
    """`password` reads it each time it is needed. It may raise EtcdRefused."""

    name: str
    password: Password


class EtcdLogin:
    """Without a user there is never a token."""

    def __init__(self, user: EtcdUser | None, ask: AskForToken) -> None:
        self._user = user
        self._ask = ask
        self._token: Secret | None = None
        self._one_asks = trio.Lock()

    async def token(self, server: str) -> Secret | EtcdFailure | None:
        """What a request carries. Requests that need one together ask once."""
        if self._user is None or self._token is not None:
            return self._token
        async with self._one_asks:
            if self._token is None:
                given = await self._ask(server, self._user.name, await self._user.password())
                if isinstance(given, EtcdFailure):
                    return given
                self._token = given
            return self._token

    def forget(self, token: Secret) -> None:
        """etcd accepts that one no longer."""
        if self._token is token:
            self._token = None
