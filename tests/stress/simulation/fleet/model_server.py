# What the servers of a model etcd cluster hold, and what they do with a request, at once and in one order: pairs with
# revisions, leases, a log for watches that is compacted. No waiting and no chance; model_etcd.py has the way to it.
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import trio

from brokerd.core.fleet.etcd import ABSENT, Changes, Compacted, EtcdFull, Found, LeaseGone, Pair, Put, Transacted


@dataclass
class Lease:
    """`ends`: by the time of the servers."""

    seconds: float
    ends: float


@dataclass(frozen=True)
class Written:
    """What one revision changed, and when."""

    changes: Mapping[bytes, Pair | None]
    at: float


class Server:
    """`rate`: how many seconds of the leases pass in a second; `full`: NOSPACE; `changed` is set at the next revision,
    `ended` once nobody is served from this state any more; `keeps_deletes`: a deletion in the very revision up to which
    the log was compacted can still be watched (etcd before 3.5.15 has lost it: its issue 18089)."""

    def __init__(self, time: Callable[[], float], cluster: int = 1) -> None:
        self.cluster, self.revision, self.compacted = cluster, 1, 0
        self.pairs: dict[bytes, Pair] = {}
        self.leases: dict[int, Lease] = {}
        self.rate, self.full, self.keeps_deletes = 1.0, False, False
        self.changed, self.ended = trio.Event(), trio.Event()
        self._log: dict[int, Written] = {}
        self._time, self._granted = time, 7_000

    def copy(self, time: Callable[[], float]) -> Server:
        """A snapshot of it, which knows what was there and nothing of what was before."""
        made = Server(time, self.cluster)
        made.revision, made.compacted, made._granted = self.revision, self.revision, self._granted
        made.pairs = dict(self.pairs)
        made.leases = {name: replace(lease) for name, lease in self.leases.items()}
        return made

    def end(self) -> None:
        self.ended.set()

    # -- requests

    def read(self, keys: Iterable[bytes]) -> Found:
        return Found({key: self.pairs[key] for key in keys if key in self.pairs}, self.revision, self.cluster)

    def read_prefix(self, prefix: bytes) -> Found:
        return self.read(sorted(key for key in self.pairs if key.startswith(prefix)))

    def transact(self, expected: Mapping[bytes, int], changes: Mapping[bytes, Put | None]) -> Transacted:
        """Raises EtcdFull, LeaseGone."""
        if self.full and any(changes.values()):
            raise EtcdFull("etcd: the database has no space (NOSPACE)")
        there = self.read(expected).pairs
        if any((there[key].modified if key in there else ABSENT) != revision for key, revision in expected.items()):
            return Transacted(False, self.revision, self.cluster, there)
        for put in changes.values():
            if put is not None and put.lease and put.lease not in self.leases:
                raise LeaseGone(f"etcd: there is no lease {put.lease}")
        made = {key: put and Pair(key, put.value, self.revision + 1, put.lease) for key, put in changes.items()}
        self._write({key: pair for key, pair in made.items() if pair is not None or key in self.pairs})
        return Transacted(True, self.revision, self.cluster, {})

    def grant_lease(self, seconds: float) -> int:
        """Raises EtcdFull."""
        if self.full:
            raise EtcdFull("etcd: the database has no space (NOSPACE)")
        self._granted += 1
        self.leases[self._granted] = Lease(seconds, self._time() + seconds / self.rate)
        return self._granted

    def keep_alive(self, lease: int) -> float:
        """Raises LeaseGone."""
        self.end_leases()
        if (known := self.leases.get(lease)) is None:
            raise LeaseGone(f"etcd: there is no lease {lease}")
        known.ends = self._time() + known.seconds / self.rate
        return known.seconds

    def end_lease(self, lease: int) -> None:
        """Nothing happens if there is none: who ends one wants it gone."""
        if self.leases.pop(lease, None) is not None:
            self._write({key: None for key, pair in sorted(self.pairs.items()) if pair.lease == lease})

    def after(self, prefix: bytes, since: int) -> tuple[Changes, float] | None:
        """The first changes below a prefix from revision `since` on, and when they were made. Raises Compacted."""
        if since < self.compacted:
            raise Compacted(f"etcd: revision {since} was compacted, the oldest is {self.compacted}")
        for revision in range(since, self.revision + 1):
            written = self._log.get(revision)
            found = (
                tuple((key, pair) for key, pair in written.changes.items() if key.startswith(prefix)) if written else ()
            )
            if written and found:
                return Changes(found, revision, self.cluster), written.at
        return None

    # -- what happens to them

    def end_leases(self) -> None:
        """Those whose time has come."""
        now = self._time()
        for lease in [name for name, each in self.leases.items() if each.ends <= now]:
            self.end_lease(lease)

    def renew_leases(self) -> None:
        """A new leader gives every lease its whole life again."""
        for lease in self.leases.values():
            lease.ends = self._time() + lease.seconds / self.rate

    def compact(self, revision: int | None = None) -> None:
        """Forget what was before that revision; None: before the present one."""
        self.compacted = max(self.compacted, self.revision if revision is None else revision)
        self._log = {number: written for number, written in self._log.items() if number >= self.compacted}
        if not self.keeps_deletes and (last := self._log.get(self.compacted)) is not None:
            left = {key: pair for key, pair in last.changes.items() if pair is not None}
            self._log[self.compacted] = Written(left, last.at)

    def _write(self, changes: Mapping[bytes, Pair | None]) -> None:
        if not changes:
            return
        self.revision += 1
        for key, pair in changes.items():
            if pair is None:
                del self.pairs[key]
            else:
                self.pairs[key] = pair
        self._log[self.revision] = Written(changes, self._time())
        self.changed.set()
        self.changed = trio.Event()
