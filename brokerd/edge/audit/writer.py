# Writes the audit log: equal entries are counted, the others written in groups with one sync for each group, in a
# thread of its own (law 13). telemetry/event_log.py decides what is written; edge/audit/files.py owns the files.
from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from pathlib import Path

import trio

from brokerd.core.audit.chain import Head, Memory, mark
from brokerd.core.audit.deduplication import WINDOW, Counted, Deduplication
from brokerd.core.audit.findings import ENTRIES_LOST
from brokerd.core.ports import StoreError
from brokerd.edge.audit.files import SERIES, Entry, Series

GROUP = 1.0  # seconds between two groups, at least
AGAIN = 2.0  # seconds between two attempts while the disk cannot be written
SETTLED = 5.0  # seconds to wait until entries are durable, at most: the disk may never answer
REMEMBERED = 10.0  # seconds between two writes of the heads to the store, at least
WAITING = 20_000  # entries of a series that wait for the disk; more are counted and lost
SHARE = {"audit": 3 / 4, "denied": 1 / 4}  # of `max_bytes`
# How many different entries of one user within a minute get a line each. After that, entries share lines that have only
# the fields of SHARED; after twice as many, only those of BARE, which a user cannot invent. Otherwise one user could
# fill the log and so remove the entries of others.
LINES = {"audit": 256, "denied": 64}
BARE = frozenset({"event", "outcome"})
SHARED = {"audit": BARE | {"grant", "provider", "operation", "token"}, "denied": BARE}
_thread = trio.CapacityLimiter(1)


