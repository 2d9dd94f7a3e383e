# What a large fleet costs, as docs/fleet.md says it: here with a small one.
from __future__ import annotations

from random import Random

import pytest

from tests.stress.simulation.fleet.scale import SHARE, TAKES, Fleet

HOSTS, GRANTS, LIFETIME = 20, 200, 600.0


def test_a_renewal_costs_one_request_and_two_transactions_however_many_hosts_there_are() -> None:
    fleet, seconds = Fleet(HOSTS, GRANTS, LIFETIME, Random(1)), 10 * LIFETIME
    found = fleet.run(seconds)
    assert found.requests == pytest.approx(GRANTS * seconds / (LIFETIME * SHARE + TAKES), rel=0.05)
    assert (found.transactions, found.conflicts, found.events) == (2 * found.requests, 0, 5 * found.requests)
    assert found.most_requests <= 6  # a second, and not GRANTS: they stay spread
    assert found.most_by_one_host <= 3 * found.requests / HOSTS
