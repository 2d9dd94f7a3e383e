# Which token of a record is served, and since when the grant fails.
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.grant.record import Record, served
from brokerd.core.grant.state import State
from brokerd.core.grant.tokens import alive
from tests.unit.core.values import HOUR, NOW, REBOOTED, access, record


def test_a_token_is_served_until_it_has_no_more_than_min_ttl_to_live() -> None:
    held = record(access_token=access(HOUR))
    assert served(held, NOW.after(HOUR - 0.001)) is held.access_token
    assert served(held, NOW.after(HOUR)) is None
    assert served(held, NOW.after(HOUR - 61), min_ttl=60) is held.access_token
    assert served(held, NOW.after(HOUR - 60), min_ttl=60) is None


@pytest.mark.parametrize("state", [each for each in State if each is not State.REVOKED])
def test_a_living_token_is_served_in_every_state_but_revoked(state: State) -> None:
    held = record(state=state, access_token=access())
    assert served(held, NOW) is held.access_token


def test_a_revoked_grant_is_never_served() -> None:
    assert served(record(state=State.REVOKED, access_token=access(None)), NOW) is None


def test_a_token_lives_on_over_a_reboot_by_the_wall_clock() -> None:
    assert alive(access(HOUR), REBOOTED)
    assert not alive(access(HOUR), REBOOTED.after(HOUR))


def test_since_when_it_fails_is_the_first_failure_until_it_works_again() -> None:
    from brokerd.core.grant.record import with_failing_since

    well = Record("app")
    first, second = (replace(well, last_error=words) for words in ("503", "timed out"))
    assert with_failing_since(well, first, NOW).failing_since == NOW
    failing = with_failing_since(well, first, NOW)
    assert (
        with_failing_since(failing, replace(second, failing_since=failing.failing_since), NOW.after(60)).failing_since
        == NOW
    )
    assert with_failing_since(failing, replace(failing, last_error=None), NOW.after(90)).failing_since is None
