# A provider that has one token, which a renewal extends (Vault): it is access and refresh token in one, it does not
# outlive itself, and where no renewal moves its end any more a new one is got ahead of it.
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.grant import issuance
from brokerd.core.grant.record import Record
from brokerd.core.grant.renewal import AHEAD, Ability, Operation, Pace, Plan, next_by_itself
from brokerd.core.grant.state import State
from tests.unit.core.values import HOUR, MINUTE, NOW, access, record, refresh, tokens

EXTENDS = Ability(issue=True, renew=True)
IMPORTED = Ability(issue=False, renew=True)


def renewed(passed: float, lifetime: float, value: str = "access-1") -> Record:
    """A token of an hour, renewed after so many seconds: what came has so many left then."""
    before = record(state=State.RENEWING, access_token=access(HOUR), refresh_token=refresh(None))
    return issuance.issued(before, tokens(value, lifetime=lifetime), NOW.after(passed), 0.3, "")


def test_a_token_that_is_extended_does_not_outlive_itself() -> None:
    assert renewed(HOUR / 2, HOUR).superseded == ()
    assert renewed(HOUR / 2, HOUR, "access-2").superseded == (access(HOUR),)


@pytest.mark.parametrize(("passed", "lifetime"), [(40 * MINUTE, HOUR), (40 * MINUTE, 45 * MINUTE), (2.0, HOUR - 2)])
def test_while_its_end_moves_it_is_renewed(passed: float, lifetime: float) -> None:
    held = renewed(passed, lifetime)
    assert held.refresh_token == replace(refresh(None), kept=True)
    plan = next_by_itself(held, EXTENDS, Pace(), NOW.after(passed), None)
    assert plan is not None
    assert plan.operation is Operation.RENEW


@pytest.mark.parametrize("lifetime", [20 * MINUTE, 35 * MINUTE])
def test_where_its_end_moves_no_more_another_is_issued_ahead_of_it(lifetime: float) -> None:
    at = NOW.after(40 * MINUTE)
    held = renewed(40 * MINUTE, lifetime)
    assert held.refresh_token == replace(refresh(lifetime, at=at, jitter=0.3), kept=True)
    plan = next_by_itself(held, EXTENDS, Pace(), at, None)
    assert plan == Plan(Operation.ISSUE, pytest.approx(lifetime * (AHEAD + 0.08 * 0.3)), early=True)


def test_where_nothing_can_be_issued_it_is_renewed_to_its_end() -> None:
    plan = next_by_itself(renewed(40 * MINUTE, 20 * MINUTE), IMPORTED, Pace(), NOW.after(40 * MINUTE), None)
    assert plan is not None
    assert plan.operation is Operation.RENEW


def test_another_token_with_a_shorter_life_says_nothing_of_the_refresh_token() -> None:
    assert renewed(40 * MINUTE, MINUTE, "access-2").refresh_token == replace(refresh(None), kept=True)
