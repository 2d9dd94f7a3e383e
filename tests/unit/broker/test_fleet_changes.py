# What the broker takes of other hosts' changes (broker/fleet_changes.py).
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from brokerd.broker.fleet_changes import FleetChanges
from brokerd.broker.grant_registry import GrantRegistry
from brokerd.core.grant.record import Record
from brokerd.core.ports import StoredRecord

ROW = StoredRecord("app", "f", Record("app"), None)


def changes(registry: GrantRegistry) -> FleetChanges:
    broker: Any = SimpleNamespace(registry=registry, single_flight=None)
    return FleetChanges(broker, {})


def test_a_record_that_changes_while_its_grant_is_made_is_given_again() -> None:
    """The grant may be made from the record as it was before, and would claim with what it does not know."""
    registry = GrantRegistry()
    with registry.reading():
        assert not changes(registry).record(ROW)


def test_the_record_of_a_grant_that_this_host_does_not_have_is_done_with() -> None:
    assert changes(GrantRegistry()).record(ROW)
