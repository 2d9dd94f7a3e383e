# Half a minute of the fleet's torture in every run of the tests; ten minutes with `make fleet-torture`.
from __future__ import annotations

from pathlib import Path

import pytest

from tests.did_not_run import did_not_run
from tests.scenario.daemon.conftest import folder  # noqa: F401 - a fixture
from tests.stress.fleet_torture.__main__ import cannot_run, play
from tests.stress.fleet_torture.history import read
from tests.stress.fleet_torture.verdict import Judge, report

pytestmark = pytest.mark.slow
KILL_AND_CUT = 164  # the seed whose first round has these two faults


def test_hosts_that_share_logins_without_a_store_are_found_out(folder: Path) -> None:  # noqa: F811
    """Whether provider, readers and checker would see it."""
    if why := cannot_run("logins"):
        did_not_run("THE FLEET UNDER FAULTS", why)
    assert play(folder, minutes=0.0, grants=4, seed=1, pace=1.0, calm=1.0, sharing="logins") == 0
    found = Judge(read(folder / "histories")).judge()
    print(*report(found), sep="\n")
    assert any("sent again although its replacement had come" in each for each in found.violations)
    assert found.lost["UNEXPLAINED"]


def test_hosts_that_share_a_store_hold_the_laws_while_one_is_killed_and_the_leader_of_etcd_is_cut_off(
    folder: Path,  # noqa: F811
) -> None:
    if why := cannot_run():
        did_not_run("THE FLEET UNDER FAULTS", why)
    assert play(folder, minutes=0.01, grants=10, seed=KILL_AND_CUT, pace=1.0, calm=120.0, sharing="store") == 0
    found = Judge(read(folder / "histories")).judge()
    print(*report(found), sep="\n")
    assert found.violations == []
    assert found.counts["fault: kill -9 of a broker"] == found.counts["fault: leader cut from all"] == 1
