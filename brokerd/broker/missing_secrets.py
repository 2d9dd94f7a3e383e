# Secret files that were missing, or could not be read, and now can: nobody has to say so. Each grant that waits for one
# is looked at every few seconds, by opening its files alone; commands are not run for it.
from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.broker.live_grant import LiveGrant
from brokerd.config.settings import GrantSettings
from brokerd.core.events import Event

LOOK = 5.0  # seconds between two looks

AreReadable = Callable[[GrantSettings], Awaitable[bool]]
Admit = Callable[[LiveGrant], Awaitable[None]]


async def notice_secrets(broker: TokenBroker, are_readable: AreReadable, admit: Admit) -> None:
    """For ever. `admit` takes in a grant whose identity is in a file that could not be read."""
    while True:
        await trio.sleep(LOOK)
        for grant in [each for each in broker.grants.values() if each.lacks_secret]:
            if not await are_readable(grant.settings) or broker.grants.get(grant.name) is not grant:
                continue
            if grant.running is not None:
                continue
            broker.events.say(Event.SECRET_READABLE, **grant.about)
            if grant.blocked:
                await admit(grant)
            else:
                grant.lacks_secret = False
                broker.look_again(grant)
