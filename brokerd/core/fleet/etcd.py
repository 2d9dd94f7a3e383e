# The Etcd port: the few things that a fleet needs of etcd, as values and one protocol. brokerd/edge/etcd implements it
# over the JSON gateway; the simulation has a model of it.
from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

ABSENT = 0  # instead of a revision: there is no such key


class EtcdError(Exception):
    """etcd did not do what was asked. The text says why and has no secrets."""


class EtcdAway(EtcdError):
    """Surely nothing was changed: no endpoint could be asked, a read had no answer, or etcd said no (no leader, too
    many requests)."""


class EtcdFull(EtcdAway):
    """Surely nothing was changed: the database has no space (NOSPACE), until an operator makes some."""


class EtcdUnanswered(EtcdError):
    """The request left and no answer came: it may have been carried out, or may be yet. Read again."""


class EtcdRefused(EtcdError):
    """Surely nothing was changed, and a person must change something: a wrong password, no permission, a request that
    is too large, a version that lacks what was asked."""


class Compacted(EtcdError):
    """The revision that was asked for is gone: read everything again."""


class LeaseGone(EtcdError):
    """There is no such lease any more. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A key with its value. `modified`: the revision of the transaction that wrote it last (mod_revision); `lease`: 0
    for none."""

    key: bytes
    value: bytes
    modified: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What was read, as it all was at one revision. `cluster`: the id of the cluster that answered, `revision`: its
    revision then."""

    pairs: Mapping[bytes, Pair]
    revision: int
    cluster: int


@dataclass(frozen=True, slots=True)
class Put:
    """A value to be written; with a `lease` it is deleted when that ends."""

    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Transacted:
    """The end of a transaction. `done`: everything was as expected and was changed, in revision `revision`. If not,
    nothing was changed, and `found` has what there is at the keys that were expected."""

    done: bool
    revision: int
    cluster: int
    found: Mapping[bytes, Pair]


@dataclass(frozen=True, slots=True)
class Changes:
    """All changes of one revision below the watched prefix, in order; None instead of a pair: it was deleted. Empty:
    etcd says only how far it is."""

    changes: tuple[tuple[bytes, Pair | None], ...]
    revision: int
    cluster: int


class Etcd(Protocol):
    """An etcd cluster. Reads are linearizable, and may be repeated by themselves at another server; what changes
    something is sent to another server only if surely nothing was done. Every method may raise EtcdAway and
    EtcdRefused; those that change something may raise EtcdUnanswered and EtcdFull."""

    async def read(self, keys: Iterable[bytes]) -> Found:
        """These keys at one revision."""

    async def read_prefix(self, prefix: bytes) -> Found:
        """All keys below a prefix at one revision, however many they are."""

    async def transact(self, expected: Mapping[bytes, int], changes: Mapping[bytes, Put | None]) -> Transacted:
        """Write and delete (None) all of `changes`, if each key in `expected` was last modified in that revision
        (ABSENT: there is none). A deleted key need not exist. Raises LeaseGone."""

    async def grant_lease(self, seconds: int) -> tuple[int, float]:
        """A new lease: its id, and how many seconds it lives from the moment it was asked for."""

    async def keep_alive(self, lease: int) -> float:
        """How many seconds it lives from the moment that was asked. Raises LeaseGone."""

    async def end_lease(self, lease: int) -> None:
        """Everything that was written with it is deleted. It is no error if the lease has ended already."""

    def watch(self, prefix: bytes, since: int) -> AbstractAsyncContextManager[AsyncIterator[Changes]]:
        """Every change below a prefix, from revision `since` on. Raises Compacted, and EtcdAway when it is lost; it
        ends in no other way. It goes to the server that all other methods ask; when a request fails there, the next
        server is asked from then on and the watch ends, so EtcdAway and EtcdUnanswered of any method end it (unless
        nothing was asked). EtcdFull, EtcdRefused, Compacted and LeaseGone are answers, and do not."""
