# The records of a fleet's grants: read from the mirror in this host's terms, written over the very record that the
# broker knows, and given to the broker when others change them.
from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec
from msgspec import structs

from brokerd.core.fleet.etcd import ABSENT, EtcdError, LeaseGone, Pair, Put
from brokerd.core.fleet.layout import RecordPlace, RecordValue
from brokerd.core.grant.attempts import reopened
from brokerd.core.grant.record import Record
from brokerd.core.ports import ChangedElsewhere, StoredRecord, StoreError, StoreUnavailable
from brokerd.core.sealing import EnvelopeError
from brokerd.core.timing.moment import Moment, seconds_until
from brokerd.edge.fleet.claims import Claims
from brokerd.edge.fleet.data_keys import MOST, FleetDataKeys
from brokerd.edge.fleet.local_copy import LocalCopy, Unsent
from brokerd.edge.fleet.shared import Conflict, Shared, Unknown

SUPERSEDED = -1  # instead of a revision: none that etcd has
EARLIER = 16  # writes that a record names, besides its own
AT_ONCE = 100  # records whose moments are dated again in one look


NOT_KNOWN = -1  # instead of a revision


class FleetRecords:
    """`taken` is told of each record that others changed, and says whether the broker took it. `bases`: revisions of
    the records that the broker knows. `unsent`: what etcd could not be told yet."""

    def __init__(self, shared: Shared, claims: Claims, data_keys: FleetDataKeys, copy: LocalCopy) -> None:
        self._shared = shared
        self._claims = claims
        self._data_keys = data_keys
        self._copy = copy
        self.taken: Callable[[StoredRecord], bool] = lambda _: False
        self.bases: dict[RecordPlace, int] = {}
        self.unsent: dict[RecordPlace, Unsent] = {}
        self._unknown: dict[RecordPlace, set[bytes]] = {}  # writes whose answer never came
        self._behind: set[RecordPlace] = set()  # the broker did not take the newest
        self._to_date: set[RecordPlace] = set()  # the broker may have the newest with moments that are dated badly
        self._conflicts: set[RecordPlace] = set()  # the broker takes over what it reads next
        self._overtaken: set[RecordPlace] = set()  # etcd has something newer than what it could not be told

    async def open(self) -> None:
        """Raises StoreError."""
        self.unsent |= await self._copy.unsent()
        for place, unsent in self.unsent.items():
            self._behind.add(place)
            self.bases.setdefault(place, NOT_KNOWN)  # the broker may have it for stored
            if unsent.fence and self._claims.fence(place) is None:
                self._claims.restore(place, unsent.fence)

    # -- reading

    def all(self, local: list[StoredRecord]) -> list[StoredRecord]:
        """Every record: the fleet's, else what this host has of it."""
        found = {RecordPlace(each.grant, each.fingerprint): each for each in local}
        for place, unsent in list(self.unsent.items()):
            stored, replaces = found.get(place), self._generation(place)
            record = None if stored is None else stored.record
            if stored is not None and record is not None and (replaces is None or replaces < record.generation):
                found[place] = replace(stored, unstored=True, replaces=replaces)
                self.bases[place] = unsent.based_on
            else:
                self._overtaken.add(place)
        prefix = self._shared.keys.root + b"record/"
        for key in [key for key in list(self._shared.mirror.pairs) if key.startswith(prefix)]:
            if (place_of := self._shared.keys.place(key)) is None:
                continue
            modified = self._shared.modified(key)  # before the row, because this runs in a thread
            if ((known := found.get(place_of)) is None or not known.unstored) and (row := self.row(place_of)):
                found[place_of] = _newer(row, known, self._shared.clock.now())
                if row.damage is None:
                    self.bases[place_of] = modified
        return list(found.values())

    async def read(self, grant: str, *, takes: bool) -> list[StoredRecord]:
        """As etcd has them now. `takes`: the broker has none of them yet. Raises StoreUnavailable."""
        shared, keys = self._shared, self._shared.keys
        prefix = keys.records(grant)
        try:
            found = await shared.etcd.read_prefix(prefix)
            known = [key for key in shared.mirror.pairs if key.startswith(prefix)]
            places = {place for key in (*found.pairs, *known) if (place := keys.place(key)) is not None}
            wanted = [make(place) for place in places for make in (keys.record, keys.journal, keys.claim)]
            if wanted:
                now = await shared.etcd.read(wanted)
                shared.mirror.fold({key: now.pairs.get(key) for key in wanted}, now.revision)
        except EtcdError as error:
            raise StoreUnavailable(f"etcd: {error}") from None
        rows = {place: self.row(place) for place in places}
        # What cannot be opened here may be of a later release: it is not overwritten.
        sound = [place for place, row in rows.items() if row is None or row.damage is None]
        sound = [place for place in sound if takes or place in self._conflicts or place not in self.bases]
        self._conflicts.difference_update(sound)
        self.bases |= {place: shared.modified(keys.record(place)) for place in sound}
        return [row for row in rows.values() if row is not None]

    def row(self, place: RecordPlace) -> StoredRecord | None:
        """The record as the mirror has it, in this host's terms."""
        key = self._shared.keys.record(place)
        value = self._shared.value(key, RecordValue)
        if value is None:
            words = "it is not in a form that this version knows"
            return StoredRecord(*place, None, None, words) if key in self._shared.mirror.pairs else None
        try:
            record = self._data_keys.unseal(value.sealed, place, value.generation)
        except (EnvelopeError, msgspec.DecodeError) as error:
            words = str(error) if isinstance(error, EnvelopeError) else "it is not in a form that this version knows"
            return StoredRecord(*place, None, None, words, history=value.history)
        record = self._shared.in_our_terms(key, value, record)
        record = reopened(record, interrupted=self._claims.interrupted(place, value))
        return StoredRecord(*place, record, None, history=value.history)

    def _generation(self, place: RecordPlace) -> int | None:
        value = self._shared.value(self._shared.keys.record(place), RecordValue)
        return None if value is None else value.generation

    # -- writing

    async def write(self, place: RecordPlace, record: Record, history: bytes, *, concludes: bool) -> None:
        """Raises ChangedElsewhere, StoreUnavailable: then this host's own store has it."""
        base, fence = self.bases.get(place, ABSENT), self._claims.fence(place)
        if fence is not None and concludes:
            fence.has_outcome = True
        try:
            revision = await self._write(place, record, history, base)
        except Conflict as conflict:
            self._conflicts.add(place)
            raise ChangedElsewhere(f"{record.name}: {conflict}") from None
        except (StoreUnavailable, LeaseGone) as error:
            await self._keep(place, record, history, base)
            raise StoreUnavailable(str(error)) from None
        self.bases[place] = revision
        self._unknown.pop(place, None)
        if fence is not None and fence.has_outcome:
            self._claims.ended(place)
        if self.unsent.pop(place, None) is not None:
            with contextlib.suppress(StoreError):
                await self._copy.sent(place)
        self._copy.put(place, record, history)

    async def bring(self, place: RecordPlace, record: Record, history: bytes) -> None:
        """What this host has, if the fleet has nothing of it. Raises StoreUnavailable."""
        if self._shared.keys.record(place) not in self._shared.mirror.pairs:
            with contextlib.suppress(Conflict):  # another host was first
                self.bases[place] = await self._write(place, record, history, ABSENT)

    async def _write(self, place: RecordPlace, record: Record, history: bytes, base: int) -> int:
        """Returns the revision; SUPERSEDED: it was written, and another host has written since. Raises Conflict,
        LeaseGone, StoreUnavailable."""
        shared, key, write = self._shared, self._shared.keys.record(place), self._shared.new_write()
        fence = self._claims.fence(place)
        concludes = fence is not None and fence.has_outcome
        unknown = self._unknown.setdefault(place, set())
        for _ in range(2):
            put = Put(self._sealed(place, record, history, write).encoded())
            expected, changes = {key: base}, dict[bytes, Put | None]({key: put})
            if concludes:
                expected |= self._claims.expected(place)
                changes |= self._claims.changes(place, record.generation)
            try:
                return await shared.transact(expected, changes, lambda found: _written(found.get(key), {write}))
            except Unknown:
                unknown.add(write)
                raise
            except Conflict as conflict:
                if _was_written(conflict.found.get(key), {write, *unknown}):
                    self._behind.add(place)
                    return SUPERSEDED
                if not (base := _written(conflict.found.get(key), unknown)):
                    raise
                # An earlier write of ours was carried out. What it concluded is another host's now.
                concludes = concludes and fence is not None and self._shared.modified(fence.key) == fence.revision
        raise StoreUnavailable("etcd: the record changes each time it is written")

    def _sealed(self, place: RecordPlace, record: Record, history: bytes, write: bytes) -> RecordValue:
        sealed = self._data_keys.seal(record, place)
        if len(sealed) > MOST:  # tokens that were replaced are only remembered for a revocation
            sealed = self._data_keys.seal(replace(record, superseded=()), place)
        last = self._shared.value(self._shared.keys.record(place), RecordValue)
        return RecordValue(
            host=self._shared.me.host,
            machine=self._shared.me.machine,
            written=self._shared.clock.now(),
            after=self._shared.mirror.newest(),
            generation=record.generation,
            sealed=sealed,
            history=history,
            write=write,
            before=() if last is None else (last.write, *last.before)[:EARLIER],
        )

    async def _keep(self, place: RecordPlace, record: Record, history: bytes, base: int) -> None:
        """etcd cannot be told now: this host's own store has it until then. Raises StoreUnavailable."""
        fence = self._claims.fence(place)
        row = fence.revision if fence is not None and fence.sends_stored and fence.has_outcome else 0
        self.unsent[place] = unsent = Unsent(place, base, row, record.generation)
        await self._copy.keep_unsent(unsent, record, history)

    def forget(self, place: RecordPlace) -> None:
        """It was deleted."""
        self.bases.pop(place, None)
        self.unsent.pop(place, None)
        self._claims.ended(place)
        self._copy.put(place, None, b"")

    # -- what others change

    def deliver(self, places: set[RecordPlace]) -> None:
        """Give the broker the records that others changed, or whose exchange was interrupted elsewhere."""
        while self._overtaken:
            self._overtake(self._overtaken.pop())
        self._behind |= places
        for place in tuple(self._behind):
            if self._deliver(place):
                self._behind.discard(place)

    def date_again(self, keys: Iterable[bytes]) -> None:
        """Give the broker the records in these keys again, some in each call: their moments are known better."""
        keys_of = self._shared.keys
        self._to_date |= {
            place for key in keys if keys_of.kind(key)[0] == "record" and (place := keys_of.place(key)) is not None
        }
        for _ in range(min(AT_ONCE, len(self._to_date))):
            place = self._to_date.pop()
            is_known = self._shared.modified(keys_of.record(place)) == self.bases.get(place)
            if is_known and place not in self.unsent and not self._give(place):
                self._to_date.add(place)

    def _deliver(self, place: RecordPlace) -> bool:
        """False: it must be given again."""
        key = self._shared.keys.record(place)
        modified, value = self._shared.modified(key), self._shared.value(key, RecordValue)
        if modified == self.bases.get(place, ABSENT) and (
            value is None or self._claims.interrupted(place, value) is None
        ):
            return True
        return self._give(place)

    def _give(self, place: RecordPlace) -> bool:
        modified = self._shared.modified(self._shared.keys.record(place))
        row = self.row(place) or StoredRecord(*place, None, None, unstored=place in self.unsent)
        if row.damage is not None:
            return True
        if not self.taken(row):
            return False
        self.bases[place] = modified
        unsent = self.unsent.get(place)
        if unsent is not None and row.record is not None and row.record.generation >= unsent.generation:
            self._overtake(place)
        elif unsent is None:
            self._copy.put(place, row.record, row.history)
        return True

    def _overtake(self, place: RecordPlace) -> None:
        """What etcd has counts, and not what it could not be told."""
        self.unsent.pop(place, None)
        self._claims.ended(place)
        if (row := self.row(place)) is not None and row.damage is None:
            self._copy.put(place, row.record, row.history)


