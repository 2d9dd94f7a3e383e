# What the simulation of fleets found in brokerd, each as a short schedule of its own.
from __future__ import annotations

from tests.stress.simulation.fleet.schedule import Schedule, drawn
from tests.stress.simulation.fleet.short import at, schedule
from tests.stress.simulation.fleet.simulation import simulate


def broken_by(made: Schedule) -> str | None:
    found = simulate(made).broken
    return None if found is None else str(found)


def test_hosts_that_make_a_fleet_at_the_same_time_find_their_place_in_it() -> None:
    assert broken_by(schedule(8, hosts=(0.0,) * 7, latency=0.2)) is None


def test_what_hosts_write_after_a_restore_does_not_hide_it() -> None:
    """All of them write their newer records, and after that etcd is as far as it was."""
    events = at(10.0, "snapshot"), at(46.0, "restore", new=False, adopted=5.0, host="host-1")
    for seed in range(3):
        assert broken_by(schedule(seed, *events, lifetime=60.0)) is None


def test_a_host_that_has_just_started_makes_no_token_older_for_those_that_know_better() -> None:
    events = (
        at(87.0, "crash", host="host-0", where="now", down=0.1, reboots=False),
        at(100.0, "fault", provider="two", kind="503", requests=1, seconds=2.0),
        at(110.0, "refresh", host="host-0", grant="app2"),
    )
    assert broken_by(schedule(20, *events)) is None


def test_the_grace_of_a_provider_counts_from_the_first_exchange_whose_outcome_is_unknown() -> None:
    """Each host takes over from one that did not say how its exchange ended, before it writes anything itself."""
    events = (
        at(100.0, "crash", host="host-0", where="after-send", down=500.0, reboots=False),
        at(100.0, "crash", host="host-1", where="before-send", down=500.0, reboots=False),
        at(100.0, "refresh", host="host-0", grant="app2"),
        at(116.0, "get", host="host-1", grant="app2", wait=10.0, refused=True),
        at(145.0, "get", host="host-2", grant="app2", wait=10.0, refused=True),
    )
    assert broken_by(schedule(63, *events, grace=40.0)) is None


def test_a_host_that_was_away_during_a_restore_learns_of_it() -> None:
    events = (
        at(20.0, "snapshot"),
        at(40.0, "refresh", host="host-1", grant="app2"),
        at(60.0, "crash", host="host-0", where="now", down=20.0, reboots=False),
        at(70.0, "restore", new=False, adopted=60.0, host="host-1"),
        at(100.0, "refresh", host="host-0", grant="app2"),
    )
    assert broken_by(schedule(1, *events)) is None


def test_an_import_whose_answer_was_lost_is_not_made_again_over_what_others_made_of_it() -> None:
    events = (
        at(100.0, "etcd-fault", kind="lost-after", host="host-1", requests=1, seconds=0.0, transactions=True),
        at(100.1, "import", host="host-1", grant="app2"),
    )
    for seed in range(3):
        assert broken_by(schedule(seed, *events)) is None


def test_an_answer_that_may_still_come_is_waited_for_also_after_another_host_has_tried_within_the_grace() -> None:
    events = (
        at(60.0, "refresh", host="host-1", grant="app2"),
        at(100.0, "pause", host="host-0", where="after-send", seconds=250.0),
        at(100.0, "refresh", host="host-0", grant="app2"),
        at(100.5, "fault", provider="two", kind="refuse", requests=3),
        at(120.0, "get", host="host-1", grant="app2", wait=10.0, refused=True),
    )
    for seed in range(3):
        assert broken_by(schedule(seed, *events, grace=40.0, lifetime=120.0, horizon=400.0)) is None


def test_many_people_who_want_a_new_token_on_many_hosts_at_once_meet_no_fault() -> None:
    everybody = at(100.0, "refresh", host="all", grant="svc")
    assert broken_by(schedule(0, everybody, hosts=(0.0,) * 10, latency=0.4, lifetime=60.0)) is None


def test_an_exchange_under_way_keeps_its_claim_though_another_host_overtakes_what_etcd_could_not_be_told() -> None:
    assert broken_by(drawn(2027)) is None
