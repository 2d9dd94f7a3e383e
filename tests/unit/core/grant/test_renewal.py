# When a grant is next due, and by which operation (law 6), asked at any moment.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.exchange.outcomes import (
    IssuedToken,
    Tokens,
)
from brokerd.core.grant import attempts, failures, issuance
from brokerd.core.grant import revocation as revocations
from brokerd.core.grant.record import Record
from brokerd.core.grant.renewal import (
    AHEAD,
    LEAST_INTERVAL,
    SPREAD,
    Ability,
    Operation,
    Pace,
    Plan,
    confirmed_in,
    near_end,
    next_by_itself,
    next_for_caller,
)
from brokerd.core.grant.state import State
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from tests.unit.core.values import (
    DAY,
    HOUR,
    ISSUES,
    LOGIN_ONLY,
    MINUTE,
    NOW,
    PACE,
    ROTATES,
    TWO_LIVES,
    access,
    holds,
    record,
    refresh,
    tokens,
)

lifetimes = st.floats(0.5, 400 * DAY)


jitters = st.floats(0, 1, exclude_max=True)

REBOOTED = Moment(NOW.wall + MINUTE, 7.0, "boot-2")


def by_itself(
    held: Record, ability: Ability, now: Moment = NOW, *, attempted: Moment | None = None, **pace: object
) -> Plan | None:
    return next_by_itself(held, ability, Pace(**pace), now, attempted)  # type: ignore[arg-type]


def for_caller(
    held: Record, ability: Ability, now: Moment = NOW, *, attempted: Moment | None = None, **pace: object
) -> Plan | None:
    return next_for_caller(held, ability, Pace(**pace), now, attempted)  # type: ignore[arg-type]


def rounded(plan: Plan | None) -> Plan | None:
    return plan and replace(plan, delay=round(plan.delay, 3))


def test_a_grant_without_a_token_is_due_at_once() -> None:
    assert by_itself(record(), ISSUES) == Plan(Operation.ISSUE, 0.0)
    assert by_itself(record(refresh_token=refresh()), LOGIN_ONLY) == Plan(Operation.RENEW, 0.0)


def test_a_renewal_comes_at_about_two_thirds_of_the_lifetime() -> None:
    assert rounded(by_itself(holds(3_000, jitter=0.0), ROTATES)) == Plan(Operation.RENEW, 2_000.0)
    assert rounded(by_itself(holds(3_000, jitter=0.5), ROTATES)) == Plan(Operation.RENEW, 2_120.0)


@given(lifetimes, jitters)
def test_seconds_and_months_are_both_renewed_between_two_thirds_and_three_quarters(life: float, jitter: float) -> None:
    plan = by_itself(record(access_token=access(life, jitter=jitter)), ISSUES)
    assert plan is not None
    assert plan.delay == pytest.approx(life * (AHEAD + SPREAD * jitter), abs=1e-5)
    assert 0.66 * life < plan.delay < 0.75 * life


