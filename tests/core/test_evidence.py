# What rules ask of the process itself, and who matches none whatever they say (law 9).
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.policy import Action, Caller, Evidence, Policy, Rule, Selector, Standing

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
