# What a provider's grants know of each other's passwords (law 7): who may send one, as part of what, and when.
from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from brokerd.core.grant.passwords import Passwords
from brokerd.core.grant.record import Doubt
from brokerd.core.timing.moment import Moment
from tests.unit.core.values import HOUR, MINUTE, NOW

DOUBT = Doubt(b"password", b"request", 2, NOW.after(HOUR))


def test_a_password_that_nobody_sent_may_go() -> None:
    assert Passwords().wait("app", b"password", b"request", NOW) == 0.0
    assert Passwords().times(b"password") == 0


def test_a_refused_password_waits_for_other_bytes_or_for_somebodys_word() -> None:
    passwords = Passwords()
    passwords.refuse(b"password")
    assert passwords.wait("app", b"password", b"another request", NOW.after(1e9)) == inf
    assert passwords.wait("app", b"other bytes", b"request", NOW) == 0.0
    passwords.trust(b"password")
    assert passwords.wait("app", b"password", b"request", NOW) == 0.0


@pytest.mark.parametrize(
    ("grant", "request_", "wait"),
    [
        pytest.param("app", b"request", HOUR - MINUTE, id="the same again"),
        pytest.param("app", b"mended", 0.0, id="mended, by the grant whose try it was"),
        pytest.param("other", b"request", HOUR - MINUTE, id="another grant"),
        pytest.param("other", b"mended", HOUR - MINUTE, id="another grant with other settings"),
    ],
)
def test_a_doubted_password_waits_for_its_time(grant: str, request_: bytes, wait: float) -> None:
    passwords = Passwords()
    passwords.doubt("app", DOUBT)
    assert passwords.times(b"password") == 2
    assert passwords.wait(grant, b"password", request_, NOW.after(MINUTE)) == wait
    assert passwords.wait(grant, b"password", request_, NOW.after(2 * HOUR)) == 0.0


def test_a_doubt_that_no_clock_can_date_after_a_reboot_counts_from_the_first_question_on() -> None:
    passwords, up = Passwords(), Moment(NOW.wall + 10 * HOUR, 5.0, "another boot", trusted=False)
    passwords.doubt("app", replace(DOUBT, times=1))
    assert passwords.wait("app", b"password", b"mended", up) == 0.0
    assert passwords.wait("app", b"password", b"request", up) == HOUR / 4
    assert passwords.wait("app", b"password", b"request", up.after(MINUTE)) == HOUR / 4 - MINUTE
    assert passwords.wait("app", b"password", b"request", up.after(HOUR)) == 0.0
    passwords.doubt("app", DOUBT)
    assert passwords.wait("app", b"password", b"request", up._replace(trusted=True)) == 0.0, "that can be dated"


def test_a_try_that_said_nothing_leaves_what_was_known_before() -> None:
    passwords, noted = Passwords(), replace(DOUBT, times=3, until=NOW.after(3 * HOUR))
    passwords.doubt("app", DOUBT)
    earlier = passwords.earlier("app", b"password", b"mended")
    assert earlier == DOUBT, "it is the old request that waits"
    passwords.doubt("app", noted)
    passwords.leave("app", b"password", earlier)
    assert passwords.times(b"password") == 2
    assert passwords.wait("app", b"password", b"request", NOW.after(MINUTE)) == HOUR - MINUTE
    later = NOW.after(2 * HOUR)
    earlier = passwords.earlier("other", b"password", b"its own")
    passwords.doubt("other", replace(noted, request=b"its own"))
    passwords.leave("other", b"password", earlier)
    assert (passwords.times(b"password"), passwords.wait("app", b"password", b"request", later)) == (2, 0.0)
    passwords.trust(b"password")
    assert passwords.earlier("app", b"password", b"request") is None
    passwords.doubt("app", noted)
    passwords.leave("app", b"password", None)
    assert passwords.times(b"password") == 0


def test_a_refusal_ends_a_doubt_and_a_success_ends_both() -> None:
    passwords = Passwords()
    passwords.doubt("app", DOUBT)
    passwords.refuse(b"password")
    assert (passwords.times(b"password"), passwords.refused) == (0, {b"password"})
    passwords.doubt("app", DOUBT)
    passwords.trust(b"password")
    assert (passwords.times(b"password"), passwords.refused) == (0, set())
