# Why a grant's next exchange comes when it does: one row for each reason.
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from brokerd.core.grant.next_exchange import Why, why_not, why_then
from brokerd.core.grant.record import Record
from brokerd.core.grant.renewal import Operation, Pace, Plan
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from tests.unit.core.values import NOW, access, refresh

WELL = Record("app", access_token=access(600.0), refresh_token=refresh(None), requested="read")


def plan(delay: float, **about: Any) -> Plan:
    return Plan(about.pop("operation", Operation.RENEW), delay, **about)


@pytest.mark.parametrize(
    ("changes", "planned", "shut", "expected"),
    [
        ({}, plan(400), 0, Why.LIFETIME),
        ({}, plan(0), 0, Why.DUE),
        ({"retry": NOW.after(30)}, plan(30), 0, Why.BACKOFF),
        ({"retry": NOW.after(30)}, plan(30), 20, Why.BACKOFF),
        ({"retry": NOW.after(30)}, plan(60), 60, Why.BREAKER),
        ({"retry": NOW.after(30), "retry_after": NOW.after(30)}, plan(30), 0, Why.RETRY_AFTER),
        ({"retry": NOW.after(30), "refresh_token": refresh(None, rejected=NOW)}, plan(30), 0, Why.CONFIRMATION),
        ({"retry": NOW.after(30)}, plan(400), 0, Why.LIFETIME),  # it has waited long enough by then
        ({"interrupted": NOW}, plan(540), 0, Why.INTERRUPTED),
        ({"interrupted": NOW}, plan(400, operation=Operation.ISSUE), 0, Why.LIFETIME),
        ({"requested": "write"}, plan(5), 0, Why.SCOPE),
        ({}, plan(5, early=True), 0, Why.REFRESH_TOKEN),
        ({}, plan(5, target=Target(("read",))), 0, Why.DOWNSCOPED),
        ({}, plan(5, operation=Operation.REVOKE), 0, Why.REVOCATION),
    ],
)
def test_why_it_comes_then(changes: dict[str, Any], planned: Plan, shut: float, expected: Why) -> None:
    assert why_then(replace(WELL, **changes), planned, "read", Pace(), shut, NOW) is expected


@pytest.mark.parametrize(
    ("changes", "about", "expected"),
    [
        ({}, {"blocked": True}, Why.BLOCKED),
        ({"state": State.REVOKED}, {}, Why.REVOKED),
        ({"state": State.NEEDS_LOGIN}, {}, Why.LOGIN),
        ({"refresh_token": None}, {}, Why.LOGIN),
        ({"refresh_token": None}, {"can_issue": True}, Why.NOTHING_DUE),
        ({}, {"adopted": False}, Why.NOT_ADOPTED),
        ({}, {"unstored": True}, Why.UNSTORED),
        ({}, {"pace": Pace(on_demand=True)}, Why.ON_DEMAND),
    ],
)
def test_why_nothing_is_planned(changes: dict[str, Any], about: dict[str, Any], expected: Why) -> None:
    well = {"pace": Pace(), "blocked": False, "unstored": False, "adopted": True, "can_issue": False}
    assert why_not(replace(WELL, **changes), **{**well, **about}) is expected


def test_every_reason_has_a_code_and_words_of_its_own() -> None:
    assert len({why.code for why in Why}) == len({why.words for why in Why}) == len(Why)
