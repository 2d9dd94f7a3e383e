# What this host and its fleet have in common: transactions whose answer may be lost, and what is read of a key: its
# value, opened, with every Moment in this host's terms.
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio

from brokerd.core.fleet.clocks import Ahead, anchored, contradict, narrowed, translated
from brokerd.core.fleet.etcd import (
    ABSENT,
    Etcd,
    EtcdAway,
    EtcdFull,
    EtcdRefused,
    EtcdUnanswered,
    Pair,
    Put,
    Transacted,
)
from brokerd.core.fleet.layout import BreakerValue, ClaimValue, FleetKeys, JournalValue, MemberValue, RecordValue, Value
from brokerd.core.ports import Clock, Entropy, GenerationConflict, StoreUnavailable
from brokerd.core.timing.moment import Moment
from brokerd.edge.fleet.data_keys import FleetDataKeys
from brokerd.edge.fleet.mirror import Mirror

WITHIN = 8.0  # seconds for a transaction, with everything that is tried again
PUT_BACK = "it was put back to an earlier state"
AGAIN = 0.2  # seconds between two tries
MUCH_DOUBT = 2.0  # seconds: what was dated with more is dated again once it can be done better
MOST_BOOTS = 10_000  # of other hosts, whose clocks are compared with ours
DATED: dict[str, type[Value]] = {
    "record": RecordValue,
    "journal": JournalValue,
    "breaker": BreakerValue,
    "claim": ClaimValue,
    "member": MemberValue,
}
V = TypeVar("V", bound=Value)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Self:
    """This host in its fleet. `instance`: this process. `machine`: a digest that no two hosts share.
    `difference`: how many seconds the clocks of two hosts may differ."""

    fleet: str
    host: str
    machine: str
    instance: str
    release: str
    difference: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """A value of another host, when it was seen here, and when it was surely not there yet (core/fleet/clocks.py)."""

    modified: int
    theirs: Moment
    now: Moment
    absent_at: float | None


class Conflict(GenerationConflict):
    """Something was not as expected, and nothing was written. `found`: what there is."""

    def __init__(self, words: str, found: Mapping[bytes, Pair]) -> None:
        super().__init__(words)
        self.found = found


class Unknown(StoreUnavailable):
    """No answer came in time: it may be written, or may be yet."""


