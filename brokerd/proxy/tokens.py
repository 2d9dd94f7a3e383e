# The tokens of the grants that proxies use, kept current by one connection that follows them. It is the only place in
# brokerd-proxy that holds tokens.
from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import trio
from brokerd_client import BrokerError, Gone, Token, Unavailable
from brokerd_client.on_trio import Broker

from brokerd.config.token_files import Source
from brokerd.core.http.forwarding import token_line
from brokerd.files import sources
from brokerd.files.sources import News

WAIT = 10.0  # seconds that a request waits for a token,
AWAY = 2.0  # or for a brokerd that cannot be asked
REFUSED_AGAIN = 5.0  # seconds until brokerd is asked again for another token, if it had none


class Header(NamedTuple):
    """The header of a token, ready for a request. `line`: name, value and line break."""

    token: Token
    name: str
    line: bytes


@dataclass(slots=True)
class Known:
    """What is known of one token. `why`: why there is none, or why brokerd cannot be asked. `is_away`: the latter.
    `header`: of `token`, if it was asked for."""

    token: Token | None = None
    why: BrokerError | None = None
    is_away: bool = False
    header: Header | None = None

    @property
    def living(self) -> Token | None:
        token = self.token
        if token is None or (token.expires_at is not None and token.expires_at <= time.time()):
            return None
        return token


class LiveTokens:
    """`follow` must run. LiveTokens are read without waiting as long as they live. `say` is told when brokerd cannot be
    asked, with the reason, and when it can be asked again, with None."""

    def __init__(self, broker: Broker, say: Callable[[BrokerError | None], None]) -> None:
        self._broker = broker
        self._say = say
        self._known: dict[Source, Known] = {}
        self._changed = trio.lowlevel.ParkingLot()
        self._asking: dict[Source, trio.Lock] = {}
        self._refused: dict[Source, tuple[str, float]] = {}  # tokens without a successor, and until when that counts

    def follow(self, wanted: Iterable[Source], nursery: trio.Nursery) -> None:
        sources.begin(self._broker, wanted, self._tell, nursery)

    @property
    def away(self) -> BrokerError | None:
        """Why brokerd cannot be asked."""
        return next((each.why for each in self._known.values() if each.is_away), None)

    def _tell(self, source: Source, news: News) -> None:
        known = self._known.setdefault(source, Known())
        before = self.away
        known.is_away = isinstance(news, BrokerError)
        if isinstance(news, Token):
            known.token, known.header, known.why = news, None, None
        elif isinstance(news, Gone):
            known.token, known.header, known.why = None, None, news.error
        else:
            known.why = news  # a token that lives is used until its end
        if (before is None) != (self.away is None):
            self._say(self.away)
        self._changed.unpark_all()

    def current(self, source: Source) -> Token | None:
        """The living token; None: there is none now."""
        known = self._known.get(source)
        return known.living if known else None

    def header(self, source: Source) -> Header | None:
        """Of the living token."""
        known = self._known.get(source)
        if known is None or (token := known.living) is None:
            return None
        if known.header is None:
            ((name, value),) = token.header.items()
            known.header = Header(token, name, token_line((name, value)))
        return known.header

    async def wait_for(self, source: Source) -> Token:
        """The living token, waited for. Raises BrokerError with the reason."""
        known = self._known.setdefault(source, Known())
        with trio.move_on_after(AWAY if known.is_away else WAIT):
            while (token := self.current(source)) is None:
                if known.why is not None and not known.is_away and known.why.code != "unavailable":
                    raise known.why
                await self._changed.park()
            return token
        raise known.why or Unavailable("brokerd has not answered yet", retry_after=1.0)

    async def replaced(self, source: Source, refused: Token) -> Token:
        """The API refused a token: the next one. brokerd is asked once, however many requests were refused. Raises
        BrokerError."""
        async with self._asking.setdefault(source, trio.Lock()):
            current = self.current(source)
            if current is not None and current.value != refused.value:
                return current
            value, until = self._refused.get(source, ("", 0.0))
            if value == refused.value and trio.current_time() < until:
                raise Unavailable("there is no other token yet", retry_after=REFUSED_AGAIN)
            try:
                token = await self._broker.get(
                    source.grant,
                    refused=refused.value,
                    wait=WAIT,
                    scope=source.scope,
                    audience=source.audience,
                    resource=source.resource,
                )
            except BrokerError as error:
                self._refused[source] = refused.value, trio.current_time() + max(REFUSED_AGAIN, error.retry_after or 0)
                raise
            if token.value == refused.value:
                self._refused[source] = refused.value, trio.current_time() + REFUSED_AGAIN
                raise Unavailable("brokerd has no other token", retry_after=REFUSED_AGAIN)
            self._tell(source, token)
            return token
