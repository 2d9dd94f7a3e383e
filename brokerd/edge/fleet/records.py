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
from brokerd.edge.fleet.data_keys import BRING, MOST, FleetDataKeys
from brokerd.edge.fleet.local_copy import LocalCopy, Unsent
from brokerd.edge.fleet.shared import Conflict, Shared, Unknown

SUPERSEDED = -1  # instead of a revision: none that etcd has
EARLIER = 16  # writes that a record names, besides its own
AT_ONCE = 100  # records whose moments are dated again in one look
MISSING = (
    "etcd has no record of this grant any more, so nobody knows whether the token of this host was used since; a host "
    "that has a newer one brings it back; else log in again, or send it nevertheless: brokerctl adopt"
)
STRANGE = (
    "etcd: an exchange of this grant is noted under a data key that this host cannot open; give every host of the "
    "fleet the same [daemon] key"
)
SPOILT = (
    "etcd: the record of this grant is not in a form that this version knows, or somebody wrote it who has not the "
    "fleet's key; see who may write to etcd, delete that key there, and this host writes the record that it has"
)
UNKNOWN = (
    "etcd: the record of this grant seems to be sealed under a data key that this host does not know, and may be newer "
    f"than the one that it has; {BRING}; if none does, see who may write to etcd, delete that key there, and this host "
    "writes the record that it has"
)


NOT_KNOWN = -1  # instead of a revision


