# When the tokens of a provider with a hundred thousand grants are renewed, on virtual time, with chance that repeats.
from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.grant.renewal import AHEAD, SPREAD
from brokerd.core.grant.renewal_load import FREE, MEAN, SLOTS, RenewalLoad
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment

HOUR = 3_600.0
START = 5_000_000.0  # seconds since the boot
GRANTS, RATE = 100_000, 300  # tokens, and how many are issued in a second until all grants have one


class Provider:
    """Issues tokens, and renews each one when it falls due."""

    def __init__(self, lifetime: float = HOUR) -> None:
        self.load, self.chance, self.lifetime = RenewalLoad(), Random(1), lifetime
        self.due: list[tuple[float, int]] = []
        self.renewed: list[float] = []
        self.jitters: list[float] = []

    def issue(self, grant: int, now: float) -> None:
        self.jitters.append(jitter := self.load.jitter(self.lifetime, now, self.chance.random()))
        heappush(self.due, (now + self.lifetime * (AHEAD + SPREAD * jitter), grant))

    def renew_until(self, end: float) -> None:
        while self.due and self.due[0][0] <= end:
            now, grant = heappop(self.due)
            self.renewed.append(now)
            self.issue(grant, now)

    def issue_all(self, grants: int) -> float:
        """At the start, as fast as it goes. Returns when all have a token."""
        for grant in range(grants):
            self.renew_until(now := START + grant / RATE)
            self.issue(grant, now)
        return now


def test_after_a_start_with_nothing_stored_the_load_is_flat() -> None:
    provider = Provider()
    ready = provider.issue_all(GRANTS)
    provider.renew_until(ready + 2 * HOUR)
    minutes = Counter(int((at - ready) // 60) for at in provider.renewed if at >= ready)
    mean = GRANTS * 60 / (MEAN * HOUR)
    assert [minute for minute in range(120) if not 0.8 * mean < minutes[minute] < 1.2 * mean] == []
    # Not at the price of more renewals: each token lives as long as before, but for its first one.
    assert sum(minutes.values()) == pytest.approx(120 * mean, rel=0.02)


def test_without_it_the_load_would_come_in_waves() -> None:
    """What the other test would find."""
    chance = Random(1)
    due = [START + grant / RATE + HOUR * (AHEAD + SPREAD * chance.random()) for grant in range(GRANTS)]
    minutes = Counter(int((at - START) // 60) for at in due)
    assert max(minutes.values()) > 4 * GRANTS * 60 / (MEAN * HOUR)


def test_tokens_that_a_restart_finds_are_counted() -> None:
    """All of them fall due in the same minutes, and those that are new do not."""
    now = Moment(1e9, START, "boot")
    provider = Provider()
    for _ in range(10_000):
        provider.load.note(AccessToken(Secret("t"), "Bearer", now, HOUR, 0.5), HOUR, now)
    for grant in range(100):
        provider.issue(grant, START)
    crowded = HOUR * (AHEAD + SPREAD * 0.5)
    width = 4096 / SLOTS
    assert all(abs(at - START - crowded) > width / 2 for at, _ in provider.due if at < START + HOUR * AHEAD)
    assert min(provider.jitters) < 0


@given(st.integers(1, FREE), st.floats(1.0, 1e8))
def test_a_few_grants_keep_their_time(grants: int, lifetime: float) -> None:
    provider = Provider(lifetime)
    for grant in range(grants):
        provider.issue(grant, START)
    assert all(0 <= jitter < 1 for jitter in provider.jitters)


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(-10, 1e7), st.floats(0, 1, exclude_max=True)), max_size=300))
def test_a_token_is_renewed_in_its_life_and_never_later_than_drawn(issued: list[tuple[float, float, float]]) -> None:
    load, now = RenewalLoad(), START
    for passed, lifetime, drawn in issued:
        now += passed
        for _ in range(FREE):
            jitter = load.jitter(lifetime, now, drawn)
            assert jitter <= drawn
            assert lifetime <= 0 or lifetime * (AHEAD + SPREAD * jitter) >= 0
