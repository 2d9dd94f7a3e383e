# brokerctl fleet: what it prints of an answer, and how it ends.
from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import trio

from brokerd.core.fleet.view import EtcdState
from brokerd.server.methods.fleet import NO_FLEET
from tests.fleet_of_two import AWAY, WELL, FleetOfTwo
from tests.unit.client.daemon import Daemon
from tests.unit.ctl.conftest import Run


def answer(daemon: Daemon, etcd: EtcdState = WELL) -> dict[str, Any]:
    found = asdict(trio.run(FleetOfTwo(etcd).fleet))
    daemon.answers["fleet"] = lambda params: found
    return found


def test_it_shows_hosts_versions_claims_and_what_was_interrupted(daemon: Daemon, brokerctl: Run) -> None:
    answer(daemon)
    done = brokerctl("fleet")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "fleet prod, 2 hosts; this host is web-1"
    assert lines[1] == "etcd https://10.0.0.1:2379 answers; cluster cdf818194e3a8c32, revision 41"
    assert lines[3].split() == ["HOST", "RELEASE", "SCHEMA", "JOINED", "CLOCK"]
    assert lines[4].startswith("web-1 (this one)  0.9.0    4       ")
    assert lines[5].startswith("web-2             0.8.0    3       ")
    assert lines[5].endswith("12s behind")
    under_way, lost = lines.index("Exchanges under way"), next(n for n, line in enumerate(lines) if "no host" in line)
    assert lines[under_way + 2].split()[:2] == ["app", "web-2"]
    assert lines[lost + 2].split()[:2] == ["old", "web-3"], "an exchange whose host still works on it is not lost"
    assert len(lines) == lost + 3


def test_programs_get_the_answer_on_one_line(daemon: Daemon, brokerctl: Run) -> None:
    found = answer(daemon)
    done = brokerctl("fleet", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(json.dumps(found))


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_without_a_fleet_it_says_so_and_ends_with_3(daemon: Daemon, brokerctl: Run, options: tuple[str, ...]) -> None:
    daemon.answers["fleet"] = lambda params: NO_FLEET
    done = brokerctl("fleet", *options)
    assert done.returncode == 3
    assert "this brokerd belongs to no fleet: its configuration has no table [store]" in done.stderr
    assert (json.loads(done.stdout)["fleet"] is None) if options else (done.stdout == "")


@pytest.mark.parametrize(
    ("etcd", "words", "code"),
    [
        (WELL, "answers", 0),
        (AWAY, "); tokens that live are served", 4),
        (replace(WELL, full=True, trouble="NOSPACE"), "etcdctl alarm disarm", 5),
        (replace(WELL, adopted=False), "make sure that this etcd is the right one, then: brokerctl", 5),
    ],
)
def test_what_is_wrong_comes_first_and_an_exit_code_says_it_to_scripts(
    daemon: Daemon, brokerctl: Run, etcd: EtcdState, words: str, code: int
) -> None:
    answer(daemon, etcd)
    plainly, asked = brokerctl("fleet"), brokerctl("fleet", "--exit-code")
    assert (plainly.returncode, asked.returncode) == (0, code)
    beginning = plainly.stdout.split("HOST")[0]
    assert words in beginning
    assert ("for " in beginning and "since" in beginning) == (etcd is AWAY or etcd.full)