class FleetRecords:
    """`taken` is told of each record that others changed, and says whether the broker took it. `bases`: revisions of
    the records that the broker knows. `unsent`: what etcd could not be told yet. `missing`: records that this host has
    from an earlier process, and etcd has not: what etcd had last is not known.

    Many attributes: what etcd has, what the broker has and what this host keeps may differ, in each of these ways."""

    def __init__(self, shared: Shared, claims: Claims, data_keys: FleetDataKeys, copy: LocalCopy) -> None:
        self._shared = shared
        self._claims = claims
        self._data_keys = data_keys
        self._copy = copy
        self.taken: Callable[[StoredRecord], bool] = lambda _: False
        self.bases: dict[RecordPlace, int] = {}
        self.unsent: dict[RecordPlace, Unsent] = {}
        self.missing: set[RecordPlace] = set()
        self._newest: dict[RecordPlace, int] = {}  # the largest number that was seen of each record
        self._unknown: dict[RecordPlace, set[bytes]] = {}  # writes whose answer never came
        self._behind: set[RecordPlace] = set()  # the broker did not take the newest
        self._to_date: set[RecordPlace] = set()  # the broker may have the newest with moments that are dated badly
        self._conflicts: set[RecordPlace] = set()  # the broker takes over what it reads next
        self._overtaken: set[RecordPlace] = set()  # etcd has something newer than what it could not be told

    async def open(self) -> None:
        """Raises StoreError."""
        self.unsent |= await self._copy.unsent()
        for place, number in (await self._copy.numbers()).items():
            self._see(place, number)
        for place, unsent in self.unsent.items():
            self._behind.add(place)
            self.bases.setdefault(place, NOT_KNOWN)  # the broker may have it for stored
            if unsent.fence and self._claims.fence(place) is None:
                self._claims.restore(place, unsent.fence, unsent.write)

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
            place_of = self._shared.keys.place(key)
            if place_of is None or not self._data_keys.is_open:
                continue
            modified = self._shared.modified(key)  # before the row, because this runs in a thread
            if (value := self._shared.value(key, RecordValue)) is not None and value.is_gone:
                if place_of not in self.unsent:
                    found.pop(place_of, None)
                self.bases[place_of] = modified
                continue
            if ((known := found.get(place_of)) is None or not known.unstored) and (
                chosen := _newer(row := self.row(place_of), known, self._shared.clock.now())
            ):
                found[place_of] = chosen
                if row is None or row.damage is None:
                    self.bases[place_of] = modified
        return list(found.values())

    def look_for_missing(self) -> None:
        """At the start, once it is known what etcd has. What somebody deleted there may have been newer than what this
        host has: it is not sent (law 3)."""
        pairs, keys = self._shared.mirror.pairs, self._shared.keys
        self.missing = {place for place in self._newest.keys() - self.unsent.keys() if keys.record(place) not in pairs}

    def require_sound(self, place: RecordPlace) -> None:
        """Before the stored token is sent. Raises StoreUnavailable."""
        key = self._shared.keys.record(place)
        if key not in self._shared.mirror.pairs:
            if place in self.missing:
                raise StoreUnavailable(MISSING)
        elif self._is_spoilt(place):
            raise StoreUnavailable(self._what_is_there(place))
        keys, pairs = self._shared.keys, self._shared.mirror.pairs
        for pair in (pairs.get(keys.journal(place)), pairs.get(keys.claim(place))):
            if pair is not None and self._data_keys.is_strange(pair):
                raise StoreUnavailable(STRANGE)

    async def read(self, grant: str, *, takes: bool) -> list[StoredRecord]:
        """As etcd has them now. `takes`: the broker has none of them yet. Raises StoreUnavailable."""
        shared, keys = self._shared, self._shared.keys
        prefix = keys.records(grant)
        try:
            found = await shared.etcd.read_prefix(prefix)
            known = [key for key in shared.mirror.pairs if key.startswith(prefix)]
            places = {place for key in (*found.pairs, *known) if (place := keys.place(key)) is not None}
            places |= {place for place in self._conflicts if place.grant == grant}
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
        return [row for row in rows.values() if row is not None and (row.record or row.damage)]

    def row(self, place: RecordPlace) -> StoredRecord | None:
        """The record as the mirror has it, in this host's terms; without one: an operator deleted it. None: it is not
        there, or an older one was put back."""
        key = self._shared.keys.record(place)
        value = self._shared.value(key, RecordValue)
        if value is not None and value.number < self._newest.get(place, 0):
            return None
        if value is None:
            words = "it is not in a form that this version knows"
            return StoredRecord(*place, None, None, words) if key in self._shared.mirror.pairs else None
        if value.is_gone:
            self._see(place, value.number)
            return StoredRecord(*place, None, None)
        try:
            record = self._data_keys.unseal(value.sealed, place, value.generation)
        except (EnvelopeError, msgspec.DecodeError) as error:
            words = str(error) if isinstance(error, EnvelopeError) else "it is not in a form that this version knows"
            return StoredRecord(*place, None, None, words, history=value.history)
        record = self._shared.in_our_terms(key, value, record)
        record = reopened(record, interrupted=self._claims.interrupted(place, value))
        self._see(place, value.number)
        return StoredRecord(*place, record, None, history=value.history)

    def _see(self, place: RecordPlace, number: int) -> None:
        self._newest[place] = max(number, self._newest.get(place, 0))

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
            if self._is_spoilt(place):
                await self._keep(place, record, history, base)
                raise StoreUnavailable(self._what_is_there(place)) from None
            raise ChangedElsewhere(f"{record.name}: {conflict}") from None
        except (StoreUnavailable, LeaseGone) as error:
            await self._keep(place, record, history, base)
            raise StoreUnavailable(str(error)) from None
        self.bases[place] = revision
        self._unknown.pop(place, None)
        self._claims.settle(place)
        if self.unsent.pop(place, None) is not None:
            with contextlib.suppress(StoreError):
                await self._copy.sent(place)
        self._copy.put(place, record, history, self._newest[place])

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
            value = self._sealed(place, record, history, write)
            expected, changes = {key: base}, dict[bytes, Put | None]({key: shared.put(key, value)})
            if concludes:
                expected |= self._claims.expected(place)
                changes |= self._claims.changes(place, record.generation)
            try:
                revision = await shared.transact(expected, changes, lambda found: self._own(found.get(key), {write}))
                self._see(place, value.number)
                return revision
            except Unknown:
                unknown.add(write)
                raise
            except Conflict as conflict:
                if _was_written(shared.opened(conflict.found.get(key), RecordValue), {write, *unknown}):
                    self._behind.add(place)
                    return SUPERSEDED
                if not (base := self._own(conflict.found.get(key), unknown)):
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
            after=self._shared.mirror.newest(),
            generation=record.generation,
            sealed=sealed,
            number=self._newest.get(place, 0) + 1,
            history=history,
            write=write,
            before=() if last is None else (last.write, *last.before)[:EARLIER],
            **self._shared.signed(),
        )

    async def _keep(self, place: RecordPlace, record: Record, history: bytes, base: int) -> None:
        """etcd cannot be told now: this host's own store has it until then. Raises StoreUnavailable."""
        fence = self._claims.fence(place)
        is_open = fence is not None and fence.sends_stored and fence.has_outcome
        row, write = (fence.revision, fence.write) if fence is not None and is_open else (0, b"")
        unsent = Unsent(place, base, row, record.generation, write, self._newest.get(place, 0))
        self.unsent[place] = unsent
        await self._copy.keep_unsent(unsent, record, history)

    async def forget(self, place: RecordPlace) -> None:
        """An operator deletes it. Raises Conflict, LeaseGone, StoreError."""
        shared, key, row = self._shared, self._shared.keys.record(place), self._shared.keys.journal(place)
        number = self._newest.get(place, 0) + 1
        gone = RecordValue(generation=0, sealed=b"", number=number, is_gone=True, **shared.signed())
        put = shared.put(key, gone)
        there = shared.modified(key)
        self.bases[place] = await shared.transact({key: there}, {key: put, row: None}, lambda _: 0)
        self._see(place, number)
        self.unsent.pop(place, None)
        self._claims.settle(place)
        self._copy.put(place, None, b"", number)

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
        row = self.row(place) or StoredRecord(*place, None, None, unstored=True)
        if row.damage is not None:
            return True
        if not self.taken(row):
            return False
        self.bases[place] = modified
        unsent = self.unsent.get(place)
        if unsent is not None and row.record is not None and row.record.generation >= unsent.generation:
            self._overtake(place)
        elif unsent is None and not row.unstored:
            self._copy.put(place, row.record, row.history, self._newest[place])
        return True

    def _overtake(self, place: RecordPlace) -> None:
        """What etcd has counts, and not what it could not be told."""
        self.unsent.pop(place, None)
        self._claims.settle(place)
        if (row := self.row(place)) is not None and row.record is not None:
            self._copy.put(place, row.record, row.history, self._newest[place])

    def _is_spoilt(self, place: RecordPlace) -> bool:
        """Whether etcd has something in the record's place that no host wrote."""
        key = self._shared.keys.record(place)
        return key in self._shared.mirror.pairs and self._shared.value(key, RecordValue) is None

    def _what_is_there(self, place: RecordPlace) -> str:
        """Of a record that is spoilt."""
        pair = self._shared.mirror.pairs.get(self._shared.keys.record(place))
        return UNKNOWN if pair is not None and self._data_keys.is_strange(pair) else SPOILT

    def _own(self, pair: Pair | None, writes: set[bytes]) -> int:
        """The revision of a record that one of these writes made; 0: it is another's."""
        value = self._shared.opened(pair, RecordValue)
        return pair.modified if pair is not None and value is not None and value.write in writes else 0


def _newer(theirs: StoredRecord | None, ours: StoredRecord | None, now: Moment) -> StoredRecord | None:
    """What etcd has, unless this host has something better: whoever can write to etcd must not bring an old token
    back, or take a login away. `theirs`: None if it was put back."""
    if ours is None or ours.record is None:
        return theirs
    if theirs is None:
        return replace(ours, unstored=True, replaces=None)
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


def _was_written(value: RecordValue | None, writes: set[bytes]) -> bool:
    """Whether one of these writes made a record that this one replaced."""
    return value is not None and not writes.isdisjoint(value.before)
