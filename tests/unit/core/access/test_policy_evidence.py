# Which evidence of a process the rules need, and which callers match no rule at all (law 9).
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.access.policy import Action, Caller, Evidence, Policy, Rule, Selector, Standing

APP, DYNAMIC = 1_001, 61_500
CALLER = Caller(7, APP, frozenset({APP}), "portal")
SEEN = Evidence(exe="/opt/portal", unit="portal.service", container="a1")


def policy(**selector: object) -> Policy:
    return Policy((Rule(("reports",), (Selector(**selector),)),), owner=990)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("selector", "needs"),
    [
        ({"uid": APP}, set()),
        ({"uid": APP, "exe": "/opt/portal"}, {"exe"}),
        ({"uid": 7, "exe": "/opt/portal"}, set()),  # it cannot match, whatever the process is
        ({"unit": "portal.service", "sha256": "0"}, {"unit", "sha256"}),
    ],
)
def test_only_evidence_that_could_decide_is_asked_for(selector: dict[str, object], needs: set[str]) -> None:
    assert Standing(policy(**selector), CALLER).needs("reports") == needs
    assert Standing(policy(**selector), CALLER).needs(None) == needs
    assert Standing(policy(**selector), replace(CALLER, uid=0)).needs("reports") == set()


def test_what_is_looked_at_does_not_tell_for_which_names_there_are_rules() -> None:
    others = Rule(("ledger",), (Selector(uid=APP, unit="ledger.service"),))
    plain = Rule(("mine*",), (Selector(uid=APP),))
    standing = Standing(Policy((*policy(uid=APP, exe="/opt/portal").rules, others, plain), owner=990), CALLER)
    assert standing.needs("reports") == standing.needs("ledger") == standing.needs("made-up") == {"exe", "unit"}
    assert standing.needs("mine-too") == set()  # what it may have anyway is not held up by a look


def test_evidence_that_could_not_be_read_matches_nothing_and_says_why() -> None:
    selector = Selector(unit="portal.service")
    assert selector.matches(replace(CALLER, evidence=SEEN))
    assert not selector.matches(CALLER)
    unread = replace(CALLER, evidence=Evidence(unread={"unit": "could not be read"}))
    assert list(selector.objections(unread)) == [("unit", "could not be read")]


def test_a_dynamic_user_matches_only_with_his_unit() -> None:
    caller = replace(CALLER, uid=DYNAMIC, gids=frozenset({44}), evidence=SEEN)
    assert not Selector(gid=44).matches(caller)
    assert not Selector(user="portal").matches(caller)
    assert Selector(unit="portal.service", gid=44).matches(caller)


def test_another_pid_namespace_matches_only_with_its_container_and_has_no_root() -> None:
    caller = replace(CALLER, foreign=True, evidence=SEEN)
    assert not Selector(uid=APP).matches(caller)
    assert not Selector(unit="portal.service").matches(caller)
    assert Selector(uid=APP, container="a1").matches(caller)
    for uid in (0, 990):
        assert not policy(uid=APP).allows(replace(caller, uid=uid), Action.STATUS, "reports")
        assert not policy(uid=APP).allows_administration(replace(caller, uid=uid))


def test_systemd_that_fetches_a_credential_is_its_unit_alone() -> None:
    seen = Evidence(unit="portal.service", slice="apps.slice", exe="/usr/lib/systemd/systemd")
    caller = Caller(7, 0, frozenset({0}), "root", frozenset({"root"}), credential="reports", evidence=seen)
    for selector in (
        {"user": "root"},
        {"uid": 0},
        {"gid": 0},
        {"group": "root"},
        {"exe": "/usr/lib/systemd/systemd", "unit": "portal.service"},
        {"user": "root", "unit": "portal.service"},
        {"unit": "other.service"},
    ):
        assert not policy(**selector).allows(caller, Action.GET, "reports"), selector
        assert not policy(**selector).allows_administration(caller)
        assert policy(**selector).allows(replace(caller, credential=None), Action.GET, "reports")
    for selector in ({"unit": "portal.service"}, {"slice": "apps.slice"}):
        assert policy(**selector).allows(caller, Action.GET, "reports")
    objections = dict(Selector(user="root", unit="portal.service").objections(caller))
    assert objections == {"user": "is that of systemd, which fetches the credential: name only the unit or its slice"}


def test_a_users_systemd_is_that_user() -> None:
    caller = replace(CALLER, credential="reports", evidence=Evidence(user_unit="job.service"))
    assert policy(user="portal", user_unit="job.service").allows(caller, Action.GET, "reports")
    assert policy(uid=990).trusts(replace(caller, uid=990))