@dataclass(eq=False)
class Shared:
    """`counts`: how transactions ended (core/fleet/view.py OUTCOMES). `full`: etcd has no space.

    Many attributes: the ports that all parts of the store use, and what each of them learns of etcd."""

    etcd: Etcd
    keys: FleetKeys
    mirror: Mirror
    clock: Clock
    entropy: Entropy
    me: Self
    counts: Counter[str] = field(default_factory=Counter)
    refused: str | None = None  # why etcd took nothing, though it was there
    full: bool = False
    unusable: Callable[[], str | None] = lambda: None  # why nothing may be written
    data_keys: FleetDataKeys = field(init=False)
    _seen: dict[bytes, Sighting] = field(default_factory=dict)
    _ahead: dict[tuple[str, str], Ahead] = field(default_factory=dict)  # by host and boot id
    _dated_badly: set[str] = field(default_factory=set)  # boots whose values can be dated better by now

    def __post_init__(self) -> None:
        self.data_keys = FleetDataKeys(self.keys, self.entropy)
        self.mirror.most = self.keys.most

    # -- values

    def value(self, key: bytes, kind: type[V]) -> V | None:
        """What the mirror has there; None: nothing that a host wrote and that this version can read."""
        return self.opened(self.mirror.pairs.get(key), kind)

    def opened(self, pair: Pair | None, kind: type[V]) -> V | None:
        return None if pair is None else self.data_keys.open_value(pair, kind)

    def signed(self) -> dict[str, Any]:
        """What every value of this host says: who made it, and when."""
        return {"host": self.me.host, "machine": self.me.machine, "written": self.clock.now()}

    def put(self, key: bytes, value: Value, lease: int = 0) -> Put:
        """Raises StoreUnavailable."""
        return Put(self.data_keys.seal_value(key, value), lease)

    def modified(self, key: bytes) -> int:
        """The revision of what the mirror has there; ABSENT for nothing."""
        pair = self.mirror.pairs.get(key)
        return ABSENT if pair is None else pair.modified

    def note(self, keys: set[bytes]) -> None:
        """These have changed just now: remember between which moments they were written."""
        now = self.clock.now()
        for key in keys:
            pair = self.mirror.pairs.get(key)
            if pair is None:
                self._seen.pop(key, None)
                continue
            if (noted := self._seen.get(key)) is not None and noted.modified == pair.modified:
                continue
            kind = DATED.get(self.keys.kind(key)[0])
            value = None if kind is None else self.opened(pair, kind)
            if value is not None and not self.is_this_host(value):
                absent, theirs = self._absent_at(value, pair), value.written
                self._seen[key] = Sighting(pair.modified, theirs, now, absent)
                if len(self._ahead) > MOST_BOOTS:  # hosts that are long gone
                    self._ahead.clear()
                boot = value.host, theirs.boot_id
                known = self._ahead.get(boot)
                self._ahead[boot] = found = narrowed(known, theirs, now, absent)
                if known is not None and known.doubt > MUCH_DOUBT > found.doubt:
                    self._dated_badly.add(theirs.boot_id)
            else:
                self._seen.pop(key, None)

    def _absent_at(self, value: Value, pair: Pair) -> float | None:
        """CLOCK_BOOTTIME when the value was surely not written yet; None: not known. What its writer had seen says
        nothing if etcd was put back before it came there."""
        return self.mirror.absent_at(value.after) if value.after < pair.modified else None

    def in_our_terms(self, key: bytes, value: Value, what: T) -> T:
        """`what` is of that value. Our own moments need no translation."""
        noted = self._seen.get(key)
        if noted is None or self.is_this_host(value):
            return what
        ahead = self._ahead.get((value.host, noted.theirs.boot_id))
        return translated(what, anchored(noted.theirs, noted.now, noted.absent_at, self.me.difference, ahead))

    def to_date_again(self) -> list[bytes]:
        """The keys whose values can be dated better than when they were read, each once."""
        boots, self._dated_badly = self._dated_badly, set()
        return [key for key, each in self._seen.items() if each.theirs.boot_id in boots] if boots else []

    def clock_of(self, host: str) -> float | None:
        """How many seconds the clock of a host is ahead of ours, roughly; None: not known."""
        value = self.value(self.keys.member(host), MemberValue)
        if value is None or (absent := self.mirror.absent_at(value.after)) is None:
            return None
        now = self.clock.now()
        ahead = value.written.wall - now.wall
        return round(ahead, 1) if contradict(value.written, now, absent, self.me.difference) else 0.0

    def is_this_host(self, value: Value) -> bool:
        """Whether this host wrote it, in this process or an earlier one."""
        return (value.host, value.machine) == (self.me.host, self.me.machine)

    def is_own(self, value: ClaimValue | JournalValue) -> bool:
        """Whether this very process wrote it."""
        return self.is_this_host(value) and value.instance == self.me.instance

    def new_write(self) -> bytes:
        return self.entropy.bytes(16)

    # -- transactions

    async def transact(
        self,
        expected: Mapping[bytes, int],
        changes: Mapping[bytes, Put | None],
        is_ours: Callable[[Mapping[bytes, Pair]], int],
    ) -> int:
        """The revision in which it was carried out. If an answer is lost, the same is asked again; `is_ours` says of
        what is found then in which revision an earlier try was carried out, 0: in none. Raises Conflict, LeaseGone,
        Unknown, StoreUnavailable."""
        if self.mirror.away is not None:  # nobody waits to learn what is known
            raise StoreUnavailable(f"etcd: {self.mirror.away}")
        if (why := self.unusable()) is not None:
            raise StoreUnavailable(why)
        was_sent, why = True, "etcd did not answer"  # what is given up may have been sent
        was_unanswered = False
        with trio.move_on_after(WITHIN):
            while True:
                sent, least = self.clock.now().boot, self.mirror.newest()
                try:
                    ended = await self.etcd.transact(expected, changes)
                    if self.mirror.heard(sent, least, ended.revision, ended.cluster):
                        raise Unknown(f"etcd: {PUT_BACK}")
                    return self._ended(ended, expected, changes, is_ours)
                except EtcdUnanswered as error:
                    was_unanswered, why = True, str(error)
                    self.counts["unanswered"] += 1
                except (EtcdAway, EtcdRefused) as error:
                    self.full = isinstance(error, EtcdFull)
                    self.counts["away"] += 1
                    why = str(error)
                    self.refused = why if isinstance(error, EtcdFull | EtcdRefused) else None
                    if not was_unanswered:
                        was_sent = False
                        break
                await trio.sleep(AGAIN)
        raise (Unknown if was_sent else StoreUnavailable)(f"etcd: {why}")

    def _ended(
        self,
        ended: Transacted,
        expected: Mapping[bytes, int],
        changes: Mapping[bytes, Put | None],
        is_ours: Callable[[Mapping[bytes, Pair]], int],
    ) -> int:
        self.refused, self.full = None, False
        if ended.done:
            self.counts["done"] += 1
            self._fold(changes, ended.revision)
            return ended.revision
        if revision := is_ours(ended.found):
            self.counts["done"] += 1
            self._fold(changes, revision)
            return revision
        self.counts["conflict"] += 1
        self.mirror.fold({key: ended.found.get(key) for key in expected}, ended.revision)
        raise Conflict("another host of the fleet was first", ended.found)

    def _fold(self, changes: Mapping[bytes, Put | None], revision: int) -> None:
        found = {
            key: None if put is None else Pair(key, put.value, revision, put.lease) for key, put in changes.items()
        }
        self.mirror.fold(found, revision)
