# The Store port for a fleet: etcd has the records, the host's own SQLite store a sealed copy of them, and what is the
# host's alone. What etcd cannot be told stays there until it can (law 2).
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import trio

from brokerd.core.audit.chain import Memory
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.fleet.etcd import ABSENT, LeaseGone, Put
from brokerd.core.fleet.layout import BreakerValue, RecordPlace
from brokerd.core.fleet.view import EtcdState, FleetNumbers, FleetView
from brokerd.core.grant.record import Record
from brokerd.core.ports import Awaits, HeldElsewhere, NotNow, StoredRecord, StoreError, StoreUnavailable
from brokerd.core.timing.breaker import Breaker
from brokerd.core.timing.moment import Moment
from brokerd.edge.fleet import breakers, views
from brokerd.edge.fleet.claims import Claims
from brokerd.edge.fleet.lease import HostLease
from brokerd.edge.fleet.local_copy import LocalCopy
from brokerd.edge.fleet.membership import Membership
from brokerd.edge.fleet.records import FleetRecords
from brokerd.edge.fleet.shared import Conflict, Shared
from brokerd.edge.fleet.turns import RenewalTurns
from brokerd.edge.store.sealed_record import open_row
from brokerd.edge.store.store import SqliteStore

JOIN_WITHIN = 5.0  # seconds that a start waits for etcd; after that it serves what it has
LOOK = 1.0  # seconds between two looks for what has to be done again


