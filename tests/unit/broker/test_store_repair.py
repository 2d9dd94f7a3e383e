# What was not stored is stored by tasks of the daemon, as long as it has any (broker/store_repair.py).
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio

from brokerd.broker.store_repair import StoreRepair


async def test_a_record_that_another_host_changes_while_brokerd_stops_ends_nothing() -> None:
    """The store of a fleet goes on until the last write, when the broker's tasks have ended."""
    nothing: Any = None
    async with trio.open_nursery() as exchanging:
        exchanging.cancel_scope.cancel()
    unstored: Any = SimpleNamespace(unstored=True)
    StoreRepair(exchanging, nothing, nothing, nothing, nothing, nothing).start_if_needed(unstored)
