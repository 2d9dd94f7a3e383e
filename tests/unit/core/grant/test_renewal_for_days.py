# Grants that renew for days at providers that never get better: every exchange is counted (vault#22575, openbao#3747).
from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from brokerd.core.exchange.outcomes import (
    Cause,
    Issued,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
)
from brokerd.core.grant import attempts
from brokerd.core.grant.conclusions import Ending, Sent, Terms, concluded
from brokerd.core.grant.record import Record, served
from brokerd.core.grant.renewal import (
    Ability,
    Operation,
    Pace,
    Plan,
    next_by_itself,
)
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from brokerd.core.timing.backoff import LONGEST, LONGEST_AHEAD
from brokerd.core.timing.moment import Moment
from tests.unit.core.values import (
    BOOT,
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


def test_a_renewal_that_is_unreadable_for_good_costs_a_grant_with_a_password_a_few_seconds() -> None:
    def unreadable(life: Life, plan: Plan) -> Record:
        if plan.operation is Operation.RENEW:
            return ended(life, plan, RetryLater("answered 200 with nothing", Cause.UNREADABLE))
        return issuing(HOUR)(life, plan)

    life = Life(unreadable, ROTATES, record(refresh_token=refresh())).run(days=HOUR / 2 / DAY)
    assert [operation for _, operation in life.attempts] == [Operation.RENEW] * 3 + [Operation.ISSUE]
    assert life.attempts[-1][0] < 10
    assert served(life.record, life.now) is not None


def test_a_rejected_refresh_token_is_sent_exactly_once_more() -> None:
    life = Life(rejecting, LOGIN_ONLY, holds(HOUR)).run(days=10)
    assert [round(at) for at, _ in life.attempts] == [2_544, round(HOUR - 60)]
    assert life.record.state is State.NEEDS_LOGIN


def test_a_refresh_token_that_one_server_of_many_rejected_goes_on() -> None:
    def stray(life: Life, plan: Plan) -> Record:
        return (rejecting if len(life.attempts) == 1 else issuing(HOUR))(life, plan)

    life = Life(stray, LOGIN_ONLY, holds(HOUR)).run(days=1)
    assert life.record.refresh_token is not None
    assert life.record.refresh_token.rejected is None
    assert life.record.state is State.READY


FAR_TOO_MANY = 3_000  # attempts: what hammers need not be watched any further


@dataclass
class Life:
    """One grant, renewed by itself as the refresher and the exchanger do it, at a provider that always does the
    same. Every step costs a microsecond, as on a real machine."""

    provider: Callable[[Life, Plan], Record]
    ability: Ability
    record: Record = field(default_factory=record)
    pace: Pace = PACE
    now: Moment = NOW
    attempted: Moment | None = None
    attempts: list[tuple[float, Operation]] = field(default_factory=list)
    looks: int = 0

    def run(self, days: float) -> Life:
        start = self.now.boot
        end = start + days * DAY
        while self.now.boot < end and len(self.attempts) < FAR_TOO_MANY:
            self.looks += 1
            plan = next_by_itself(self.record, self.ability, self.pace, self.now, self.attempted)
            if plan is None:
                break
            self.now = self.now.after(plan.delay + 1e-6)
            if plan.delay > 0 or self.now.boot >= end:
                continue  # what is due is asked again when it is due, as the broker does
            self.attempts.append((self.now.boot - start, plan.operation))
            self.attempted = self.now
            if self.record.state is State.MISCONFIGURED:
                self.record = attempts.again(self.record, can_issue=True, by_hand=False)
            self.record = self.provider(self, replace(plan, delay=0.0))
        return self

    def per_day(self) -> Counter[int]:
        return Counter(int(at // DAY) for at, _ in self.attempts)

    def in_an_hour(self) -> int:
        """The most attempts in any one hour."""
        return max(Counter(int(at // HOUR) for at, _ in self.attempts).values(), default=0)


def ended(life: Life, plan: Plan, outcome: Outcome) -> Record:
    """What the exchanger makes of it."""
    held = attempts.begun(life.record)
    ending = Ending(
        plan,
        held.generation,
        outcome,
        life.now,
        sends_stored=life.ability.sends_stored(plan.operation),
        sent=Sent(b"request"),
    )
    terms = Terms(life.ability.requested, Target(), life.ability.issue, life.pace)
    after = concluded(held, ending, terms, life.now, 0.0)
    assert after is not None
    return after


def down(life: Life, plan: Plan) -> Record:
    return ended(life, plan, RetryLater("down", Cause.UNANSWERED))


def refusing(life: Life, plan: Plan) -> Record:
    return ended(life, plan, Misconfigured("refused"))


def rejecting(life: Life, plan: Plan) -> Record:
    return ended(life, plan, Rejected("dead"))


def issuing(lifetime: float | None) -> Callable[[Life, Plan], Record]:
    def provider(life: Life, plan: Plan) -> Record:
        return ended(life, plan, Issued(tokens(f"a-{len(life.attempts)}", lifetime=lifetime)))

    return provider


def refusing_to_rotate(life: Life, plan: Plan) -> Record:
    return refusing(life, plan) if plan.early else issuing(15 * MINUTE)(life, plan)


@pytest.mark.parametrize(
    ("provider", "ability", "held", "hourly", "daily"),
    [
        # provider, ability, what is held, most attempts in the first hour, most in any later day
        pytest.param(down, ISSUES, record(), 25, 288, id="down"),
        pytest.param(down, ROTATES, record(refresh_token=refresh()), 25, 288, id="down, interrupted"),
        pytest.param(down, ROTATES, holds(2.0), 25, 288, id="down, token of two seconds"),
        pytest.param(down, TWO_LIVES, holds(15 * MINUTE), 25, 288, id="down, two lives"),
        pytest.param(
            down, replace(ROTATES, requested="write"), holds(30 * DAY, requested="read"), 25, 288, id="another scope"
        ),
        pytest.param(refusing, ISSUES, record(), 25, 288, id="refusing"),
        pytest.param(refusing, ROTATES, holds(2.0), 25, 288, id="refusing a renewal"),
        pytest.param(
            refusing,
            replace(ROTATES, requested="write"),
            holds(30 * DAY, requested="read"),
            15,
            97,
            id="refusing another scope",
        ),
        pytest.param(rejecting, ROTATES, record(refresh_token=refresh()), 25, 288, id="rejecting"),
        pytest.param(issuing(0.0), ISSUES, record(), 25, 288, id="issuing dead tokens"),
        pytest.param(issuing(-5.0), ROTATES, holds(1.0), 25, 288, id="issuing tokens of yesterday"),
        pytest.param(issuing(HOUR), ISSUES, record(), 3, 37, id="issuing for an hour"),
        pytest.param(issuing(300 * DAY), ISSUES, record(), 1, 1, id="issuing for most of a year"),
    ],
)
def test_a_provider_that_never_gets_better_is_asked_this_often(
    provider: Callable[[Life, Plan], Record], ability: Ability, held: Record, hourly: int, daily: int
) -> None:
    life = Life(provider, ability, held).run(days=4)
    assert 0 < life.in_an_hour() <= hourly
    assert max(count for day, count in life.per_day().items() if day == 0) <= hourly + daily
    assert max((count for day, count in life.per_day().items() if day > 0), default=0) <= daily
    assert life.looks <= 3 * len(life.attempts) + 10  # the delay that is returned is the one that is slept


def test_refused_credentials_are_tried_at_most_five_minutes_apart_however_long_it_lasts() -> None:
    life = Life(refusing, ISSUES).run(days=10)
    times = [at for at, _ in life.attempts]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[:4] == pytest.approx([1, 2, 4, 8], abs=0.01)
    assert max(gaps) == pytest.approx(LONGEST, abs=0.01)


def test_what_is_refused_ahead_of_need_is_tried_at_most_a_quarter_of_an_hour_apart() -> None:
    life = Life(refusing, replace(ROTATES, requested="write"), holds(30 * DAY, requested="read")).run(days=4)
    times = [at for at, _ in life.attempts]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) == pytest.approx(LONGEST_AHEAD, abs=0.01)


@pytest.mark.parametrize("lifetime", [0.01, 0.5, 1.0])
def test_lifetimes_of_a_moment_cost_one_exchange_in_a_second(lifetime: float) -> None:
    life = Life(issuing(lifetime), ISSUES).run(days=600 / DAY)
    assert 590 <= len(life.attempts) <= 601


def test_a_long_token_that_lives_for_a_moment_is_rotated_once_in_a_second_at_most() -> None:
    def rotating(life: Life, plan: Plan) -> Record:
        brought = tokens(None, f"r-{len(life.attempts)}", refresh_lifetime=0.4)
        return ended(life, plan, Issued(brought))

    held = record(access_token=access(HOUR), refresh_token=refresh(0.4))
    assert len(Life(rotating, TWO_LIVES, held).run(days=600 / DAY).attempts) <= 601


def keeping(life: Life, plan: Plan) -> Record:
    """A provider whose renewals leave the refresh token as it is; an issue brings a new one."""
    brings_access = plan.operation is Operation.RENEW or not life.ability.issue_sends_stored
    brought = tokens("a" if brings_access else None, "r" if plan.operation is Operation.ISSUE else None)
    return ended(life, plan, Issued(brought))


@pytest.mark.parametrize("wall", [NOW.wall - 365 * DAY, NOW.wall + MINUTE], ids=["behind", "ahead"])
@pytest.mark.parametrize("ability", [ROTATES, LOGIN_ONLY, TWO_LIVES, ISSUES])
def test_a_clock_that_nobody_can_trust_after_a_reboot_makes_no_loop(ability: Ability, wall: float) -> None:
    """Many virtual machines call their clock unsynchronised for ever (law 8 renews what it cannot date, once)."""
    unsure = Moment(wall, 7.0, "boot-2", trusted=False)
    life = Life(keeping, ability, holds(), now=unsure).run(days=5 / 24)
    assert 1 <= len(life.attempts) <= 10


def test_lifetimes_of_seconds_are_renewed_before_they_end() -> None:
    life = Life(issuing(6.0), ISSUES).run(days=600 / DAY)
    assert 145 <= len(life.attempts) <= 151
    gaps = [later - earlier for (earlier, _), (later, _) in zip(life.attempts, life.attempts[1:], strict=False)]
    assert max(gaps) < 6.0


def test_a_year_of_a_token_that_lives_for_months_costs_a_handful_of_exchanges() -> None:
    assert len(Life(issuing(90 * DAY), ISSUES).run(days=365).attempts) == 7


def test_a_rotation_that_is_refused_for_ever_leaves_renewals_in_their_rhythm() -> None:
    held = record(access_token=access(15 * MINUTE), refresh_token=refresh(40 * DAY, at=NOW.after(-30 * DAY)))
    life = Life(refusing_to_rotate, replace(TWO_LIVES, issue_sends_stored=True), held).run(days=9)
    operations = Counter(operation for _, operation in life.attempts)
    assert operations[Operation.ISSUE] <= 9 * 97 + 12
    assert operations[Operation.RENEW] == pytest.approx(9 * DAY / (10 * MINUTE), rel=0.02)
    assert served(life.record, life.now) is not None


def test_a_dead_grant_that_nothing_can_revive_is_not_asked_for_at_all() -> None:
    life = Life(rejecting, LOGIN_ONLY, record(refresh_token=refresh())).run(days=10)
    assert len(life.attempts) == 1
    assert life.record.state is State.NEEDS_LOGIN


def test_a_life_of_the_tests_is_lived_in_one_boot() -> None:
    assert Life(down, ISSUES).run(days=1).now.boot_id == BOOT
    assert math.isfinite(Life(down, ISSUES).run(days=1).now.boot)
