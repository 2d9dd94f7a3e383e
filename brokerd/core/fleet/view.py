# What people and programs are told of a fleet: its hosts, claims, open journal rows, and how this host stands with
# etcd. The store of the fleet offers the Fleet port; `brokerctl fleet`, status, readiness and metrics read it.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Member:
    """A host whose lease lives. `since`: when its brokerd joined, in Unix seconds by that host's clock. `clock`: how
    many seconds its clock is ahead of ours, as far as that was seen; None: not known."""

    host: str
    release: str
    schema: int
    since: float
    is_self: bool
    clock: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A host has an exchange of this grant under way. `since`: in Unix seconds by that host's clock."""

    grant: str
    host: str
    since: float


@dataclass(frozen=True, slots=True)
class OpenExchange:
    """A journal row: that host may have sent the stored token of the grant, and the outcome is not stored yet.
    `claimed`: it still has its claim, so it works on that. If not, the exchange was interrupted (law 3)."""

    grant: str
    host: str
    since: float
    claimed: bool


@dataclass(frozen=True, slots=True)
class EtcdState:
    """How this host stands with etcd, without asking it.

    `endpoint`: which one was asked last. `since`: since when it is `reachable`, or is not, in Unix seconds. `trouble`:
    why it is not reachable or refuses (no permission, no space), in words that name the remedy and have no secrets.
    `full`: it has no space (NOSPACE). `revision`: the newest that was seen, `cluster`: the id of its cluster, 0: none
    was seen since the start. `unwritten`: how many records etcd could not be told yet. `serves_until`: while etcd is
    away and [store] offline is set, when this host ends to serve tokens.

    Many attributes: each is a line of what an operator asks at night."""

    endpoint: str | None
    reachable: bool
    since: float | None
    trouble: str | None
    full: bool
    revision: int
    cluster: int
    adopted: bool
    unwritten: int = 0
    serves_until: float | None = None


@dataclass(frozen=True, slots=True)
class FleetView:
    """`host`: the name of this host in the fleet. While etcd is away, the rest is as it was seen last."""

    fleet: str
    host: str
    etcd: EtcdState
    members: tuple[Member, ...]
    claims: tuple[Claim, ...]
    open_exchanges: tuple[OpenExchange, ...]


@dataclass(frozen=True, slots=True)
class FleetNumbers:
    """What metrics show. `claims`: held by this host. `watch_lag`: seconds since the watch last showed that it is
    level with etcd. `transactions`: how many ended how, since the start; the keys are OUTCOMES."""

    members: int
    claims: int
    watch_lag: float
    transactions: Mapping[str, int]


# done: it was carried out · conflict: another host was first · away: surely not carried out · unanswered: not known
OUTCOMES = ("done", "conflict", "away", "unanswered")


class Fleet(Protocol):
    """What the store of a fleet tells. Nothing here changes anything, and only `fleet` waits: a status of ten thousand
    grants asks the others. The store's `trouble` is what is wrong with either; here they are apart, because what to do
    differs."""

    fleet_name: str
    host: str  # this one's name in the fleet

    async def fleet(self) -> FleetView:
        """Reads etcd. If that is away, what was seen last."""

    def etcd_state(self) -> EtcdState: ...

    def own_trouble(self) -> tuple[str | None, float | None]:
        """What is wrong with this host's own store, and since when, in Unix seconds."""

    def numbers(self) -> FleetNumbers: ...

    def renewer(self, grant: str) -> str | None:
        """The host that renews the grant by itself; None: none is known, because no member was seen yet."""
