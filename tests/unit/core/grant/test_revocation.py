# What a revocation does to a record.
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.exchange.outcomes import IssuedToken, Tokens
from brokerd.core.grant import attempts, issuance
from brokerd.core.grant import revocation as revocations
from brokerd.core.grant.record import PendingRevocation, served
from brokerd.core.grant.state import State
from brokerd.core.secret import Secret
from tests.unit.core.values import DAY, HOUR, LATER, NOW, UNSURE, access, record, refresh, renewing, tokens


def test_revocation_dooms_the_living_tokens_and_serves_nothing_from_then_on() -> None:
    after = revocations.revoked(renewing(interrupted=NOW, retry=NOW, failures=2), LATER)
    assert after.pending_revocations == (
        PendingRevocation(access_token=access()),
        PendingRevocation(refresh_token=refresh()),
    )
    assert (after.access_token, after.refresh_token, after.state) == (None, None, State.REVOKED)
    assert (after.generation, after.interrupted, after.retry, after.failures) == (5, None, None, 0)
    assert served(after, LATER) is None


def test_the_provider_is_not_told_of_tokens_that_are_dead_already() -> None:
    after = revocations.revoked(renewing(), NOW.after(2 * HOUR))
    assert after.pending_revocations == (PendingRevocation(refresh_token=refresh()),)
    assert revocations.revoked(renewing(), NOW.after(60 * DAY)).pending_revocations == ()


def test_the_provider_is_told_of_tokens_whose_death_no_clock_can_tell() -> None:
    assert len(revocations.revoked(renewing(), UNSURE).pending_revocations) == 2


@pytest.mark.parametrize("state", list(State))
def test_a_grant_can_be_revoked_in_every_state(state: State) -> None:
    assert revocations.revoked(record(state=state), NOW).state is State.REVOKED


def test_revoking_again_forgets_no_token_that_is_still_to_be_told() -> None:
    once = revocations.revoked(renewing(), NOW)
    assert revocations.revoked(once, LATER).pending_revocations == once.pending_revocations


def test_tokens_that_come_for_a_revoked_grant_are_doomed_and_not_served() -> None:
    before = revocations.revoked(renewing(), NOW)
    after = revocations.came_late(before, tokens("access-2", "refresh-2"), LATER)
    values = [(each.access_token or each.refresh_token).value.reveal() for each in after.pending_revocations]  # type: ignore[union-attr]
    assert values == ["access-1", "refresh-1", "access-2", "refresh-2"]
    assert (after.state, after.generation) == (State.REVOKED, before.generation + 1)
    assert (after.access_token, after.refresh_token) == (None, None)
    assert served(after, LATER) is None


def test_a_late_refresh_token_alone_is_doomed_too() -> None:
    after = revocations.came_late(record(state=State.REVOKED), tokens(None, "refresh-2"), LATER)
    assert [each.refresh_token is not None for each in after.pending_revocations] == [True]


def test_what_the_provider_could_not_be_told_is_told_again_later() -> None:
    before = revocations.revoked(renewing(), NOW)
    once = revocations.revocation_failed(before, "503", LATER, 2.0)
    twice = revocations.revocation_failed(once, "503", LATER, 4.0)
    assert once == replace(before, revocation_retry=LATER.after(2.0), revocation_failures=1, last_error="503")
    assert twice == replace(before, revocation_retry=LATER.after(4.0), revocation_failures=2, last_error="503")


def test_a_token_that_the_provider_knows_of_is_told_no_more() -> None:
    before = revocations.revoked(renewing(), NOW)
    after = revocations.provider_told(
        revocations.revocation_failed(before, "503", LATER, 2.0), before.pending_revocations[0]
    )
    assert after == replace(before, pending_revocations=before.pending_revocations[1:])


def test_access_tokens_that_were_replaced_and_live_are_told_of_too() -> None:
    first = issuance.issued(renewing(), tokens("access-2", lifetime=HOUR), NOW.after(HOUR / 2), 0.5, "")
    second = issuance.issued(attempts.begun(first), tokens("access-3"), NOW.after(2 * HOUR / 3), 0.5, "")
    assert [each.value.reveal() for each in second.superseded] == ["access-1", "access-2"]
    revoked = revocations.revoked(second, NOW.after(1.2 * HOUR))  # the first has ended by then
    told_of = [(each.access_token or each.refresh_token).value.reveal() for each in revoked.pending_revocations]  # type: ignore[union-attr]
    assert told_of == ["access-2", "access-3", "refresh-1"]
    assert revoked.superseded == ()


def test_a_token_that_an_import_replaced_is_told_of_when_the_grant_is_revoked() -> None:
    """It is still good at the provider, and revocation is for every token that is alive (law 10)."""
    imported = issuance.granted(
        replace(renewing(), state=State.READY), Tokens(refresh_token=IssuedToken(Secret("imported"))), LATER, 0.5, ""
    )
    told_of = [each.access_token for each in revocations.revoked(imported, LATER).pending_revocations]
    assert access() in told_of
