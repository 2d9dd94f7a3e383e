# Which host of a fleet renews a grant by itself (core/fleet/renewers.py).
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.fleet.renewers import MOST_STEPS, STEP, Renewers

HOSTS = [f"web-{number}" for number in range(12)]
GRANTS = [f"grant-{number}" for number in range(600)]
some = st.lists(st.text(min_size=1, max_size=8), unique=True, min_size=1, max_size=8)


@given(st.text(max_size=8), some)
def test_the_hosts_agree_and_each_has_a_turn_of_its_own(grant: str, hosts: list[str]) -> None:
    found = Renewers(hosts)
    turns = sorted(found.rank(grant, host) for host in hosts)
    assert turns == [min(turn, MOST_STEPS) for turn in range(len(hosts))]
    first = Renewers(reversed(hosts)).first(grant)
    assert first is not None
    assert found.rank(grant, first) == 0


@given(st.text(max_size=8), some, st.none() | st.floats(-100, 1e6))
def test_the_first_waits_for_nobody_and_no_token_dies_of_waiting(
    grant: str, hosts: list[str], left: float | None
) -> None:
    for host in hosts:
        wait = Renewers(hosts).patience(grant, host, left)
        assert 0.0 <= wait <= STEP * MOST_STEPS
        assert wait == 0.0 or Renewers(hosts).rank(grant, host) > 0
        assert left is None or wait <= max(0.0, left / 3)


def test_a_host_that_goes_moves_only_its_own_grants() -> None:
    before = {grant: Renewers(HOSTS).first(grant) for grant in GRANTS}
    for gone in HOSTS:
        left = Renewers(host for host in HOSTS if host != gone)
        for grant in GRANTS:
            assert (left.first(grant) == before[grant]) is (before[grant] != gone)


def test_every_host_has_its_share() -> None:
    found = Renewers(HOSTS)
    shares = [sum(found.first(grant) == host for grant in GRANTS) for host in HOSTS]
    assert min(shares) > len(GRANTS) / len(HOSTS) / 2
    assert max(shares) < len(GRANTS) / len(HOSTS) * 2


def test_without_hosts_nobody_is_named_and_a_host_that_is_not_listed_yet_has_its_turn() -> None:
    assert Renewers([]).first("app") is None
    assert Renewers([]).rank("app", "new") == 0
    assert Renewers(["new", "new"]).rank("app", "new") == 0
