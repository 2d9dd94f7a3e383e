# Law 7, the whole broker on virtual time: backoff, breaker, Retry-After, and clients and secrets that were refused.
from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.errors import Code
from brokerd.core.ports import TransportError
from tests.scenario.laws.helpers import failure_of, until
from tests.scenario.laws.world import ISSUING, LIFETIME, PASSWORD, MemoryStore, ModelProvider, TestClock, world


async def test_retry_after_is_never_undercut(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.provider.headers = {"retry-after": "120"}
        made.provider.answers = [(503, {})]
        await until(lambda: len(made.provider.asked) == 2)
        assert made.provider.times[1] - made.provider.times[0] >= 120


async def test_a_provider_that_is_down_is_left_alone_and_costs_its_own_grants_only(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    grants = "".join(
        f"""
[grants.g{n}]
provider = "idp"
grant_type = "client_credentials"
credentials = {{ client_id = "c{n}", client_secret = "test-only-secret" }}
"""
        for n in range(50)
    )
    other = """
[providers.well]
dialect = "oauth2"
token_url = "https://well.test/token"
[grants.well]
provider = "well"
grant_type = "client_credentials"
credentials = { client_id = "w", client_secret = "test-only-secret" }
"""
    clock = TestClock()
    well = ModelProvider(clock)
    provider = ModelProvider(clock)
    provider.answers = [TransportError("connection refused", sent=False)] * 100_000
    async with world(tmp_path, ISSUING + grants + other, provider=provider, others={"well": well}) as made:
        await trio.sleep(3_600)
        assert len(provider.asked) < 150  # 51 grants by themselves would have asked more than 600 times
        assert made.broker.cached("well") is not None
        assert len(well.asked) == pytest.approx(3_600 / (0.7 * LIFETIME), abs=1.5)
        provider.answers = []
        await until(lambda: all(made.broker.cached(name) for name in made.broker.grants), 900)


async def test_the_breaker_survives_a_restart(autojump_clock: MockClock, tmp_path: Path) -> None:
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    provider.answers = [TransportError("connection refused", sent=False)] * 1_000
    async with world(tmp_path, ISSUING, store=store, provider=provider):
        await trio.sleep(2_000)
    asked = len(provider.asked)
    for _ in range(20):
        async with world(tmp_path, ISSUING, store=store, provider=provider):
            await trio.sleep(1)
    assert len(provider.asked) - asked <= 1


async def test_a_secret_that_spreads_slowly_costs_seconds(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.provider.answers = [(401, {"error": "invalid_client"})] * 4
        await until(lambda: made.broker.cached("app"), 20)
        assert made.broker.status("app")["last_error"] is None


async def test_a_refused_client_is_tried_every_five_minutes_and_called_misconfigured(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.provider.answers = [(401, {"error": "invalid_client"})] * 1_000
        await trio.sleep(86_400)
        assert made.broker.status("app")["state"] == "misconfigured"
        gaps = [later - earlier for earlier, later in itertools.pairwise(made.provider.times)]
        assert gaps[0] < 2
        assert max(gaps) <= 301
        assert (await failure_of(made)).code is Code.MISCONFIGURED


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_a_retry_after_is_obeyed_and_exceeded_by_a_tenth_at_most(
    autojump_clock: MockClock, tmp_path: Path, status: int
) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.provider.headers = {"retry-after": "86400"}
        made.provider.answers = [(status, {"error": "invalid_client"} if status < 500 else {})]
        await trio.sleep(1.1 * 86_400)
        assert 86_400 <= made.provider.times[1] - made.provider.times[0] <= 1.1 * 86_400


async def test_a_mended_secret_is_tried_at_once_at_a_reload_and_at_a_restart(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    text = ISSUING.replace('"test-only-secret"', f'{{ file = "{secret}" }}')
    provider.answers = [(401, b"")] * 1_000  # without a word: not in the provider's format
    for again in ("reload", "restart"):
        secret.write_text(f"test-only-wrong-{again}")
        secret.chmod(0o600)
        async with world(tmp_path, text, store=store, provider=provider) as made:
            await trio.sleep(3_600)
            made.apply()  # nothing has changed
            asked = len(provider.asked)
            await trio.sleep(1)
            assert len(provider.asked) == asked
            if again == "reload":
                secret.write_text("test-only-mended")
                made.apply()
                await trio.sleep(1)
                assert len(provider.asked) == asked + 1
    asked = len(provider.asked)
    async with world(tmp_path, text, store=store, provider=provider):
        await trio.sleep(1)
        assert len(provider.asked) == asked, "a start is not a person"
    secret.write_text("test-only-mended-again")
    async with world(tmp_path, text, store=store, provider=provider):
        await trio.sleep(61)
        assert len(provider.asked) == asked + 1


async def test_who_asks_after_a_restart_waits_for_the_try_that_is_held_back(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    provider.answers = [TransportError("connection refused", sent=False)] * 3
    async with world(tmp_path, ISSUING, store=store, provider=provider):
        while len(provider.asked) < 3:
            await trio.sleep(0.1)
    provider.answers = []
    async with world(tmp_path, ISSUING, store=store, provider=provider) as made:
        before = len(provider.asked)
        assert (await made.broker.get("app")).value.reveal()
        assert len(provider.asked) == before + 1


async def test_a_secret_file_is_read_again_before_misconfigured_is_believed(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("test-only-old")
    password.chmod(0o600)
    clock = TestClock()
    provider = ModelProvider(clock, password="test-only-old", refreshes=False, lifetime=100)
    async with world(tmp_path, PASSWORD.replace("PASSWORD", str(password)), provider=provider) as made:
        await made.broker.get("app")
        provider.password = "test-only-new"
        password.write_text("test-only-new")
        for _ in range(20):
            await trio.sleep(20)
            assert made.broker.cached("app") is not None
