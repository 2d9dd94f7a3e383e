# Whether a token is alive, and whether it may be sent.
from __future__ import annotations

from collections.abc import Callable

import pytest

from brokerd.core.grant.tokens import AccessToken, RefreshToken, alive, usable
from tests.unit.core.values import DAY, HOUR, NOW, REBOOTED, UNSURE, access, refresh


@pytest.mark.parametrize("make", [access, refresh])
def test_a_token_expires_a_lifetime_after_it_was_issued(make: Callable[..., AccessToken | RefreshToken]) -> None:
    assert make(HOUR).expires == NOW.after(HOUR)
    assert make(None).expires is None


def test_a_token_without_a_known_expiry_is_alive() -> None:
    assert alive(access(None), NOW.after(1_000 * DAY), min_ttl=HOUR)
    assert not alive(None, NOW)


def test_a_token_of_another_boot_is_not_served_while_the_clock_is_unsure_but_may_be_sent() -> None:
    assert not alive(access(HOUR), UNSURE)
    assert usable(refresh(HOUR), UNSURE)
    assert usable(refresh(HOUR), UNSURE.after(2 * HOUR))  # nobody here can tell: the provider can


def test_a_token_that_is_known_to_be_dead_is_not_sent() -> None:
    assert not usable(refresh(HOUR), NOW.after(HOUR))
    assert not usable(refresh(HOUR), NOW._replace(trusted=False).after(HOUR))  # the same boot: its clock is sure
    assert not usable(refresh(HOUR), REBOOTED.after(HOUR))
    assert not usable(None, NOW)
    assert usable(refresh(None), NOW.after(1_000 * DAY))