def _newer(theirs: StoredRecord, ours: StoredRecord | None, now: Moment) -> StoredRecord:
    """What etcd has, unless this host has something better: whoever can write to etcd must not bring an old token
    back, or take a login away."""
    if ours is None or ours.record is None:
        return theirs
    if theirs.record is None:
        return ours
    if theirs.record.generation < ours.record.generation:
        return replace(ours, unstored=True, replaces=theirs.record.generation)
    return replace(theirs, record=_dated(theirs.record, ours.record, now))


def _dated(theirs: Record, ours: Record, now: Moment) -> Record:
    """Before it was started again, this host may have known better how old the token of another host is at most."""
    token, known = theirs.access_token, ours.access_token
    if token is None or known is None or token.value != known.value or known.issued.boot_id != now.boot_id:
        return theirs
    if seconds_until(known.issued, now) <= seconds_until(token.issued, now):
        return theirs
    return replace(theirs, access_token=structs.replace(token, issued=known.issued))


def _was_written(pair: Pair | None, writes: set[bytes]) -> bool:
    """Whether one of these writes made a record that this one replaced."""
    value = None if pair is None else RecordValue.decoded(pair.value)
    return value is not None and not writes.isdisjoint(value.before)


def _written(pair: Pair | None, writes: set[bytes]) -> int:
    """The revision of a record that one of these writes made; 0: it is another's."""
    value = None if pair is None else RecordValue.decoded(pair.value)
    return pair.modified if pair is not None and value is not None and value.write in writes else 0
