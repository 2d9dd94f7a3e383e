# Secret files that were missing, or could not be read, and now can: nobody has to say so. Each grant that waits for one
# is looked at every few seconds, by opening its files alone; commands are not run for it.
from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from brokerd.broker import Broker
from brokerd.config import GrantSettings
from brokerd.held import HeldGrant

LOOK = 5.0  # seconds between two looks

AreReadable = Callable[[GrantSettings], Awaitable[bool]]
Admit = Callable[[HeldGrant], Awaitable[None]]


async def notice_secrets(broker: Broker, are_readable: AreReadable, admit: Admit) -> None:
    """For ever. `admit` takes in a grant whose identity is in a file that could not be read."""
    while True:
        await trio.sleep(LOOK)
        for held in [each for each in broker.grants.values() if each.lacks_secret]:
            if not await are_readable(held.settings) or broker.grants.get(held.name) is not held:
                continue
            if held.flight is not None:
                continue
            broker.audit.said("a secret file can be read now", **held.about)
            if held.blocked:
                await admit(held)
            else:
                held.lacks_secret = False
                broker.look_again(held)
