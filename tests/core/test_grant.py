# The table of a grant's states: every state by every event, as DESIGN.md 2 and the laws have it.
from __future__ import annotations

import itertools

import pytest

from brokerd.core.grant import Event, IllegalMove, State, move

S, E = State, Event
# What DESIGN.md 2 says, written out anew: (state, event) → where it leads if the grant can issue, and if it cannot.
ALLOWED: dict[tuple[State, Event], tuple[State, State]] = {
    (S.READY, E.BEGIN): (S.RENEWING, S.RENEWING),
    (S.RENEWING, E.ISSUED): (S.READY, S.READY),
    (S.RENEWING, E.FAILED): (S.RETRYING, S.RETRYING),
    (S.RENEWING, E.REFUSED): (S.MISCONFIGURED, S.MISCONFIGURED),
    (S.RENEWING, E.REJECTED): (S.READY, S.NEEDS_LOGIN),
    (S.RENEWING, E.DECLINED): (S.READY, S.READY),
    (S.RETRYING, E.BEGIN): (S.RENEWING, S.RENEWING),
    (S.RETRYING, E.AGAIN): (S.READY, S.READY),
    (S.MISCONFIGURED, E.AGAIN): (S.READY, S.READY),
    (S.NEEDS_LOGIN, E.AGAIN): (S.READY, S.NEEDS_LOGIN),
    # A refresh by hand or a reload meets every state; these it leaves as they are.
    (S.READY, E.AGAIN): (S.READY, S.READY),
    (S.RENEWING, E.AGAIN): (S.RENEWING, S.RENEWING),
    (S.REVOKED, E.AGAIN): (S.REVOKED, S.REVOKED),
    **{(state, E.REVOKE): (S.REVOKED, S.REVOKED) for state in S},
    **{(state, E.GRANTED): (S.READY, S.READY) for state in S},
}
EVERY_PAIR = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), [pair for pair in EVERY_PAIR if pair in ALLOWED])
def test_a_move_of_the_table_leads_where_the_design_says(state: State, event: Event) -> None:
    can_issue, cannot_issue = ALLOWED[state, event]
    assert move(state, event, can_issue=True) is can_issue
    assert move(state, event, can_issue=False) is cannot_issue


@pytest.mark.parametrize(("state", "event"), [pair for pair in EVERY_PAIR if pair not in ALLOWED])
@pytest.mark.parametrize("can_issue", [True, False])
def test_every_other_move_is_one_error_that_names_both(state: State, event: Event, can_issue: bool) -> None:
    with pytest.raises(IllegalMove, match=f"^{event} while {state}$"):
        move(state, event, can_issue=can_issue)


def test_only_a_login_leaves_revoked() -> None:
    leaving = {event for state, event in ALLOWED if state is S.REVOKED and ALLOWED[state, event][0] is not S.REVOKED}
    assert leaving == {E.GRANTED}


def test_the_states_are_called_as_the_contract_says() -> None:
    assert list(map(str, State)) == ["ready", "renewing", "retrying", "misconfigured", "needs_login", "revoked"]
