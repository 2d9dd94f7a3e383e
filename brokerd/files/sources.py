# Where the tokens of the files come from: one connection that follows up to 64 grants, and polls for downscoped tokens,
# of which brokerd sends no events. Each piece of news goes to `tell`.
from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import islice
from math import inf

import trio
from brokerd_client import BrokerError, Gone, Token
from brokerd_client.on_trio import Broker

from brokerd.config.token_files import Source
from brokerd.core.files.decisions import TAKEN_BACK

MOST_FOLLOWED = 64  # grants on one connection: the protocol's limit
ASK_AGAIN = 30.0  # seconds until a grant that we may not use is asked for again: a rule may have been added
POLL = (
    15.0  # seconds between two looks at a downscoped token, at most; brokerd renews it ahead as long as it is asked for
)
DEMAND_WAIT, DEMAND_AGAIN = 30.0, 30.0  # seconds to wait for a token, and until it is asked for again, at most
LONGEST_PAUSE = 10.0  # seconds between two tries to reach brokerd

News = Token | Gone | BrokerError  # an error: brokerd could not be asked
Tell = Callable[[Source, News], None]


def begin(broker: Broker, sources: Iterable[Source], tell: Tell, nursery: trio.Nursery) -> None:
    """Tell what becomes of these tokens, until cancelled."""
    grants = []
    for source in dict.fromkeys(sources):
        if source.is_own:
            grants.append(source.grant)
        else:
            nursery.start_soon(_poll, broker, source, tell)
    rest = iter(grants)
    while some := tuple(islice(rest, MOST_FOLLOWED)):
        nursery.start_soon(_follow, broker, some, tell)


async def ask_once(broker: Broker, sources: Iterable[Source], tell: Tell, wait: float) -> None:
    """Tell what there is now, and wait for the provider if there is none."""
    async with trio.open_nursery() as nursery:
        for source in dict.fromkeys(sources):
            nursery.start_soon(_ask, broker, source, tell, wait)


async def _follow(broker: Broker, grants: tuple[str, ...], tell: Tell) -> None:
    failures, refused, without = 0, set[str](), set[str]()
    async with trio.open_nursery() as nursery, broker.follow(*grants) as events:
        while True:
            event: Token | Gone | None = None
            try:
                with trio.move_on_after(ASK_AGAIN if refused else inf):
                    event = await anext(events)
            except BrokerError as error:
                failures += 1
                for grant in grants:
                    tell(Source(grant), error)
                await trio.sleep(_pause(failures, error))
                continue
            if event is None:
                refused.clear()
                events.close()  # the next event connects again
                continue
            failures = 0
            tell(Source(event.grant), event)
            code = event.error.code if isinstance(event, Gone) else ""
            (refused.add if code in ("unknown_grant", "denied") else refused.discard)(event.grant)
            if code == "unavailable" and event.grant not in without:
                without.add(event.grant)
                nursery.start_soon(_demand, broker, event.grant, without)
            elif code != "unavailable":
                without.discard(event.grant)


async def _demand(broker: Broker, grant: str, without: set[str]) -> None:
    """Ask for a token until there is one: brokerd hurries while a caller waits, and renews some grants only on demand.
    The token itself comes as an event."""
    failures = 0
    while grant in without:
        try:
            await broker.get(grant, wait=DEMAND_WAIT)
        except BrokerError as error:
            failures += 1
            await trio.sleep(max(_pause(failures, error), min(DEMAND_AGAIN, failures)))
        else:
            await trio.sleep(1.0)


async def _poll(broker: Broker, source: Source, tell: Tell) -> None:
    failures = 0
    while True:
        news = await _ask(broker, source, tell, wait=10.0)
        pause = POLL
        if isinstance(news, Token):
            failures = 0
            if news.expires_at is not None:
                pause = max(1.0, min(POLL, (news.expires_at - time.time()) / 4))
        else:
            failures += 1
            error = news.error if isinstance(news, Gone) else news
            pause = max(_pause(failures, error), ASK_AGAIN if error.code in ("unknown_grant", "denied") else 0.0)
        await trio.sleep(pause)


async def _ask(broker: Broker, source: Source, tell: Tell, wait: float) -> News:
    news: News
    try:
        news = await broker.get(
            source.grant, wait=wait, scope=source.scope, audience=source.audience, resource=source.resource
        )
    except BrokerError as error:
        is_of_grant = error.grant is not None or error.code in TAKEN_BACK
        news = Gone(source.grant, error) if is_of_grant else error
    tell(source, news)
    return news


def _pause(failures: int, error: BrokerError) -> float:
    return max(min(LONGEST_PAUSE, 0.1 * 2.0 ** min(failures, 20)), error.retry_after or 0.0)