@given(lifetimes, jitters, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_jitter_stays_with_the_token_so_that_looking_again_moves_nothing(
    life: float, jitter: float, looks: list[float]
) -> None:
    held = record(access_token=access(life, jitter=jitter))
    first = by_itself(held, ISSUES)
    assert first is not None
    for share in looks:
        passed = share * first.delay
        again = by_itself(held, ISSUES, NOW.after(passed))
        assert again is not None
        assert passed + again.delay == pytest.approx(first.delay, abs=1e-5)


def test_grants_issued_together_part() -> None:
    delays = {by_itself(holds(HOUR, jitter=n / 10), ROTATES).delay for n in range(10)}  # type: ignore[union-attr]
    assert len(delays) == 10


@pytest.mark.parametrize("lifetime", [60.0, HOUR, 400 * DAY])
def test_a_token_without_a_known_expiry_is_renewed_every_lifetime_of_the_settings(lifetime: float) -> None:
    plan = by_itself(holds(None, jitter=0.0), ROTATES, lifetime=lifetime)
    assert plan is not None
    assert plan.delay == pytest.approx(min(lifetime, 30 * DAY) * AHEAD, rel=0.06)


def test_a_token_that_cannot_be_renewed_by_itself_is_left_alone() -> None:
    assert by_itself(record(access_token=access()), LOGIN_ONLY) is None


def test_a_grant_on_demand_is_renewed_when_somebody_asks_and_not_before() -> None:
    held, dead = record(access_token=access()), NOW.after(2 * HOUR)
    assert by_itself(held, ISSUES, dead, on_demand=True) is None
    assert by_itself(record(), ISSUES, on_demand=True) is None
    assert for_caller(held, ISSUES, dead, on_demand=True) == Plan(Operation.ISSUE, 0.0)


def test_a_token_of_another_boot_is_renewed_at_once_while_the_clock_is_unsure() -> None:
    assert by_itself(holds(), ROTATES, REBOOTED._replace(trusted=False)) == Plan(Operation.RENEW, 0.0)
    assert rounded(by_itself(holds(), ROTATES, REBOOTED)) == Plan(Operation.RENEW, round(HOUR * 0.7066667 - MINUTE, 3))


def test_a_living_refresh_token_is_used_before_credentials() -> None:
    assert for_caller(holds(), ROTATES) == Plan(Operation.RENEW, 0.0)


def test_where_the_refresh_token_is_dead_credentials_issue_anew() -> None:
    assert for_caller(holds(), ROTATES, NOW.after(31 * DAY)) == Plan(Operation.ISSUE, 0.0)
    assert for_caller(record(), ROTATES) == Plan(Operation.ISSUE, 0.0)


def test_where_the_refresh_token_is_dead_and_nothing_can_issue_there_is_nothing_to_do() -> None:
    assert for_caller(holds(), LOGIN_ONLY, NOW.after(31 * DAY)) is None
    assert by_itself(holds(), LOGIN_ONLY, NOW.after(31 * DAY)) is None


def test_a_refresh_token_is_not_used_where_the_dialect_has_no_renewal() -> None:
    assert for_caller(holds(), ISSUES) == Plan(Operation.ISSUE, 0.0)


@pytest.mark.parametrize("state", [State.RENEWING, State.NEEDS_LOGIN])
def test_nothing_is_due_while_an_exchange_runs_or_a_person_is_needed(state: State) -> None:
    assert by_itself(holds(state=state), ROTATES, NOW.after(DAY)) is None
    assert for_caller(holds(state=state), ROTATES, NOW.after(DAY)) is None


def test_a_revoked_grant_is_never_renewed() -> None:
    revoked = revocations.revoked(holds(), NOW)
    assert for_caller(revoked, ROTATES) is None
    assert by_itself(replace(revoked, pending_revocations=()), ROTATES) is None


def test_the_provider_is_told_of_a_revocation_as_soon_as_nothing_holds_it_back() -> None:
    revoked = revocations.revoked(holds(retry=NOW.after(DAY)), NOW)
    assert by_itself(revoked, ROTATES) == Plan(Operation.REVOKE, 0.0)
    put_off = replace(revoked, revocation_retry=NOW.after(60))
    assert by_itself(put_off, ROTATES) == Plan(Operation.REVOKE, 60.0)
    assert by_itself(put_off, ROTATES, on_demand=True) == Plan(Operation.REVOKE, 60.0)


def test_the_provider_is_told_of_old_tokens_also_where_a_new_life_has_begun() -> None:
    revoked = revocations.revoked(holds(), NOW)
    begun_anew = issuance.granted(revoked, Tokens(refresh_token=IssuedToken(Secret("imported"))), NOW, 0.5, "")
    put_off = replace(begun_anew, revocation_retry=NOW.after(60))
    assert by_itself(put_off, ROTATES) == Plan(Operation.RENEW, 0.0)  # what is due first goes first
    renewed = issuance.issued(attempts.begun(put_off), tokens(), NOW, 0.5, "")
    assert by_itself(renewed, ROTATES) == Plan(Operation.REVOKE, 60.0)
    assert by_itself(attempts.begun(renewed), ROTATES) is None  # one exchange at a time


@pytest.mark.parametrize("state", [State.RETRYING, State.MISCONFIGURED])
def test_a_failure_holds_the_next_try_back(state: State) -> None:
    held = holds(state=state, retry=NOW.after(2.9 * HOUR))
    assert rounded(by_itself(held, ROTATES, NOW.after(HOUR))) == Plan(Operation.RENEW, round(1.9 * HOUR, 3))
    assert rounded(for_caller(held, ROTATES, NOW.after(HOUR))) == Plan(Operation.RENEW, round(1.9 * HOUR, 3))
    assert for_caller(held, ROTATES, NOW.after(3 * HOUR)) == Plan(Operation.RENEW, 0.0)


def test_a_retry_that_is_due_before_the_token_needs_it_waits_for_the_token() -> None:
    held = holds(state=State.RETRYING, retry=NOW.after(1.0))
    assert rounded(by_itself(held, ROTATES)) == Plan(Operation.RENEW, 2_544.0)


def test_two_exchanges_that_nobody_asked_for_are_a_second_apart() -> None:
    held = holds(0.3)
    plan = by_itself(held, ROTATES, NOW.after(0.4), attempted=NOW)
    assert plan is not None
    assert plan.delay == pytest.approx(LEAST_INTERVAL - 0.4)
    assert by_itself(held, ROTATES, NOW.after(1.1), attempted=NOW) == Plan(Operation.RENEW, 0.0)


def interrupted(**more: object) -> Record:
    return holds(state=State.RETRYING, interrupted=NOW.after(30 * MINUTE), retry=NOW.after(31 * MINUTE), **more)


@pytest.mark.parametrize("choose", [by_itself, for_caller])
@pytest.mark.parametrize("ability", [ROTATES, LOGIN_ONLY])
def test_an_interrupted_refresh_token_is_not_risked_before_the_access_token_nears_its_end(
    choose: Callable[..., Plan | None], ability: Ability
) -> None:
    plan = choose(interrupted(), ability, NOW.after(45 * MINUTE))
    assert rounded(plan) == Plan(Operation.RENEW, 14 * MINUTE)  # a minute before the end
    assert choose(interrupted(), ability, NOW.after(59 * MINUTE)) == Plan(Operation.RENEW, 0.0)


@pytest.mark.parametrize("choose", [by_itself, for_caller])
def test_an_interrupted_refresh_token_is_sent_again_within_the_grace_of_its_provider(
    choose: Callable[..., Plan | None],
) -> None:
    held = interrupted()
    in_grace, after_it = NOW.after(31 * MINUTE + 1), NOW.after(33 * MINUTE)
    assert for_caller(held, ROTATES, in_grace, reuse_grace=120.0) == Plan(Operation.RENEW, 0.0)
    assert rounded(choose(held, ROTATES, after_it, reuse_grace=120.0)) == Plan(Operation.RENEW, 26 * MINUTE)


def test_without_a_living_access_token_an_interrupted_refresh_token_is_sent_as_soon_as_the_retry_is_due() -> None:
    held = replace(interrupted(), access_token=None)
    assert rounded(for_caller(held, ROTATES, NOW.after(30 * MINUTE + 5))) == Plan(Operation.RENEW, 55.0)
    assert for_caller(held, ROTATES, NOW.after(32 * MINUTE)) == Plan(Operation.RENEW, 0.0)


def test_an_interruption_does_not_hold_an_exchange_that_spends_nothing() -> None:
    spends_nothing = replace(ROTATES, renew_sends_stored=False)
    assert for_caller(interrupted(), spends_nothing, NOW.after(45 * MINUTE)) == Plan(Operation.RENEW, 0.0)


def test_an_interruption_that_seems_to_lie_ahead_is_not_within_any_grace() -> None:
    """The wall clock fell back over a reboot: nobody knows how long ago it was, and the provider named no grace."""
    held = replace(interrupted(), retry=None, access_token=access(HOUR, at=NOW))
    plan = for_caller(held, ROTATES, Moment(NOW.wall + 20 * MINUTE, 7.0, "boot-2"))
    assert rounded(plan) == Plan(Operation.RENEW, 39 * MINUTE)


@given(lifetimes, jitters)
def test_a_token_nears_its_end_in_its_last_tenth_and_within_its_last_minute(life: float, jitter: float) -> None:
    wait = near_end(access(life, jitter=jitter), NOW)
    assert wait == pytest.approx(life - min(life / 10, 60), abs=1e-5)


def test_no_token_or_one_without_an_end_holds_nothing_back() -> None:
    assert near_end(None, NOW) == 0.0
    assert near_end(access(None), NOW) == 0.0
    assert near_end(access(HOUR), NOW.after(2 * HOUR)) == 0.0


def test_a_refresh_token_that_ends_first_is_replaced_ahead_of_its_end() -> None:
    held = record(access_token=access(10 * DAY), refresh_token=refresh(2 * DAY, jitter=0.0))
    assert rounded(by_itself(held, LOGIN_ONLY)) == Plan(Operation.RENEW, round(2 * DAY * AHEAD, 3))
    assert rounded(by_itself(held, LOGIN_ONLY, on_demand=True)) == Plan(Operation.RENEW, round(2 * DAY * AHEAD, 3))


def test_a_long_token_that_a_renewal_does_not_replace_is_rotated_early() -> None:
    held = record(access_token=access(10 * DAY), refresh_token=refresh(2 * DAY, jitter=0.0))
    assert rounded(by_itself(held, TWO_LIVES)) == Plan(Operation.ISSUE, round(2 * DAY * AHEAD, 3), early=True)


def test_a_refresh_token_that_renewals_leave_as_it_is_is_issued_anew_ahead_of_its_end() -> None:
    """Another renewal would bring another access token, and the same refresh token once more."""
    at = NOW.after(25 * DAY)
    held = record(access_token=access(HOUR, at=at), refresh_token=replace(refresh(30 * DAY), kept=True))
    assert by_itself(held, ROTATES, at) == Plan(Operation.ISSUE, 0.0, early=True)
    assert rounded(by_itself(held, LOGIN_ONLY, at)) == Plan(Operation.RENEW, 2_544.0)  # to its end, as nothing helps


def test_a_renewal_that_is_due_before_the_rotation_goes_first() -> None:
    held = record(access_token=access(15 * MINUTE), refresh_token=refresh(30 * DAY))
    plan = by_itself(held, TWO_LIVES)
    assert plan is not None
    assert (plan.operation, plan.early) == (Operation.RENEW, False)


def test_a_rotation_that_failed_waits_while_renewals_go_on() -> None:
    at = NOW.after(25 * DAY)
    held = record(access_token=access(15 * MINUTE, at=at), refresh_token=refresh(30 * DAY))
    assert by_itself(held, TWO_LIVES, at) == Plan(Operation.ISSUE, 0.0, early=True)
    failed = replace(held, rotation_retry=at.after(HOUR))
    renewal = by_itself(failed, TWO_LIVES, at)
    assert renewal is not None
    assert (renewal.operation, renewal.early) == (Operation.RENEW, False)
    soon = replace(held, rotation_retry=at.after(MINUTE))
    assert rounded(by_itself(soon, TWO_LIVES, at)) == Plan(Operation.ISSUE, MINUTE, early=True)


def test_a_rotation_is_not_tried_where_its_short_token_is_dead() -> None:
    at = NOW.after(25 * DAY)
    held = record(access_token=access(15 * MINUTE), refresh_token=refresh(30 * DAY))
    assert by_itself(held, TWO_LIVES, at) == Plan(Operation.RENEW, 0.0)


def test_a_long_token_that_nothing_can_rotate_is_used_to_its_end() -> None:
    held = record(access_token=access(10 * DAY), refresh_token=refresh(2 * DAY))
    only_renews = Ability(issue=False, renew=True)
    plan = by_itself(held, only_renews)
    assert plan is not None
    assert plan.operation is Operation.RENEW
    assert plan.delay > 6 * DAY


def test_an_interruption_does_not_hold_a_rotation_that_spends_nothing() -> None:
    at = NOW.after(25 * DAY)
    held = record(access_token=access(HOUR, at=at), refresh_token=refresh(30 * DAY), interrupted=at)
    from_credentials = replace(TWO_LIVES, issue_sends_stored=False)
    assert by_itself(held, from_credentials, at.after(MINUTE)) == Plan(Operation.ISSUE, 0.0, early=True)


def test_an_interrupted_rotation_is_not_risked_again_before_the_access_token_nears_its_end() -> None:
    """Law 3 for a rotation: it spends, and nobody knows whether the first one took effect."""
    at = NOW.after(25 * DAY)
    held = record(access_token=access(15 * MINUTE, at=at, jitter=0.0), refresh_token=refresh(30 * DAY))
    held = failures.rotation_failed(replace(held, state=State.RENEWING), "timeout", at, 1.0, interrupted=True)
    plan = by_itself(held, TWO_LIVES, at.after(MINUTE))
    assert plan is not None
    assert not plan.early or plan.delay >= 13 * MINUTE


def test_where_the_configuration_asks_for_something_else_a_token_is_issued_anew_at_once() -> None:
    held = holds(requested="read")
    assert by_itself(held, replace(ROTATES, requested="write")) == Plan(Operation.ISSUE, 0.0, early=True)
    assert rounded(by_itself(held, replace(ROTATES, requested="read"))) == Plan(Operation.RENEW, 2_544.0)


def test_a_grant_that_cannot_issue_asks_for_the_other_scope_by_a_renewal() -> None:
    assert by_itself(holds(requested="read"), replace(LOGIN_ONLY, requested="write")) == Plan(Operation.RENEW, 0.0)


def test_a_failed_issue_for_another_scope_waits_while_renewals_go_on() -> None:
    soon = holds(requested="read", rotation_retry=NOW.after(MINUTE))
    assert by_itself(soon, replace(ROTATES, requested="write")) == Plan(Operation.ISSUE, MINUTE, early=True)
    late = holds(requested="read", rotation_retry=NOW.after(HOUR))
    assert rounded(by_itself(late, replace(ROTATES, requested="write"))) == Plan(Operation.RENEW, 2_544.0)


def test_where_renewals_keep_failing_and_no_token_lives_the_credentials_have_their_turn() -> None:
    def operation(held: Record, ability: Ability = ROTATES) -> Operation:
        plan = for_caller(held, ability, NOW.after(2 * HOUR))
        assert plan is not None
        return plan.operation

    dead = record(access_token=access(HOUR), refresh_token=refresh(), state=State.RETRYING)
    turns = [operation(replace(dead, failures=failures)) for failures in range(5)]
    assert turns == [Operation.RENEW] * 3 + [Operation.ISSUE] * 2
    assert operation(replace(dead, failures=4, tried_credentials=True)) is Operation.RENEW
    assert operation(replace(dead, failures=3), LOGIN_ONLY) is Operation.RENEW
    lives = replace(dead, failures=3, access_token=access(3 * HOUR))
    assert operation(lives) is Operation.RENEW


@pytest.mark.parametrize(
    ("lifetime", "passed", "delay"),
    [
        pytest.param(HOUR, 0.7 * HOUR, 0.3 * HOUR - 60, id="a minute before its end"),
        pytest.param(100.0, 70.0, 20.0, id="a tenth before its end"),
        pytest.param(100.0, 89.0, 1.0, id="hardly more than a tenth is left"),
        pytest.param(100.0, 91.0, None, id="less than a tenth is left"),
        pytest.param(100.0, 200.0, None, id="dead"),
        pytest.param(None, 0.7 * HOUR, 0.3 * HOUR - 60, id="an end that nobody knows is taken for the setting's"),
    ],
)
def test_a_rejection_is_confirmed_near_the_end_of_the_living_token(
    lifetime: float | None, passed: float, delay: float | None
) -> None:
    found = confirmed_in(access(lifetime), PACE, NOW.after(passed))
    assert found == (None if delay is None else pytest.approx(delay))


def test_a_grant_without_a_living_token_confirms_nothing() -> None:
    assert confirmed_in(None, PACE, NOW) is None


def test_a_token_that_is_a_credential_is_due_when_it_must_be_read_and_never_by_time() -> None:
    held, later = record(access_token=access(None)), NOW.after(30 * DAY)
    read, unread = (replace(ISSUES, unread=each) for each in (False, True))
    assert next_by_itself(held, read, PACE, later, None) is None
    assert next_by_itself(held, unread, PACE, later, None) == Plan(Operation.ISSUE, 0.0)
    assert next_by_itself(record(), read, PACE, NOW, None) == Plan(Operation.ISSUE, 0.0)