class AuditWriter:
    """Writes the audit log in `folder`. `trouble`: why it cannot be written, for status; `since`: Unix seconds.

    Many attributes: settings, both series of files, and the entries that wait for the next group."""

    def __init__(
        self,
        folder: Path,
        memory: Memory | None,
        max_bytes: int,
        remember: Callable[[Mapping[str, Head]], Awaitable[None]],
        runner: Callable[[Callable[[], None]], Awaitable[None]] | None = None,
    ) -> None:
        """Without `memory` it is locked. `max_bytes`: of all files together. `remember` writes the heads to the store.
        `runner` runs the blocking work: in a thread, or, in tests with virtual time, in the task itself."""
        self._runner = runner or _in_thread
        self.trouble: str | None = None
        self.since: float | None = None
        self.noticed: Callable[[], None] = lambda: None  # called when `trouble` has changed
        self.finding: Callable[[Entry], None] = lambda _: None  # is given each line about what is wrong with the log
        self._found: list[Entry] = []
        self._remember, self._remembered_at = remember, -math.inf
        self._wake, self._urgent = trio.Event(), trio.Event()
        self._written = trio.Event()  # set when the group that begins next has ended
        self._series = {name: Series(folder, name, int(max_bytes * SHARE[name])) for name in SERIES}
        self._key: bytes | None = None
        self._remembered: dict[str, Head] = {}
        if memory is not None:
            self.unlock(memory)
        self._pending: dict[str, list[Entry]] = {name: [] for name in SERIES}
        self._lost: dict[str, int] = dict.fromkeys(SERIES, 0)
        self._deduplication = Deduplication()
        self._marks: dict[int, tuple[object, str]] = {}  # by id() of a token; keeping the token keeps its id unique
        self._marks_end = 0.0
        self._writing = trio.Lock()

    def unlock(self, memory: Memory) -> None:
        """Seal from now on, including lines that were written without the key."""
        self._key, self._remembered = memory.key, dict(memory.heads or {})
        for name, series in self._series.items():
            series.unlock(memory.key, memory.head(name))
        self._wake.set()

    async def lock(self) -> None:
        """Write and seal everything, then drop the key and every token. Lines are still written; the seal after the
        next `unlock` covers them."""
        await self.write()
        self._key = None
        self._marks.clear()
        for series in self._series.values():
            series.lock()

    def again(self, counted: Counted) -> None:
        """Count one more of an entry that was noted before: nearly every get does only this."""
        counted.count(time.time())

    def note(
        self,
        series: str,
        entry: Entry,
        who: Hashable = None,
        more: Callable[[], Entry] | None = None,
        *,
        at_once: bool = False,
        shown: Entry | None = None,
    ) -> Counted:
        """Write a line with the next group, or count the entry if an equal one was noted within the last minute. `who`:
        the user who caused it. `shown`: how a line that entries share names the user. `more`: computes fields that only
        a new line needs. `at_once`: write it now, as a line of its own."""
        now, key = time.time(), repr(entry)
        if at_once:
            key = f"{key} {time.monotonic_ns()}"
            self._write_now()
        if (counted := self._deduplication.again(key, now)) is not None:
            return counted
        times = self._deduplication.different((series, who)) // LINES[series] if who is not None else 0
        for said in (SHARED[series], BARE)[:times]:
            entry = {name: value for name, value in entry.items() if name in said}
            entry |= {**(shown or {"who": {"uid": who}}), "various": True}
            key, more = repr(entry), None
            if (counted := self._deduplication.again(key, now)) is not None:
                return counted
        entry = {"time": round(now, 3), **entry, **(more() if more else {})}
        counted = Counted(series, entry, (series, who), now)
        self._deduplication.begin(key, counted)
        self._put(series, entry)
        return counted

    def append(self, series: str, entry: Entry) -> None:
        """Write a line with the next group, for an entry that no other one equals. It is not remembered."""
        self._put(series, {"time": round(time.time(), 3), **entry})

    def mark(self, token: object, value: str) -> str | None:
        """What identifies a token in the log, computed once for each token. None: it is locked."""
        if self._key is None:
            return None
        known = self._marks.get(id(token))
        if known is None:
            known = self._marks[id(token)] = (token, mark(value, self._key))
        return known[1]

    def _put(self, series: str, entry: Entry) -> None:
        pending = self._pending[series]
        if len(pending) < WAITING:
            pending.append(entry)
        else:
            self._lost[series] += 1
        self._wake.set()

    # -- writing

    async def run(self) -> None:
        """Write group after group until cancelled."""
        while True:
            with trio.move_on_after(REMEMBERED):
                await self._wake.wait()
            await self.write()
            with trio.move_on_after(AGAIN if self.trouble else GROUP):
                await self._urgent.wait()

    def _write_now(self) -> None:
        """Write the next group now, without waiting for GROUP seconds."""
        self._urgent.set()
        self._wake.set()

    async def settle(self) -> None:
        """Wait until every entry noted before is durable and sealed, or the writing failed (see `trouble`)."""
        if self._writing.locked() or any(self._pending.values()):
            await self._next_group()

    async def seal(self) -> str | None:
        """Write and seal everything. Returns why the newest lines have no seal all the same, or None."""
        if not await self._next_group():
            return f"the disk did not answer within {SETTLED:g} s"
        return self.trouble or ("brokerd is locked and cannot seal" if self._key is None else None)

    async def _next_group(self) -> bool:
        """Write a group now. Returns whether it ended in time."""
        written = self._written
        self._write_now()
        with trio.move_on_after(SETTLED) as scope:
            await written.wait()
        return not scope.cancelled_caught

    async def write(self, *, everything: bool = False) -> None:
        """Write all waiting entries now; with `everything`, open counts too. It raises nothing: see `trouble`."""
        async with self._writing:
            self._wake, self._urgent = trio.Event(), trio.Event()
            written, self._written = self._written, trio.Event()
            self._end_minutes(math.inf if everything else time.time())
            before = self.trouble
            with trio.CancelScope(shield=True):
                await self._runner(self._write)
                written.set()
                self._tell_findings()
                if self.trouble != before:
                    self.noticed()
                if everything or trio.current_time() >= self._remembered_at + REMEMBERED:
                    await self._remember_heads()
            if any(self._pending.values()):
                self._wake.set()

    def _tell_findings(self) -> None:
        found, self._found = self._found, []
        for series in self._series.values():
            found += series.found
            series.found = []
        for entry in found:
            self.finding(entry)

    def _end_minutes(self, now: float) -> None:
        for counted in self._deduplication.ended(now):
            if (rest := counted.rest()) is not None:
                self._put(counted.series, rest)
        if now >= self._marks_end:
            self._marks.clear()
            self._marks_end = now + WINDOW

    def _write(self) -> None:
        """Runs in the thread."""
        for name, series in self._series.items():
            pending = self._pending[name]
            now = round(time.time(), 3)
            if lost := self._lost[name]:
                pending.append(line := {"time": now, "event": ENTRIES_LOST, "count": lost})
            try:
                if pending or series.waits_for_seal():
                    series.write(pending, now)
            except OSError as error:
                words = f"{error.filename or name}: {error.strerror or error}"
                self.trouble = words
                self.since = self.since or round(time.time(), 2)
                return
            finally:
                if lost and line in pending:  # it is not written: the next one counts these too
                    pending.remove(line)
                elif lost:
                    self._lost[name] -= lost
                    self._found.append(line)
        self.trouble = self.since = None

    async def _remember_heads(self) -> None:
        heads = {name: series.head for name, series in self._series.items()}
        if heads == self._remembered:
            return
        self._remembered_at = trio.current_time()
        with contextlib.suppress(StoreError):  # it is tried again later
            await self._remember(heads)
            self._remembered = heads


async def _in_thread(work: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(work, limiter=_thread)
