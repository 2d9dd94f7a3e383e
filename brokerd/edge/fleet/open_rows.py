# Journal rows of exchanges whose outcome is not known. A row goes away in one transaction with the record that its
# exchange brought, or is made void. One that only vanished was deleted by somebody who has not the key: it still counts
# (law 3).
from __future__ import annotations

import contextlib
from dataclasses import dataclass

from brokerd.core.fleet.etcd import Pair, Put
from brokerd.core.fleet.layout import JournalValue, RecordPlace, RecordValue
from brokerd.edge.fleet.shared import Conflict, Shared


@dataclass(frozen=True, slots=True)
class OpenRow:
    """`pair`: as etcd had it. `number`: of the record before its exchange has ended (RecordValue)."""

    row: JournalValue
    pair: Pair
    number: int


class OpenRows:
    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._open: dict[RecordPlace, OpenRow] = {}
        self._gone: set[RecordPlace] = set()  # of these, the ones that are not in etcd any more

    def row(self, place: RecordPlace) -> JournalValue | None:
        """Of the exchange whose outcome is not known, if there is one."""
        known = self._open.get(place)
        return None if known is None else known.row

    def note(self, place: RecordPlace, *, record_changed: bool) -> None:
        """Its record or its row may have changed."""
        shared, key = self._shared, self._shared.keys.journal(place)
        pair, row, known = shared.mirror.pairs.get(key), shared.value(key, JournalValue), self._open.get(place)
        was_gone = place in self._gone
        self._gone.discard(place)
        record = shared.value(shared.keys.record(place), RecordValue)
        number = 0 if record is None else record.number
        if pair is not None and row is not None and not (row.is_void and row.interrupted is None):
            if known is None or known.row.write != row.write:
                # What is newer than the row may be what its exchange brought, where a watch is late.
                before = number - (shared.modified(shared.keys.record(place)) > pair.modified)
            else:
                before = known.number
            self._open[place] = OpenRow(row, pair, max(before, number) if record_changed else before)
        elif known is not None:
            is_void = row is not None and row.write == known.row.write
            is_replaced = record is not None and record.generation > known.row.generation
            # Whoever writes the record later has not concluded that exchange.
            if is_void or is_replaced or (number > known.number and not was_gone):
                del self._open[place]
            else:
                self._gone.add(place)

    async def put_back(self) -> None:
        """Rows that somebody deleted. Raises StoreError."""
        for place in tuple(self._gone):
            known, keys = self._open[place], self._shared.keys
            put = Put(known.pair.value)
            expected = {each: self._shared.modified(each) for each in (keys.journal(place), keys.record(place))}
            with contextlib.suppress(Conflict):
                await self._shared.transact(expected, {keys.journal(place): put}, lambda _: 0)

    def forget(self, place: RecordPlace) -> None:
        """Its record is gone, because an operator says so."""
        self._open.pop(place, None)
        self._gone.discard(place)
