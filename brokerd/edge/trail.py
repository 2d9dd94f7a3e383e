# The audit log as the daemon writes it: entries counted and gathered, written in groups with one sync for each, in a
# thread of its own (law 13). What happens is brokerd/audit.py's to say; the files are edge/audit_file.py's.
from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from pathlib import Path

import trio

from brokerd.core.chain import Head, Memory, mark
from brokerd.core.ports import StoreError
from brokerd.core.tally import WINDOW, Counted, Tally
from brokerd.edge.audit_file import SERIES, Entry, Series

GROUP = 1.0  # seconds between groups, at least
AGAIN = 2.0  # seconds between attempts while the disk does not take it
SETTLED = 5.0  # seconds that somebody waits for what was noted to be durable, at most: the disk may never answer
REMEMBERED = 10.0  # seconds between writes of the heads to the store, at least
WAITING = 20_000  # entries of a series that wait for a disk; what is more is counted and lost
SHARE = {"audit": 3 / 4, "denied": 1 / 4}  # of the room
# Different entries of one user within a minute that have a line each. Those beyond it share lines that say nothing but
# this; and those beyond twice as many, nothing that he could make up, or he would push out what others have done.
LINES = {"audit": 256, "denied": 64}
BARE = frozenset({"event", "outcome"})
SHARED = {"audit": BARE | {"grant", "provider", "operation", "token"}, "denied": BARE}
_thread = trio.CapacityLimiter(1)


