# What other hosts of the fleet change becomes known to the broker here: records, and what they learnt about providers.
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from brokerd.broker.broker import TokenBroker
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import Provider
from brokerd.core.ports import StoredRecord
from brokerd.core.timing.breaker import Breaker


@dataclass(eq=False)
class FleetChanges:
    """Told by the store of the fleet."""

    broker: TokenBroker
    providers: Mapping[str, Provider]
    _silent: set[LiveGrant] = field(default_factory=set)

    def record(self, row: StoredRecord) -> bool:
        """A record was changed by another host, deleted, or put back with all of etcd to what it was earlier. False: a
        change of it is being stored here, which finds out by itself, or a grant is being made from a record that may
        have been read before."""
        registry = self.broker.registry
        grant = registry.find(row.grant, row.fingerprint)
        if grant is None:
            return not registry.may_use(row.grant, row.fingerprint)
        if grant.is_changing:
            return False
        before = grant.record.refused
        is_gone = row.record is None and not (row.unstored or grant.unstored)
        if is_gone and self.broker.store.adopted:
            grant.start_over()  # somebody deleted it
        elif row.record is None or row.record.generation < grant.record.generation:  # what this host has is newer
            grant.stored = None if row.record is None else row.record.generation
            grant.unstored = grant.record.generation > 0
        else:
            grant.take(row.record)
            grant.unstored, grant.history, grant.attempted = False, row.history, None
            if grant.record.refused != before:
                self._tell_of_password(grant)
        self.broker.single_flight.grant_changed(grant)
        return True

    def breaker(self, provider: str, breaker: Breaker) -> None:
        """What another host knows of a provider is what all know."""
        if (found := self.providers.get(provider)) is not None:
            found.breaker = breaker

    def serve(self, *, on: bool) -> None:
        """Serve the grants, or nothing, because another host may have revoked them (law 10)."""
        for grant in self.broker.registry.all():
            if (grant in self._silent) is on:
                grant.stopped += -1 if on else 1
                (self._silent.discard if on else self._silent.add)(grant)
                self.broker.single_flight.grant_changed(grant)

    def _tell_of_password(self, grant: LiveGrant) -> None:
        """A password that another host sent was refused: no host sends it again (law 7)."""
        record = grant.record
        if record.refused is not None and record.refused_until is None:
            grant.provider.passwords.refuse(record.refused)
