# Tokens that are themselves secrets of the configuration (dialect static): their files are looked at every minute. A
# new one is served at once, and one that is gone is served no more. Commands are not run for it.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.broker.live_grant import LiveGrant
from brokerd.config.settings import GrantSettings
from brokerd.core.events import Event
from brokerd.core.grant.state import State
from brokerd.core.secret import Secret

LOOK = 60.0  # seconds between two looks

ReadFiles = Callable[[GrantSettings], Awaitable[Mapping[str, Secret] | None]]


async def notice_changes(broker: TokenBroker, read_files: ReadFiles) -> None:
    """For ever. `read_files` has the credentials that are in files; None: one of them cannot be read. A disk that does
    not answer delays its own grants only (law 13)."""
    looking: set[str] = set()

    async def look(grant: LiveGrant) -> None:
        known = grant.credentials
        found = await read_files(grant.settings)
        looking.discard(grant.name)
        is_same = (
            found is not None and known is not None and all(known.get(name) == each for name, each in found.items())
        )
        if is_same or grant.credentials is not known or grant.running is not None:
            return
        if broker.grants.get(grant.name) is grant:
            broker.events.say(Event.SECRET_CHANGED, **grant.about)
            grant.credentials = None
            broker.look_again(grant)

    async with trio.open_nursery() as nursery:
        while True:
            await trio.sleep(LOOK)
            for grant in [each for each in broker.grants.values() if each.in_credentials]:
                is_over = grant.credentials is None or grant.record.state is State.REVOKED
                if not is_over and grant.name not in looking:
                    looking.add(grant.name)
                    nursery.start_soon(look, grant)