class Trail:
    """Writes the audit log in `folder`. `trouble`: why it cannot be written, for status; `since`: Unix seconds."""

    def __init__(
        self,
        folder: Path,
        memory: Memory | None,
        most: int,
        remember: Callable[[Mapping[str, Head]], Awaitable[None]],
        runner: Callable[[Callable[[], None]], Awaitable[None]] | None = None,
    ) -> None:
        """Without a `memory` it is locked. `most`: bytes of all files together. `remember` keeps the heads in the
        store. `runner` runs the synchronous work: a thread, or on virtual time the task itself."""
        self._runner = runner or _in_thread
        self.trouble: str | None = None
        self.since: float | None = None
        self.noticed: Callable[[], None] = lambda: None  # is called when `trouble` has changed
        self._remember, self._remembered_at = remember, -math.inf
        self._wake, self._urgent = trio.Event(), trio.Event()
        self._written = trio.Event()  # set by the next group that begins, when it has ended
        self._series = {name: Series(folder, name, int(most * SHARE[name])) for name in SERIES}
        self._key: bytes | None = None
        self._remembered: dict[str, Head] = {}
        if memory is not None:
            self.unlock(memory)
        self._pending: dict[str, list[Entry]] = {name: [] for name in SERIES}
        self._lost: dict[str, int] = dict.fromkeys(SERIES, 0)
        self._tally = Tally()
        self._marks: dict[int, tuple[object, str]] = {}  # of tokens by their id; the object keeps its id its own
        self._marks_end = 0.0
        self._writing = trio.Lock()

    def unlock(self, memory: Memory) -> None:
        """Seal from now on, with what was written while there was no key."""
        self._key, self._remembered = memory.key, dict(memory.heads or {})
        for name, series in self._series.items():
            series.unlock(memory.key, memory.head(name))
        self._wake.set()

    async def lock(self) -> None:
        """Seal what there is, then let go of the key and of every token. Lines are written as before: the next seal
        names them all."""
        await self.write()
        self._key = None
        self._marks.clear()
        for series in self._series.values():
            series.lock()

    def again(self, counted: Counted) -> None:
        """Count what is open. The way of nearly every get."""
        counted.count(time.time())

    def note(
        self,
        series: str,
        entry: Entry,
        who: Hashable = None,
        more: Callable[[], Entry] | None = None,
        *,
        at_once: bool = False,
    ) -> Counted:
        """Have a line written with the next group, or counted if an equal one was noted within the minute. `who`: the
        user that brought it about; `more`: fields that are worth working out for a line only. `at_once`: written now,
        and not counted with an equal one."""
        now, key = time.time(), repr(entry)
        if at_once:
            key = f"{key} {time.monotonic_ns()}"
            self._hurry()
        if (counted := self._tally.again(key, now)) is not None:
            return counted
        times = self._tally.different((series, who)) // LINES[series] if who is not None else 0
        for said in (SHARED[series], BARE)[:times]:
            entry = {name: value for name, value in entry.items() if name in said}
            entry |= {"who": {"uid": who}, "various": True}
            key, more = repr(entry), None
            if (counted := self._tally.again(key, now)) is not None:
                return counted
        entry = {"time": round(now, 3), **entry, **(more() if more else {})}
        counted = Counted(series, entry, (series, who), now)
        self._tally.begin(key, counted)
        self._put(series, entry)
        return counted

    def mark(self, token: object, value: str) -> str | None:
        """What identifies a token in the log; worked out once for each. None: it is locked."""
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
        """Write what is there, a group at a time, until cancelled."""
        while True:
            with trio.move_on_after(REMEMBERED):
                await self._wake.wait()
            await self.write()
            with trio.move_on_after(AGAIN if self.trouble else GROUP):
                await self._urgent.wait()

    def _hurry(self) -> None:
        """What was noted is written now, not with the next group."""
        self._urgent.set()
        self._wake.set()

    async def settle(self) -> None:
        """Wait until everything that was noted before is durable and sealed, or cannot be (see `trouble`)."""
        if self._writing.locked() or any(self._pending.values()):
            await self._next_group()

    async def seal(self) -> str | None:
        """Write and seal everything that there is. Why the newest lines are without a seal all the same, or None."""
        if not await self._next_group():
            return f"the disk did not answer within {SETTLED:g} s"
        return self.trouble or ("brokerd is locked, and cannot seal" if self._key is None else None)

    async def _next_group(self) -> bool:
        """Have a group written now; whether it has ended in time."""
        written = self._written
        self._hurry()
        with trio.move_on_after(SETTLED) as scope:
            await written.wait()
        return not scope.cancelled_caught

    async def write(self, *, everything: bool = False) -> None:
        """Write what is waiting, now; with `everything`, what is being counted too. Does not fail: see `trouble`."""
        async with self._writing:
            self._wake, self._urgent = trio.Event(), trio.Event()
            written, self._written = self._written, trio.Event()
            self._end_minutes(math.inf if everything else time.time())
            before = self.trouble
            with trio.CancelScope(shield=True):
                await self._runner(self._write)
                written.set()
                if self.trouble != before:
                    self.noticed()
                if everything or trio.current_time() >= self._remembered_at + REMEMBERED:
                    await self._tell_store()
            if any(self._pending.values()):
                self._wake.set()

    def _end_minutes(self, now: float) -> None:
        for counted in self._tally.ended(now):
            if (rest := counted.rest()) is not None:
                self._put(counted.series, rest)
        if now >= self._marks_end:
            self._marks.clear()
            self._marks_end = now + WINDOW

    def _write(self) -> None:
        """In the thread."""
        for name, series in self._series.items():
            pending = self._pending[name]
            now = round(time.time(), 3)
            lost = self._lost[name]
            if lost:
                pending.append({"time": now, "event": "entries were lost: the disk did not take them", "count": lost})
                self._lost[name] -= lost
            try:
                if pending or series.waits_for_seal():
                    series.write(pending, now)
            except OSError as error:
                words = f"{error.filename or name}: {error.strerror or error}"
                self.trouble = words
                self.since = self.since or round(time.time(), 2)
                return
        self.trouble = self.since = None

    async def _tell_store(self) -> None:
        heads = {name: series.head for name, series in self._series.items()}
        if heads == self._remembered:
            return
        self._remembered_at = trio.current_time()
        with contextlib.suppress(StoreError):  # a disk that is away knows it later
            await self._remember(heads)
            self._remembered = heads


async def _in_thread(work: Callable[[], None]) -> None:
    await trio.to_thread.run_sync(work, limiter=_thread)
