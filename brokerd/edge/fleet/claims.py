# Who has a grant's one exchange (law 1), and whether a stored token may be sent now (laws 2 and 3): one transaction
# puts the claim and the journal row. Claims end with their host's lease; journal rows have none.
from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import trio

from brokerd.core.fleet.etcd import LeaseGone, Pair, Put
from brokerd.core.fleet.layout import ClaimValue, JournalValue, RecordPlace, RecordValue
from brokerd.core.ports import Awaits, HeldElsewhere, NotNow, StoreUnavailable
from brokerd.core.timing.moment import Moment
from brokerd.edge.fleet.lease import LIFE, HostLease
from brokerd.edge.fleet.open_rows import OpenRows
from brokerd.edge.fleet.shared import Conflict, Shared, Unknown

LONGEST_ANSWER = 2 * 3_600.0  # seconds; more cannot be configured
PAUSE = 1.0  # seconds before a claim is tried again that another host does not have any more


@dataclass(eq=False, slots=True)
class Fence:
    """What this process has of a grant. `key`: of the journal row, or of the claim where nothing is spent; nobody else
    has taken over while that is as it was in `revision`. `has_outcome`: the exchange has ended, and its outcome is to
    be written. `lease`: 0 if an earlier process had it. `write`: what row and claim say."""

    key: bytes
    revision: int
    write: bytes
    lease: int
    sends_stored: bool
    has_outcome: bool = False


