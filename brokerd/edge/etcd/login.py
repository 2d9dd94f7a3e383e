# The token of our etcd user: asked for when it is needed, and again when etcd says that it counts no longer (it ends
# after five minutes without use, and with the server that made it).
from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from brokerd.core.fleet.gateway_errors import EtcdFailure, FailureKind
from brokerd.core.secret import Secret

Password = Callable[[], Awaitable[Secret]]
AskForToken = Callable[[str, str, Secret], Awaitable[Secret | EtcdFailure]]  # the server, the user, the password

READ_WITHIN = 3.0  # seconds for reading the password
# Seconds for which a password that was refused is not sent again. To check one costs etcd a tenth of a second of CPU
# time, and a thousand hosts may have the same wrong one.
REFUSED_FOR = 30.0


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
        self._failures = 0
        self._failed: EtcdFailure | None = None  # the last login that failed
        self._refused: tuple[Secret, float] | None = None  # a password, and when it may be sent again

    async def token(self, server: str) -> Secret | EtcdFailure | None:
        """What a request carries. Requests that need one together ask once, and share a failure."""
        if self._user is None:
            return None
        if self._token is None:
            failures = self._failures
            async with self._one_asks:
                await self._log_in_unless_done(server, self._user, failures)
        return self._token or self._failed

    async def _log_in_unless_done(self, server: str, user: EtcdUser, failures: int) -> None:
        if self._token is not None or self._failures != failures:
            return
        answer = await self._log_in(server, user)
        if isinstance(answer, EtcdFailure):
            self._failures, self._failed = failures + 1, answer
        else:
            self._token = answer

    def forget(self, token: Secret) -> None:
        """etcd accepts that one no longer."""
        if self._token is token:
            self._token = None

    async def _log_in(self, server: str, user: EtcdUser) -> Secret | EtcdFailure:
        password = None
        with trio.move_on_after(READ_WITHIN):
            password = await user.password()
        if password is None:
            return EtcdFailure(FailureKind.ELSEWHERE, f"reading the password took more than {READ_WITHIN:g} s")
        if self._refused is not None and self._failed is not None:
            refused, until = self._refused
            if refused == password and trio.current_time() < until:
                return self._failed
        answer = await self._ask(server, user.name, password)
        is_refused = isinstance(answer, EtcdFailure) and answer.kind is FailureKind.REFUSED
        self._refused = (password, trio.current_time() + REFUSED_FOR) if is_refused else None
        return answer
