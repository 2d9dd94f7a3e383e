# Stores what the disk refused to take before: until that has worked, the newest tokens of a grant are in memory only
# (law 2).
from __future__ import annotations

import contextlib
from dataclasses import dataclass

import trio

from brokerd.broker.grant_registry import GrantRegistry
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.renewal_schedule import RenewalSchedule
from brokerd.core.events import Event
from brokerd.core.ports import Store, StoredRecord, StoreError
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics

FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0  # seconds between two tries


@dataclass(eq=False, repr=False)
class StoreRepair:
    """Tries again in a task in `nursery`, for as long as something is unstored."""

    _nursery: trio.Nursery
    _store: Store
    _registry: GrantRegistry
    _schedule: RenewalSchedule
    _events: EventLog
    _metrics: Metrics
    _is_running: bool = False

    def start_if_needed(self, grant: LiveGrant | None = None) -> None:
        """Begin to try again if the newest tokens of the grant are not stored; without one, if those of a grant that is
        not configured are not."""
        is_needed = bool(self._unconfigured()) if grant is None else grant.unstored
        has_ended = self._nursery.cancel_scope.cancel_called  # brokerd stops, and stores once more by itself
        if is_needed and not self._is_running and not has_ended:
            self._is_running = True
            self._nursery.start_soon(self._run, name="repair the store")

    async def store_again(self) -> None:
        """Try once to store what could not be stored yet."""
        unstored = [grant for grant in self._registry.all() if grant.unstored]
        async with trio.open_nursery() as nursery:
            for grant in unstored:
                nursery.start_soon(grant.change, self._store, lambda record: record)
            for kept in self._unconfigured():
                nursery.start_soon(self._store_kept, kept)
        for grant in unstored:
            if not grant.unstored:
                self._events.say(Event.STORED_AT_LAST, **grant.about)
                self._registry.release(grant)
                if self._registry.holds(grant):
                    self._schedule.plan_next(grant)

    def report_unstored(self) -> None:
        """At the end of the process: report what could not be stored, and whether the next process will have it."""
        for grant in self._registry.all():
            if grant.unstored:
                record = grant.record
                state, generation = str(record.state), record.generation
                event = Event.STATE_LOST
                if self._store.is_kept_here(grant.name, grant.fingerprint):
                    event = Event.STATE_KEPT_HERE
                elif self._store.is_kept_by_systemd(grant.name, grant.fingerprint):
                    event = Event.STATE_KEPT_BY_SYSTEMD
                self._events.say(event, **grant.about, state=state, generation=generation, stored=grant.stored)
        for kept in self._unconfigured():
            self._events.say(Event.STATE_KEPT_BY_SYSTEMD, grant=kept.grant, stored=kept.replaces)

    def _unconfigured(self) -> list[StoredRecord]:
        """What systemd keeps of grants that are not configured now, or whose secrets cannot be read."""
        here = {(grant.name, grant.fingerprint) for grant in self._registry.all()}
        return [each for each in self._store.kept() if (each.grant, each.fingerprint) not in here]

    async def _store_kept(self, kept: StoredRecord) -> None:
        with contextlib.suppress(StoreError):
            for each in await self._store.newest(kept.grant):
                if each.unstored and each.record and each.fingerprint == kept.fingerprint:
                    await self._store.write(each.record, each.fingerprint, each.replaces, concludes=False)

    async def _run(self) -> None:
        delay = FIRST_DELAY
        while self._unconfigured() or any(grant.unstored for grant in self._registry.all()):
            self._metrics.store_failures.inc()
            await trio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)
            await self.store_again()
        self._is_running = False
