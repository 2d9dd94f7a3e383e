# brokerctl explain: who would get what, by which rule, and why a caller was denied.
from __future__ import annotations

import json
import pwd
import subprocess
from typing import Any, cast

from tests import forked
from tests.scenario.access.world import APP, SPECIAL, World, request


def brokerctl(here: World, *words: str) -> subprocess.CompletedProcess[str]:
    return forked.brokerctl("--socket", here.daemon.socket, "explain", *words)


def explained(here: World, *words: str) -> dict[str, Any]:
    done = brokerctl(here, *words, "--json")
    found = cast(dict[str, Any], json.loads(done.stdout))
    assert done.returncode == (0 if found["allowed"] else 3)
    return found


def test_a_process_is_shown_with_its_evidence_and_the_rule_that_it_matches(here: World) -> None:
    process = here.process(APP, SPECIAL, within="portal.service").execute(here.portal, "portal")
    found = explained(here, "unit", "--pid", str(process.pid))
    assert found["allowed"] == ["get", "status"]
    caller = found["caller"]
    assert (caller["uid"], caller["gids"]) == (APP, sorted({APP, SPECIAL}))
    assert (caller["unit"], caller["slice"], caller["exe"]) == ("portal.service", here.cgroups.name, here.portal)
    (rule,) = found["rules"]
    assert (rule["matches"], rule["objections"]) == (True, [[]])


def test_a_denial_names_each_rule_and_what_speaks_against_it(here: World) -> None:
    process = here.process(APP, within="evil.service")
    done = brokerctl(here, "unit", "--pid", str(process.pid))
    assert done.returncode == 3
    assert "unit: nothing is allowed" in done.stdout
    assert "unit is evil.service" in done.stdout


def test_somebody_who_is_not_there_can_be_described(here: World) -> None:
    user = next(each.pw_name for each in pwd.getpwall() if 0 < each.pw_uid < 1_000)
    assert explained(here, "unit", "--as", user, "--unit", "portal.service")["allowed"] == ["get", "status"]
    found = explained(here, "unit", "--as", user, "--unit", "other.service")
    assert found["rules"][0]["objections"] == [["unit is other.service"]]


def test_a_unit_that_starts_is_its_unit_alone(here: World) -> None:
    found = explained(here, "unit", "--credential", "--unit", "portal.service")
    assert (found["allowed"], found["trusted"], found["caller"]["credential"]) == (["get", "status"], False, "unit")
    assert explained(here, "unit", "--credential", "--unit", "other.service")["allowed"] == []
    found = explained(here, "uid", "--credential", "--unit", "portal.service")
    assert found["rules"][0]["objections"] == [
        ["uid is that of systemd, which fetches the credential: name only the unit or its slice"]
    ]
    for words in (("--credential",), ("--credential", "--as", "root", "--unit", "portal.service")):
        done = brokerctl(here, "unit", *words)
        assert (done.returncode, "add --unit UNIT, without --as and --pid" in done.stderr) == (2, True)


def test_others_learn_of_themselves_alone_and_of_no_rule(here: World) -> None:
    process = here.process(APP).connect()
    process.send(request("uid", "explain").hex())
    mine = process.sock.recv(65_536)
    assert b"objections" not in mine
    assert b"allowed\x92\xa3get" in mine
    process.send(request("group", "explain").hex())
    process.send(request("grupp", "explain").hex())
    denied = process.sock.recv(65_536)
    while denied.count(b"allowed") < 2:
        denied += process.sock.recv(65_536)
    assert denied.count(b"allowed\x90") == 2, "a grant that one may not have looks like one that is not there"
