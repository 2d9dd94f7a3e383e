# What the beginning of an exchange, a try by hand and a restart do to a record.
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.grant import attempts
from brokerd.core.grant import revocation as revocations
from brokerd.core.grant.record import served
from brokerd.core.grant.state import IllegalMove, State
from tests.unit.core.values import LATER, NOW, access, record, refresh, renewing


@pytest.mark.parametrize("state", [State.READY, State.RETRYING])
def test_an_exchange_begins_and_leaves_the_tokens_alone(state: State) -> None:
    before = replace(renewing(), state=state)
    assert attempts.begun(before) == renewing()


@pytest.mark.parametrize("state", [State.RENEWING, State.MISCONFIGURED, State.NEEDS_LOGIN, State.REVOKED])
def test_an_exchange_begins_in_no_other_state(state: State) -> None:
    with pytest.raises(IllegalMove):
        attempts.begun(record(state=state))


@pytest.mark.parametrize("state", [State.RETRYING, State.MISCONFIGURED, State.READY])
def test_again_lets_go_what_held_the_grant_back_but_not_an_interruption(state: State) -> None:
    held = replace(renewing(retry=NOW, rotation_retry=NOW, interrupted=NOW), state=state)
    after = attempts.again(held, can_issue=False, by_hand=False)
    assert after == replace(held, state=State.READY, retry=None, rotation_retry=None)


def test_a_refused_password_is_let_go_by_hand_only() -> None:
    held = replace(renewing(refused=b"digest"), state=State.MISCONFIGURED)
    assert attempts.again(held, can_issue=True, by_hand=False).refused == b"digest"
    assert attempts.again(held, can_issue=True, by_hand=True).refused is None


@pytest.mark.parametrize(
    ("can_issue", "has_token", "state"),
    [
        (True, False, State.READY),
        (False, True, State.READY),
        (False, False, State.NEEDS_LOGIN),
    ],
)
def test_again_ends_needs_login_only_where_there_is_something_to_try(
    can_issue: bool, has_token: bool, state: State
) -> None:
    held = record(state=State.NEEDS_LOGIN, refresh_token=refresh() if has_token else None)
    assert attempts.again(held, can_issue=can_issue, by_hand=True).state is state


def test_again_does_not_end_a_revocation() -> None:
    held = revocations.revoked(renewing(), NOW)
    assert attempts.again(held, can_issue=True, by_hand=True).state is State.REVOKED


@pytest.mark.parametrize("state", [State.READY, State.RETRYING])
def test_a_grant_that_has_nothing_to_get_a_token_with_needs_a_login(state: State) -> None:
    after = attempts.needs_login_now(record(state=state, access_token=access()), "its refresh token has expired")
    assert (after.state, after.last_error) == (State.NEEDS_LOGIN, "its refresh token has expired")
    assert served(after, NOW) == access()


def test_what_is_put_off_is_only_looked_at_later() -> None:
    held = replace(renewing(), state=State.MISCONFIGURED)
    assert attempts.postponed(held, NOW, 300.0) == replace(held, retry=NOW.after(300.0))


def test_a_record_that_was_stored_while_renewing_is_tried_again() -> None:
    assert attempts.reopened(renewing(), interrupted=None) == replace(renewing(), state=State.RETRYING)


@pytest.mark.parametrize("state", [each for each in State if each is not State.RENEWING])
def test_every_other_record_is_reopened_as_it_was(state: State) -> None:
    held = replace(renewing(interrupted=NOW), state=state)
    assert attempts.reopened(held, interrupted=LATER) == held


def test_the_journal_marks_a_record_as_interrupted() -> None:
    assert attempts.reopened(renewing(), interrupted=LATER).interrupted == LATER
