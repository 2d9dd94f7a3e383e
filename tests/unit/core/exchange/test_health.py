# What is remembered of a provider's last requests: a bounded number of times, and since when it fails.
from __future__ import annotations

from brokerd.core.exchange.health import KEPT, Health, answered, failed, percentile, restored, timed
from brokerd.core.exchange.outcomes import Cause
from brokerd.core.timing.moment import Moment

NOW = Moment(1_700_000_000.0, 100.0, "boot")


def test_only_the_last_times_are_kept() -> None:
    health = Health()
    for number in range(3 * KEPT):
        health = timed(health, float(number))
    assert health.times == tuple(map(float, range(2 * KEPT, 3 * KEPT)))


def test_it_fails_since_the_first_failure_after_an_answer() -> None:
    health = answered(Health(), NOW)
    for seconds, cause in ((1, Cause.UNREACHABLE), (2, Cause.UNANSWERED)):
        health = failed(health, cause, NOW.after(seconds))
    assert (health.last_ok, health.failing_since, health.cause) == (NOW, NOW.after(1), Cause.UNANSWERED)
    health = answered(health, NOW.after(3))
    assert (health.last_ok, health.failing_since, health.cause) == (NOW.after(3), None, None)


def test_percentiles_are_times_that_were_measured() -> None:
    times = tuple(float(each) for each in range(100, 0, -1))
    assert (percentile(times, 0.5), percentile(times, 0.99)) == (50.0, 99.0)
    assert (percentile((0.3,), 0.5), percentile((0.3,), 0.99), percentile((), 0.5)) == (0.3, 0.3, None)


def test_after_a_start_a_provider_fails_since_its_grants_do() -> None:
    later, ok = NOW.after(60), NOW.wall - 1
    assert restored([(later, Cause.UNANSWERED), (NOW, Cause.UNREACHABLE)], ok).failing_since == NOW
    assert restored([(later, Cause.UNANSWERED), (NOW, Cause.UNREACHABLE)], ok).cause is Cause.UNREACHABLE
    assert restored([(later, Cause.UNANSWERED), (NOW, Cause.UNREACHABLE)], NOW.wall + 1).failing_since == later
    assert restored([(NOW, Cause.LIMITED), (NOW, Cause.STRANGE)], ok) == Health(), "it answers"
    assert restored([(NOW, Cause.UNREACHABLE)], NOW.wall + 1) == Health(), "it has worked for another grant since"
