# watch_status: pushes to a connection which grants have changed, of those that its caller may see, so that it asks for
# their status again. Changes are collected, and pushed at most once a second.
from __future__ import annotations

import trio

from brokerd.broker.broker import EVERY, TokenBroker
from brokerd.core.access.admission import LOOK
from brokerd.core.access.policy import Action
from brokerd.server.methods.parameters import MANY
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession, StatusWatch
from brokerd.telemetry.event_log import EventLog

CHANGED = "changed"  # the push
PAUSE = 1.0  # seconds between two pushes, at least


class StatusWatchMethod:
    """Pushes run in `nursery`, the daemon's."""

    def __init__(self, broker: TokenBroker, rights: Rights, nursery: trio.Nursery, events: EventLog) -> None:
        self._broker = broker
        self._rights = rights
        self._nursery = nursery
        self._events = events

    def watch_status(self, session: CallerSession, _params: object) -> dict[str, object]:
        if session.status_watch is None:
            session.status_watch = watch = StatusWatch()
            self._broker.watch(EVERY, watch.notice)
            self._nursery.start_soon(self._push, session, watch, name="watch_status")
        return {"pause": PAUSE}

    async def _push(self, session: CallerSession, watch: StatusWatch) -> None:
        """Until the connection has ended. A fault of ours ends nothing else."""
        with watch.scope:
            try:
                await self._push_changes(session, watch)
            except Exception:
                self._events.bug("push")

    async def _push_changes(self, session: CallerSession, watch: StatusWatch) -> None:
        while True:
            await watch.wake.wait()
            names = watch.take()
            session.account.charge(LOOK * len(names), trio.current_time())
            try:
                if not self._rights.up_to_date(session, [None]):
                    await self._rights.look(session, [None])
            except OSError:
                return  # the caller has ended
            seen = [name for name in names if self._rights.allows(session, Action.STATUS, name)]
            said = {"grants": seen[:MANY], "more": max(0, len(seen) - MANY)}
            if seen and not await session.notify(CHANGED, said):
                return
            await trio.sleep(max(PAUSE, session.account.delay(trio.current_time())))

    def end(self, session: CallerSession) -> None:
        """The connection has ended: nothing is pushed to it any more."""
        if session.status_watch is not None:
            self._broker.unwatch(EVERY, session.status_watch.notice)
            session.status_watch.scope.cancel()
