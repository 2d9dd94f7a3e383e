# Deliberate bugs in what makes a fleet safe, each put in by replacing one function: the simulation must find every one.
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from brokerd.broker.fleet_changes import FleetChanges
from brokerd.core.fleet.etcd import Put
from brokerd.core.grant.state import State
from brokerd.edge.fleet import records, shared
from brokerd.edge.fleet.claims import Claims
from brokerd.edge.fleet.lease import HostLease
from brokerd.edge.fleet.membership import Membership
from brokerd.edge.fleet.mirror import Mirror
from brokerd.edge.fleet.shared import Shared
from tests.stress.simulation.mutants import Mutant

Changes = dict[bytes, Put | None]
Edit = Callable[[dict[bytes, int], Changes], tuple[dict[bytes, int], Changes]]


def _of(kind: str, key: bytes) -> bool:
    return f"/{kind}/".encode() in key


def _is_claim(changes: Mapping[bytes, Put | None]) -> bool:
    return any(_of("claim", key) and put is not None for key, put in changes.items())


def _edited(edit: Edit) -> Callable[[Any], Any]:
    """Every transaction of a host is changed so."""

    def make(old: Any) -> Any:
        async def transact(self: Shared, expected: Any, changes: Any, is_ours: Any) -> int:
            expected, changes = edit(dict(expected), dict(changes))
            return await old(self, expected, changes, is_ours)  # type: ignore[no-any-return]

        return transact

    return make


def _without(kind: str, *, in_claims: bool) -> Edit:
    """What is at keys of that kind is not compared, in claims or in outcomes."""

    def edit(expected: dict[bytes, int], changes: Changes) -> tuple[dict[bytes, int], Changes]:
        if _is_claim(changes) is in_claims:
            expected = {key: revision for key, revision in expected.items() if not _of(kind, key)}
        return expected, changes

    return edit


def _outcome_without_fence(expected: dict[bytes, int], changes: Changes) -> tuple[dict[bytes, int], Changes]:
    if any(_of("record", key) for key in changes):
        expected = {key: revision for key, revision in expected.items() if _of("record", key)}
    return expected, changes


def _row_on_the_lease(expected: dict[bytes, int], changes: Changes) -> tuple[dict[bytes, int], Changes]:
    lease = next((put.lease for key, put in changes.items() if _of("claim", key) and put is not None), 0)
    for key, put in changes.items():
        if _of("journal", key) and put is not None:
            changes[key] = Put(put.value, lease)
    return expected, changes


def _nothing_is_ours(old: Any) -> Any:
    return lambda self, ended, expected, changes, is_ours: old(self, ended, expected, changes, lambda _: 0)


def _goes_on_after_compaction(old: Any) -> Any:
    async def load(self: Mirror) -> None:
        if self.revision or not self.pairs:
            await old(self)
            return
        self.revision = (await self._etcd.read((self._root,))).revision
        self._is_away(None)

    return load


def _keeps_what_was_revoked(old: Any) -> Any:
    def record(self: FleetChanges, row: Any) -> bool:
        is_revoked = row.record is not None and row.record.state is State.REVOKED
        return True if is_revoked else bool(old(self, row))

    return record


MUTANTS: dict[str, Mutant] = {
    "no-fencing": Mutant(
        "the outcome of an exchange is written without a look at whether another host has taken over",
        ((Shared, "transact", _edited(_outcome_without_fence)),),
    ),
    "no-last-look": Mutant(
        "the lease is not looked at right before a stored token leaves",
        ((Claims, "last_look", lambda old: lambda self, place: None),),
    ),
    "lease-without-end": Mutant(
        "a host that has a lease takes it for alive", ((HostLease, "is_safe", lambda old: lambda self, n: n != 0),)
    ),
    "row-on-the-lease": Mutant(
        "the journal row ends with the host's lease, and only a host that saw it puts it back",
        ((Shared, "transact", _edited(_row_on_the_lease)),),
    ),
    "unknown-is-failed": Mutant(
        "what is asked again after a lost answer is taken for failed, though it was carried out",
        ((Shared, "_ended", _nothing_is_ours), (records, "_was_written", lambda old: lambda pair, writes: False)),
    ),
    "watch-over-compaction": Mutant(
        "after a compaction the watch goes on, and what it missed is not read",
        ((Mirror, "load", _goes_on_after_compaction),),
    ),
    "claim-over-a-claim": Mutant(
        "a claim does not ask whether another host has one",
        (
            (Shared, "transact", _edited(_without("claim", in_claims=True))),
            (Claims, "_require_free", lambda old: lambda self, place: None),
        ),
    ),
    "claim-on-any-record": Mutant(
        "a claim does not ask whether the record is the one that the host knows",
        ((Shared, "transact", _edited(_without("record", in_claims=True))),),
    ),
    "impatient": Mutant(
        "another host's exchange is not given the time in which its answer may come",
        ((Claims, "_require_no_answer", lambda old: lambda self, *_: None),),
    ),
    "rows-of-others-ignored": Mutant(
        "the journal row of a host that is gone interrupts nothing",
        (
            (Claims, "_require_no_answer", lambda old: lambda self, *_: None),
            (Claims, "interrupted", lambda old: lambda self, place, record: None),
        ),
    ),
    "moments-as-they-are": Mutant(
        "moments of another host are taken as they are",
        ((shared, "translated", lambda old: lambda what, anchor: what),),
    ),
    "revocations-stay-local": Mutant(
        "a revocation on another host is not taken over", ((FleetChanges, "record", _keeps_what_was_revoked),)
    ),
    "restored-is-adopted": Mutant(
        "after a restore a host goes on at once",
        ((Membership, "check", lambda old: lambda self: None),),
    ),
}