class Claims:
    def __init__(self, shared: Shared, lease: HostLease) -> None:
        self._shared = shared
        self._lease = lease
        self._fences: dict[RecordPlace, Fence] = {}
        self._pending: set[bytes] = set()  # writes of claims whose answer is waited for
        self._abandoned: set[bytes] = set()  # and those whose answer never came
        self._orphans: dict[bytes, float] = {}  # journal rows without a claim: CLOCK_BOOTTIME when that was first seen
        self._own: set[bytes] = set()  # claims of this process that etcd has, or had
        self._freed: dict[RecordPlace, trio.Event] = {}
        self.rows = OpenRows(shared)

    def fence(self, place: RecordPlace) -> Fence | None:
        return self._fences.get(place)

    def restore(self, place: RecordPlace, revision: int, write: bytes) -> None:
        """An earlier process ended an exchange in that row, and its outcome is still to be written."""
        key = self._shared.keys.journal(place)
        self._fences[place] = Fence(key, revision, write, 0, sends_stored=True, has_outcome=True)

    async def begin(
        self, place: RecordPlace, record: int, at: Moment, generation: int = 0, awaits: Awaits | None = None
    ) -> None:
        """`record`: the revision of the record that the exchange begins with. `awaits`: None if it sends no stored
        token. Raises HeldElsewhere, StoreUnavailable."""
        shared, keys = self._shared, self._shared.keys
        claim_key, row_key, number = keys.claim(place), keys.journal(place), self._lease.number
        self._require_free(place)
        if awaits is not None and awaits.patient:
            self._require_no_answer(place, generation)
        if not self._lease.is_safe(number):
            raise StoreUnavailable("etcd: the lease of this host may have ended")
        write = shared.new_write()
        # What is at the two keys, if anything, is of an exchange of an earlier process, or of one that is over.
        expected = {keys.record(place): record} | {key: shared.modified(key) for key in (claim_key, row_key)}
        about = shared.signed() | {"written": at, "instance": shared.me.instance, "write": write}
        changes: dict[bytes, Put | None] = {claim_key: shared.put(claim_key, ClaimValue(**about), number)}
        if awaits is not None:
            since = self._open_since(place, generation)
            about |= {"interrupted": since, "others": not awaits.patient and self._may_be_answered(place, generation)}
            row = JournalValue(generation=generation, answer_within=awaits.seconds, **about)
            changes[row_key] = shared.put(row_key, row)
        revision = await self._taken(expected, changes, claim_key, write)
        key = claim_key if awaits is None else row_key
        self._fences[place] = Fence(key, revision, write, number, awaits is not None)

    async def _taken(
        self, expected: dict[bytes, int], changes: dict[bytes, Put | None], claim_key: bytes, write: bytes
    ) -> int:
        """The revision in which the claim was put. Raises HeldElsewhere, StoreUnavailable."""

        def is_ours(found: Mapping[bytes, Pair]) -> int:
            pair = found.get(claim_key)
            value = self._shared.opened(pair, ClaimValue)
            return pair.modified if pair is not None and value is not None and value.write == write else 0

        self._pending.add(write)
        try:
            return await self._shared.transact(expected, changes, is_ours)
        except Unknown:  # it may be carried out, or be yet; then it is deleted
            self._abandoned.add(write)
            raise
        except Conflict as conflict:
            claim = self._shared.opened(conflict.found.get(claim_key), ClaimValue)
            raise HeldElsewhere("" if claim is None else claim.host) from None
        except LeaseGone:
            self._lease.drop()
            raise StoreUnavailable("etcd: the lease of this host has ended") from None
        finally:
            self._pending.discard(write)

    def _open_since(self, place: RecordPlace, generation: int) -> Moment | None:
        """When the first exchange of that generation began whose outcome nobody knows."""
        key, row = self._shared.keys.journal(place), self.rows.row(place)
        if row is None or row.generation != generation:
            return None
        return self._shared.in_our_terms(key, row, row.interrupted or row.written)

    def _may_be_answered(self, place: RecordPlace, generation: int) -> bool:
        """Whether the answer to another host's exchange with the token of that generation may still come."""
        row = self.rows.row(place)
        return row is not None and row.generation == generation and (row.others or not self._shared.is_this_host(row))

    def _require_free(self, place: RecordPlace) -> None:
        claim = self._shared.value(self._shared.keys.claim(place), ClaimValue)
        if claim is not None and not self._shared.is_this_host(claim):
            raise HeldElsewhere(claim.host)

    def _require_no_answer(self, place: RecordPlace, generation: int) -> None:
        """Of another host's exchange with the token of that generation, whose outcome is unknown (law 3)."""
        key, row = self._shared.keys.journal(place), self.rows.row(place)
        if row is None or not self._may_be_answered(place, generation):
            return
        now = self._shared.clock.now().boot
        left = self._orphans.setdefault(key, now) + min(row.answer_within, LONGEST_ANSWER) - now
        if left > 0:
            words = f"{row.host} began an exchange and was not heard of since: its answer may still come"
            raise StoreUnavailable(f"{words}, for {left:.0f} s at most")

    def last_look(self, place: RecordPlace) -> None:
        """Right before the first byte of a stored token leaves. Raises NotNow: it must not."""
        fence = self._fences.get(place)
        if fence is None or not self._lease.is_safe(fence.lease):
            raise NotNow("etcd: the claim of this host may have ended before the token was sent")

    def expected(self, place: RecordPlace) -> dict[bytes, int]:
        """What must still be so for the outcome of this process's exchange to count. Raises StoreUnavailable while
        another host that took over is at work."""
        fence = self._fences.get(place)
        if fence is None:
            return {}
        there = self._shared.modified(fence.key)
        row, claim = self._shared.value(fence.key, JournalValue), self._shared.value(fence.key, ClaimValue)
        value = (None if row is None or row.is_void else row) if fence.sends_stored else claim
        if value is None or value.write == fence.write:  # somebody who has not the key may have written there
            return {fence.key: there}
        raise StoreUnavailable("etcd: another host has begun an exchange of this grant since")

    def changes(self, place: RecordPlace, generation: int | None = None) -> dict[bytes, Put | None]:
        """What is deleted with the outcome, a record of that `generation`; None: without one. The journal row stays
        while the answer to another host's request may come, unless there is another token now."""
        fence = self._fences.get(place)
        if fence is None:
            return {}
        keys, found = self._shared.keys, dict[bytes, Put | None]()
        if fence.sends_stored:
            key, row = keys.journal(place), self.rows.row(place)
            is_awaited = row is not None and row.others and row.generation == generation
            found[key] = self._shared.put(key, row) if row is not None and is_awaited else None
        claim = self._shared.value(keys.claim(place), ClaimValue)
        if claim is not None and self._shared.is_this_host(claim):
            found[keys.claim(place)] = None
        return found

    def without_exchange(self, place: RecordPlace) -> Put | None:
        """What is left of the journal row of an exchange that has sent nothing: that it is void, and an interruption
        before it (law 3)."""
        key, row = self._shared.keys.journal(place), self.rows.row(place)
        if row is None:
            return None
        left = row.answer_within if row.others else 0.0
        return self._shared.put(key, msgspec.structs.replace(row, answer_within=left, is_void=True))

    def settle(self, place: RecordPlace) -> None:
        """The outcome that was to be written is written, or nobody needs it. An exchange that is under way keeps its
        claim and its row."""
        fence = self._fences.get(place)
        if fence is not None and fence.has_outcome:
            del self._fences[place]

    async def end(self, place: RecordPlace, *, unstored: bool) -> None:
        """The exchange is over. Others may go on, unless its outcome is still to be written (`unstored`)."""
        if self._fences.get(place) is None or unstored:
            return
        with contextlib.suppress(Conflict, LeaseGone, StoreUnavailable):
            # If that fails, it is tried again as long as this process lives, and then the claim ends with the lease.
            expected, changes = self.expected(place), self.changes(place)
            if (key := self._shared.keys.journal(place)) in changes:
                changes[key] = self.without_exchange(place)
            if changes:
                await self._shared.transact(expected, changes, lambda _: 0)
        self._fences.pop(place, None)

    # -- what others do

    def note(self, keys: set[bytes]) -> None:
        """These have changed."""
        shared = self._shared
        for key in keys:
            kind, _ = shared.keys.kind(key)
            if (place := shared.keys.place(key)) is None:
                continue
            row_key = shared.keys.journal(place)
            self.rows.note(place, record_changed=kind == "record")
            if kind != "record":
                self._orphans.pop(row_key, None)
            if self.rows.row(place) is not None and shared.value(shared.keys.claim(place), ClaimValue) is None:
                self._orphans.setdefault(row_key, shared.clock.now().boot)
            claim = shared.value(key, ClaimValue) if kind == "claim" else None
            if claim is not None and shared.is_own(claim):
                self._own.add(key)
            if (event := self._freed.pop(place, None)) is not None:
                event.set()

    def unneeded(self) -> Iterator[bytes]:
        """The claims of this process that it does not use: the answer to their transaction was lost, or they could not
        be deleted when the exchange ended. They live as long as its lease."""
        for key in list(self._own):
            claim, place = self._shared.value(key, ClaimValue), self._shared.keys.place(key)
            if claim is None or not self._shared.is_own(claim):
                self._own.discard(key)
            elif place not in self._fences and claim.write not in self._pending:
                yield key

    async def until_free(self, place: RecordPlace) -> None:
        """Until another host's exchange has ended, or its claim."""
        shared = self._shared
        before = shared.modified(shared.keys.record(place))
        with trio.move_on_after(2 * LIFE):
            while shared.modified(shared.keys.record(place)) == before:
                claim = shared.value(shared.keys.claim(place), ClaimValue)
                if claim is None or shared.is_this_host(claim):
                    await trio.sleep(PAUSE)
                    return
                await self._freed.setdefault(place, trio.Event()).wait()

    def interrupted(self, place: RecordPlace, record: RecordValue) -> Moment | None:
        """When an exchange began whose outcome nobody will write, if there is one of this record's generation."""
        shared, key, row = self._shared, self._shared.keys.journal(place), self.rows.row(place)
        if row is None or row.generation != record.generation:
            return None
        if (since := row.interrupted) is None and not self._is_at_work(place, row):
            since = row.written
        return None if since is None else shared.in_our_terms(key, row, since)

    def _is_at_work(self, place: RecordPlace, row: JournalValue) -> bool:
        """Whether the host of that row will write the outcome, or has sent nothing."""
        shared, fence = self._shared, self._fences.get(place)
        if fence is not None and fence.write == row.write:
            return True
        if row.write in self._pending or row.write in self._abandoned:
            return True
        claim = shared.value(shared.keys.claim(place), ClaimValue)
        return claim is not None and claim.write == row.write and not shared.is_this_host(claim)
