# The main job: every dialect, tokens that live for seconds, callers all the time. BROKERD_FULL=1 makes it two minutes.
from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import trio

from tests.daemon.harness import FIVE, FULL, Api, Brokerd, Serving, every
from tests.providers import Fleet, Provider

DURATION = 120.0 if FULL else 20.0  # seconds
LIFETIME = 6.0  # seconds
RATE = 50.0  # fetches a second
SLOWEST = 5.4  # seconds between two renewals: 2/3 of the 7 s that occam's tokens live at most, 8 % of jitter, and a bit
QUICKEST = {"ix": 3.3}  # seconds: a JWT's whole seconds make its 6 s up to one less ...
USUALLY = 3.95  # ... everybody else's live for 6 s at least

# Which requests of which provider renew which grant; where two grants share a provider their requests differ.
RENEWS = {
    "ix": ("ix-api", "refresh"),
    "occam-password": ("occam", "refresh"),
    "occam-key": ("occam", "issue_key"),
    "treezor": ("treezor", "refresh"),
    "click2mail": ("click2mail", "issue_short"),
    "oauth2": ("oauth2", "issue"),
    "oauth2-password": ("oauth2", "refresh"),
}


@pytest.mark.slow
async def test_no_token_is_refused_no_fetch_waits_and_nothing_is_renewed_too_often(
    brokerd: Brokerd, api: Api, serving: Serving
) -> None:
    fleet = await serving.all(LIFETIME)
    brokerd.configure(FIVE, every(fleet.by_name))
    brokerd.executed = True
    await brokerd.start()
    ticks, slowest = int(DURATION * RATE), 0.0
    async with brokerd.caller() as caller:
        for grant in FIVE:  # the first fetch may wait for the provider
            await caller.call("get", grant=grant)
        start = trio.current_time()
        for tick in range(ticks):
            await trio.sleep_until(start + tick / RATE)
            grant = list(FIVE)[tick % len(FIVE)]
            asked = time.perf_counter()
            token = await caller.call("get", grant=grant, wait=0)  # a living token at once, or this fails
            slowest = max(slowest, time.perf_counter() - asked)
            status, _ = await api.me(provider_of(fleet, grant), token["value"])
            assert status == 200, f"{grant}: {provider_of(fleet, grant).refusals}"
    assert slowest < 1.0, "a fetch stood still"
    for grant in FIVE:
        assert_renewed_in_time(grant, fleet)
        found = await brokerd.status(grant)
        assert (found["failures"], found["last_error"]) == (0, None)
    assert_nobody_was_bothered(fleet)


def provider_of(fleet: Fleet, grant: str) -> Provider[Any]:
    return fleet.by_name[RENEWS[grant][0]]


def assert_renewed_in_time(grant: str, fleet: Fleet) -> None:
    provider, operation = provider_of(fleet, grant), RENEWS[grant][1]
    times = provider.times(operation)
    if grant == "oauth2":  # its first issue is the password grant's neighbour
        times = [
            entry.time
            for entry in provider.requests
            if entry.operation == "issue" and b"grant_type=client_credentials" in entry.request.body
        ]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert len(gaps) >= DURATION / SLOWEST - 2, f"{grant}: {len(gaps)} renewals in {DURATION} s"
    assert all(QUICKEST.get(grant, USUALLY) <= gap <= SLOWEST for gap in gaps), f"{grant}: {gaps}"


def assert_nobody_was_bothered(fleet: Fleet) -> None:
    """Credentials were sent once for each grant that has a refresh token, and no used token ever came."""
    for provider in fleet.by_name.values():
        assert (provider.counts.reused, provider.counts.families_killed, provider.counts.refused) == (0, 0, 0)
        assert provider.counts.wrong_credentials == 0
    assert fleet.ix_api.count("issue") == 1
    assert fleet.occam.count("issue") == 1
    assert fleet.treezor.count("issue") == 1
    assert fleet.click2mail.count("issue_long") == 1
    # a long token lives for ten short ones and is rotated at two thirds of that
    assert fleet.click2mail.count("rotate_long") <= DURATION / (LIFETIME * 10 * 0.66) + 1