class FleetStore:
    """core/ports.py describes most methods. `breaker_changed` is told of a provider's breaker that another host
    changed; `noticed` is called when `trouble` or `adopted` may have changed. `local.run` must run. `offline`: for how
    many seconds it serves while etcd is away; None: for ever.

    Many attributes: it joins the parts of the store."""

    def __init__(self, local: SqliteStore, shared: Shared, offline: float | None = None) -> None:
        self.local = local
        self.shared = shared
        self.fleet_name, self.host = shared.me.fleet, shared.me.host
        self._offline = offline
        self.lease = HostLease(shared.etcd, shared.clock)
        self._copy = LocalCopy(local)
        self.membership = Membership(shared, self.lease, shared.data_keys, self._copy)
        self.claims = Claims(shared, self.lease)
        self.records = FleetRecords(shared, self.claims, shared.data_keys, self._copy)
        self.breaker_changed: Callable[[str, Breaker], None] = lambda *_: None
        self.noticed: Callable[[], None] = lambda: None
        self.turns = RenewalTurns(shared)
        self._is_open, self._opening = False, trio.Lock()
        self.cut_off = False  # etcd has been away for longer than the configuration permits
        self.began = shared.clock.now().boot
        shared.mirror.changed = self._changed
        shared.mirror.moved, shared.mirror.put_back = self._moved, self.membership.put_back
        shared.unusable = self.membership.unusable
        self._copy.seen = self.membership.seen
        self.membership.noticed = lambda: self.noticed()

    # -- state

    @property
    def adopted(self) -> bool:
        return self.local.adopted and self.membership.adopted

    @property
    def misses(self) -> bool:
        return bool(self.records.missing)

    @property
    def trouble(self) -> str | None:
        shared = self.shared
        away = shared.mirror.away or self.membership.trouble or (shared.refused if shared.full else None)
        return self.local.trouble or (f"etcd: {away}" if away else None)

    @property
    def since(self) -> float | None:
        if self.local.trouble:
            return self.local.since
        now, reached = self.shared.clock.now(), self.shared.mirror.reached
        return None if self.trouble is None or reached == float("-inf") else round(now.wall - now.boot + reached, 2)

    @property
    def serves_until(self) -> float:
        """The CLOCK_BOOTTIME from which on nothing is served, unless etcd answers before."""
        if self._offline is None:
            return float("inf")
        return max(self.shared.mirror.reached, self.began) + self._offline

    @property
    def resealing_since(self) -> float | None:
        return self.local.resealing_since

    # -- the life of the process

    async def run(self) -> None:
        """Follow etcd, and keep this host's lease."""
        async with trio.open_nursery() as nursery:
            for each in (self._copy.run, self.shared.mirror.run, self.membership.run, self._again):
                nursery.start_soon(each)

    async def joined(self, within: float = JOIN_WITHIN) -> None:
        """Wait until the fleet's records are there, for a while. Raises StoreError if a person must change
        something."""
        with trio.move_on_after(within):
            await self.shared.mirror.there.wait()
            await self._open()
            if self._is_open:
                await self._bring()
                await self.membership.joined.wait()

    async def _again(self) -> None:
        """What could not be done when it was due."""
        while True:
            await trio.sleep(LOOK)
            try:
                if not self._is_open and self.shared.mirror.away is None:
                    await self._open()
                await self._bring()
                await self._tidy()
            except StoreUnavailable:
                continue
            except StoreError as error:
                self.membership.says(str(error))
                continue
            if self._is_open:
                self.records.deliver(set())
                self.records.date_again(self.shared.to_date_again())
            self.noticed()

    async def _open(self) -> None:
        """Raises StoreError."""
        async with self._opening:
            if self._is_open or (kek := self.local.keys.kek) is None:
                return
            was_here = await self.membership.open(kek)
            await self.records.open()
            self._is_open, self.membership.is_complete = True, was_here
            if was_here:
                self.records.look_for_missing()
            self._changed(set(self.shared.mirror.pairs))
            if was_here and self.membership.known is not None:
                await self._copy.remember(self.membership.known)

    async def _bring(self) -> None:
        """A host that was not in the fleet brings the records that the fleet has not got. Raises StoreError."""
        async with self._opening:
            if not self._is_open or self.membership.is_complete:
                return
            keys = self.local.keys
            stored = await self.local.do(lambda database: [open_row(keys, row) for row in database.each_row()])
            for each in stored:
                if each.record is not None:
                    place = RecordPlace(each.grant, each.fingerprint)
                    await self.records.bring(place, each.record, each.history)
            self.membership.is_complete = True
            if self.membership.known is not None:
                await self._copy.remember(self.membership.known)

    # -- records

    def all(self) -> list[StoredRecord]:
        """Every record. Blocking."""
        return self.records.all(self.local.all())

    async def read(self, grant: str) -> list[StoredRecord]:
        return await self.records.read(grant, takes=False)

    async def newest(self, grant: str) -> list[StoredRecord]:
        if self.shared.mirror.away is not None or not self._is_open:
            return await self.local.newest(grant)
        return await self.records.read(grant, takes=True)

    async def write(
        self, record: Record, fingerprint: str, replaces: int | None, *, concludes: bool, history: bytes = b""
    ) -> None:
        """Over the very record that the broker knows, whatever it says that this `replaces`."""
        del replaces
        await self.records.write(RecordPlace(record.name, fingerprint), record, history, concludes=concludes)

    async def forget(self, grant: str, fingerprint: str | None = None) -> int:
        rows = [row for row in await self.records.read(grant, takes=False) if fingerprint in (None, row.fingerprint)]
        for row in rows:
            place = RecordPlace(row.grant, row.fingerprint)
            self.claims.rows.forget(place)
            try:
                await self.records.forget(place)
            except (Conflict, LeaseGone) as error:
                raise StoreUnavailable(f"{grant}: {error}") from None
        return max(len(rows), await self.local.forget(grant, fingerprint))

    async def dormant(self) -> Iterable[StoredRecord]:
        """None: another host may have the grant in its configuration."""
        return ()

    async def set_dormant(self, records: Iterable[tuple[str, str]], since: float | None) -> None:
        """Nothing: see `dormant`."""

    # -- exchanges

    async def begin(self, grant: str, fingerprint: str, generation: int, at: Moment, awaits: Awaits) -> None:
        place = RecordPlace(grant, fingerprint)
        try:
            self.records.require_sound(place)
            await self.claims.begin(place, self._base(place), at, generation, awaits)
        except HeldElsewhere:
            raise
        except StoreUnavailable as error:
            raise NotNow(str(error)) from None

    async def claim(self, grant: str, fingerprint: str, at: Moment) -> None:
        place = RecordPlace(grant, fingerprint)
        await self.claims.begin(place, self._base(place), at)

    def _base(self, place: RecordPlace) -> int:
        """The revision of the record that the exchange begins with. Raises StoreUnavailable."""
        if not self._is_open:
            raise StoreUnavailable(self.trouble or "etcd: the fleet's records were not read yet")
        self._require_adopted()
        return self.records.bases.get(place, ABSENT)

    def _require_adopted(self) -> None:
        if not self.adopted:
            raise NotNow("etcd was put back to an older state; to use it as it is: brokerctl adopt")

    def last_look(self, grant: str, fingerprint: str) -> None:
        self._require_adopted()
        self.claims.last_look(RecordPlace(grant, fingerprint))

    async def end(self, grant: str, fingerprint: str, *, unstored: bool) -> None:
        await self.claims.end(RecordPlace(grant, fingerprint), unstored=unstored)

    async def until_free(self, grant: str, fingerprint: str) -> None:
        await self.claims.until_free(RecordPlace(grant, fingerprint))

    def patience(self, grant: str, fingerprint: str, left: float | None) -> float:
        place = RecordPlace(grant, fingerprint)
        return self.turns.patience(place, self.records.bases.get(place, ABSENT), left)

    # -- what others change

    def _changed(self, keys: set[bytes]) -> None:
        shared, places = self.shared, set[RecordPlace]()
        shared.note(keys)
        self.claims.note(keys)
        for key in keys:
            kind, names = shared.keys.kind(key)
            if (place := shared.keys.place(key)) is not None:
                places.add(place)
            elif kind == "breaker":
                value = shared.value(key, BreakerValue)
                if value is not None and not shared.is_this_host(value):
                    self.breaker_changed(names[0], shared.in_our_terms(key, value, value.breaker))
            elif kind == "member":
                self.turns.note_members()
            elif kind == "meta" and self._is_open:
                self.membership.check()
            elif kind == "key" and self._is_open and self._reopened():
                places |= {place for each in shared.mirror.pairs if (place := shared.keys.place(each)) is not None}
        if self._is_open:
            self.records.deliver(places)

    def _reopened(self) -> bool:
        """A data key is new, or wrapped by another key. False: by one that this host has not got yet."""
        with contextlib.suppress(StoreError):
            self.membership.reopen()
            return True
        return False

    async def _tidy(self) -> None:
        """Delete claims of this process that it does not use, with their journal rows: nothing was sent, or its outcome
        counts no more. Raises StoreError."""
        shared = self.shared
        for key in self.claims.unneeded():
            if (place := shared.keys.place(key)) is None:
                continue
            row = shared.keys.journal(place)
            expected, changes = {key: shared.modified(key)}, dict[bytes, Put | None]({key: None})
            if shared.modified(row) == shared.modified(key):  # of the same transaction
                expected[row], changes[row] = shared.modified(row), self.claims.without_exchange(place)
            with contextlib.suppress(Conflict, LeaseGone):
                await shared.transact(expected, changes, lambda _: 0)
        await self.claims.rows.put_back()

    def _moved(self) -> None:
        if self._is_open:
            self.membership.check()
        self.noticed()

    # -- what people see: core/fleet/view.py

    async def fleet(self) -> FleetView:
        return views.fleet(self)

    def etcd_state(self) -> EtcdState:
        return views.etcd_state(self)

    def numbers(self) -> FleetNumbers:
        return views.numbers(self)

    def renewer(self, grant: str) -> str | None:
        return self.turns.first(grant)

    def own_trouble(self) -> tuple[str | None, float | None]:
        return self.local.trouble, self.local.since

    # -- providers

    async def write_breaker(self, provider: str, breaker: Breaker) -> None:
        await self.local.write_breaker(provider, breaker)

    async def share_breaker(self, provider: str, breaker: Breaker) -> None:
        await breakers.write(self.shared, provider, breaker)

    async def write_metadata(self, provider: str, metadata: Metadata) -> None:
        await self.local.write_metadata(provider, metadata)

    async def audit_memory(self) -> Memory:
        return await self.local.audit_memory()

    def breakers(self) -> dict[str, Breaker]:
        return self.local.breakers() | breakers.known(self.shared)

    def metadata(self) -> dict[str, Metadata]:
        return self.local.metadata()

    def kept(self) -> Iterable[StoredRecord]:
        return self.local.kept()

    def is_kept_here(self, grant: str, fingerprint: str) -> bool:
        return RecordPlace(grant, fingerprint) in self.records.unsent

    def is_kept_by_systemd(self, grant: str, fingerprint: str) -> bool:
        return self.local.is_kept_by_systemd(grant, fingerprint)

    async def adopt(self) -> None:
        if not self.local.adopted:
            await self.local.adopt()
        try:
            await self.membership.adopt()
            self.records.missing.clear()
        except (Conflict, LeaseGone) as error:
            raise StoreUnavailable(f"etcd: {error}") from None

    # -- keys

    @property
    def is_locked(self) -> bool:
        return self.local.is_locked

    @property
    def passphrase(self) -> str:
        return self.local.passphrase

    def is_in_use(self, kek: bytes) -> bool:
        return self.local.is_in_use(kek)

    async def lock(self) -> None:
        await self.local.lock()
        self._is_open = False
        self.membership.lock()

    async def unlock(self, kek: bytes, passphrase: str = "") -> None:
        await self.local.unlock(kek, passphrase)
        try:
            await self.joined()
        except StoreError:
            await self.lock()
            raise

    async def rewrap(self, kek: bytes, passphrase: str = "") -> None:
        try:
            await self.membership.rewrap(kek)
        except LeaseGone as error:
            raise StoreUnavailable(f"etcd: {error}") from None
        await self.local.rewrap(kek, passphrase)
        self._changed(set(self.shared.mirror.pairs))  # other hosts may have sealed under keys that were not known here

    async def reencrypt(self, *, goes_on: bool = False) -> tuple[int, int]:
        return await self.local.reencrypt(goes_on=goes_on)

    async def snapshot(self) -> bytes:
        return await self.local.snapshot()
