# What a try that sends nothing does to a record (core/grant/repeated_request.py).
from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from brokerd.core.grant.conclusions import Sent
from brokerd.core.grant.record import Record
from brokerd.core.grant.renewal import Operation, Plan
from brokerd.core.grant.repeated_request import REFUSED, begun, not_sent, wait_before
from brokerd.core.grant.state import State
from brokerd.core.timing.backoff import LONGEST, RECHECK
from tests.unit.core.values import NOW, refresh

ISSUE, REQUEST, PASSWORD = Plan(Operation.ISSUE, 0.0), Sent(b"request"), Sent(b"request", b"password")


@pytest.mark.parametrize(
    ("record", "wait"),
    [
        (Record("app"), 0.0),
        (Record("app", refused=b"another", refused_until=NOW.after(60)), 0.0),
        (Record("app", refused=b"request", refused_until=NOW.after(60)), 60.0),
        (Record("app", refused=b"request", refused_until=NOW.after(10 * LONGEST)), LONGEST),
    ],
)
def test_the_same_request_waits_until_the_record_says(record: Record, wait: float) -> None:
    assert wait_before(record, REQUEST, NOW) == wait


def test_a_request_without_a_password_is_put_off() -> None:
    after = not_sent(Record("app"), ISSUE, REQUEST, 60.0, NOW, renews=True)
    assert after.retry == after.refused_until == NOW.after(60)
    assert after.state is State.READY


def test_a_refused_password_makes_the_grant_misconfigured_and_is_looked_at_again() -> None:
    after = not_sent(Record("app"), ISSUE, PASSWORD, inf, NOW, renews=False)
    assert (after.state, after.last_error, after.refused) == (State.MISCONFIGURED, REFUSED, b"password")
    assert after.retry == NOW.after(RECHECK)


def test_a_refresh_token_is_sent_in_place_of_a_password_that_waits() -> None:
    after = not_sent(Record("app", refresh_token=refresh()), ISSUE, PASSWORD, 60.0, NOW, renews=True)
    assert after.tried_credentials
    assert after.state is State.READY


def test_a_rotation_ahead_of_need_changes_no_state() -> None:
    after = not_sent(Record("app"), replace(ISSUE, early=True), PASSWORD, 60.0, NOW, renews=False)
    assert after == replace(Record("app"), rotation_retry=NOW.after(60))


def test_a_misconfigured_grant_begins_its_exchange_from_ready() -> None:
    assert begun(Record("app", state=State.MISCONFIGURED)).state is State.RENEWING
