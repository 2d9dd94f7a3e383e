# What an exchange without a token does to a record.
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.grant import attempts, failures
from brokerd.core.grant.record import served
from brokerd.core.grant.state import State
from tests.unit.core.values import HOUR, LATER, NOW, access, refresh, renewing


def test_a_failure_holds_the_next_try_back_and_leaves_the_tokens_served() -> None:
    after = failures.failed(renewing(failures=1), "503", LATER, 2.0, interrupted=False)
    assert (after.state, after.retry, after.failures, after.last_error) == (
        State.RETRYING,
        LATER.after(2.0),
        2,
        "503",
    )
    assert after.interrupted is None
    assert after.generation == 4
    assert served(after, LATER) == access()
    assert after.refresh_token == refresh()


def test_an_interruption_is_dated_from_its_first_time() -> None:
    first = failures.failed(renewing(), "timeout", NOW, 2.0, interrupted=True)
    assert first.interrupted == NOW
    second = failures.failed(attempts.begun(first), "timeout", LATER, 2.0, interrupted=True)
    assert second.interrupted == NOW  # the token may have been used up then already


def test_a_failure_before_the_first_byte_neither_marks_nor_unmarks_an_interruption() -> None:
    assert failures.failed(renewing(), "DNS", LATER, 2.0, interrupted=False).interrupted is None
    assert failures.failed(renewing(interrupted=NOW), "DNS", LATER, 2.0, interrupted=False).interrupted == NOW


def test_refused_credentials_leave_the_grant_misconfigured_and_its_living_token_served() -> None:
    after = failures.refused(renewing(), "wrong password", NOW, HOUR, b"digest")
    assert (after.state, after.retry, after.refused, after.failures) == (
        State.MISCONFIGURED,
        NOW.after(HOUR),
        b"digest",
        1,
    )
    assert served(after, NOW) == access()
    assert after.refresh_token == refresh()


@pytest.mark.parametrize(("can_issue", "state"), [(True, State.READY), (False, State.NEEDS_LOGIN)])
def test_a_rejected_refresh_token_is_gone_and_a_living_access_token_served(can_issue: bool, state: State) -> None:
    after = failures.rejected(renewing(interrupted=NOW, retry=NOW), "expired", LATER, can_issue=can_issue)
    assert after.refresh_token is None
    assert (after.state, after.generation, after.interrupted, after.retry) == (state, 5, None, None)
    assert (after.failures, after.last_error) == (1, "expired")
    assert served(after, LATER) == access()


def test_a_failed_rotation_costs_the_living_refresh_token_nothing() -> None:
    after = failures.rotation_failed(renewing(), "403", NOW, HOUR, interrupted=False)
    assert after == replace(
        renewing(), state=State.READY, rotation_retry=NOW.after(HOUR), rotation_failures=1, last_error="403"
    )
    assert failures.rotation_failed(renewing(), "timeout", NOW, HOUR, interrupted=True).interrupted == NOW
