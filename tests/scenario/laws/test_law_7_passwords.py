# Law 7, the whole broker on virtual time: a password that was refused, or may have been, is not sent again too early.
from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.errors import Code, Failure
from brokerd.core.exchange.steps import Request
from tests.scenario.laws.helpers import failure_of, password_file, until
from tests.scenario.laws.world import LIFETIME, PASSWORD, Answer, MemoryStore, ModelProvider, TestClock, world


async def test_a_refused_password_is_sent_once_also_over_restarts(autojump_clock: MockClock, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("test-only-wrong\n")
    password.chmod(0o600)
    text = PASSWORD.replace("PASSWORD", str(password))
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    for _ in range(20):
        async with world(tmp_path, text, store=store, provider=provider) as made:
            assert (await failure_of(made)).code is Code.MISCONFIGURED
            await trio.sleep(3_600)
            made.apply()
            await trio.sleep(10)
    assert len(provider.asked) == 1
    async with world(tmp_path, text, store=store, provider=provider) as made:
        password.write_text(provider.password)
        await until(lambda: made.broker.cached("app"), 600)
    assert len(provider.asked) == 2


async def test_a_refused_password_is_sent_again_when_an_operator_says_so(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("test-only-wrong")
    password.chmod(0o600)
    async with world(tmp_path, PASSWORD.replace("PASSWORD", str(password))) as made:
        await failure_of(made)
        with pytest.raises(Failure):
            await made.broker.refresh("app")
        assert len(made.provider.asked) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_a_password_that_may_have_been_refused_waits_a_quarter_of_an_hour_then_an_hour(
    autojump_clock: MockClock, tmp_path: Path, status: int
) -> None:
    text = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-password")))
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    provider.answers = [(status, {"detail": "Incorrect username or password"})] * 1_000
    for _ in range(5):
        async with world(tmp_path, text, store=store, provider=provider) as made:
            await trio.sleep(2_000)
            made.apply()
            assert (await failure_of(made)).code is Code.MISCONFIGURED
    gaps = [later - earlier for earlier, later in itertools.pairwise(provider.times)]
    assert 900 <= gaps[0] <= 1.25 * 900 + 1
    assert all(3_600 <= gap <= 1.25 * 3_600 + 61 for gap in gaps[1:])
    assert len(gaps) == 3


@pytest.mark.parametrize("restarts", [False, True])
async def test_an_outage_between_two_refusals_that_are_perhaps_of_the_password_does_not_make_them_fewer(
    autojump_clock: MockClock, tmp_path: Path, restarts: bool
) -> None:
    text = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-password")))
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    provider.answers = [(401, b""), (503, {})] * 1_000
    for _ in range(10):
        async with world(tmp_path, text, store=store, provider=provider):
            await trio.sleep(3_600)
            if not restarts:
                await trio.sleep(9 * 3_600)
                break
    gaps = [later - earlier for earlier, later in itertools.pairwise(provider.times[::2])]
    assert 900 <= gaps[0] <= 1.25 * 900 + 301
    assert all(3_600 <= gap <= 1.25 * 3_600 + 361 for gap in gaps[1:])
    assert len(gaps) >= 7
    assert all(b - a <= 301 for a, b in zip(provider.times[1::2], provider.times[2::2], strict=False)), "the outage"


async def test_a_password_that_was_refused_is_not_sent_again_because_a_code_beside_it_is_new(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.write_text("123456")
    code.chmod(0o600)
    text = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-wrong")))
    text += f'request.issue = {{ otp = {{ file = "{code}" }} }}\n'
    async with world(tmp_path, text) as made:
        serve = made.provider._serve

        def renewing(request: Request, fields: dict[str, str]) -> Answer:
            code.write_text(f"{len(made.provider.asked):06}")
            return serve(request, fields)

        made.provider._serve = renewing  # type: ignore[method-assign]
        await trio.sleep(1_000)
        assert made.provider.count("password") == 1


async def test_grants_with_the_same_doubted_password_try_it_once_together(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    one = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-password")))
    text = one + "".join(one[one.index("[grants.app]") :].replace("app]", f"app{n}]") for n in range(9))
    async with world(tmp_path, text) as made:
        made.provider.answers = [(400, {"detail": "no"})]
        await trio.sleep(600)
        assert len(made.provider.asked) == 1
        await until(lambda: all(made.broker.cached(name) for name in made.broker.grants), 2_000)


async def test_a_password_whose_answer_nobody_heard_is_not_sent_again_at_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    text = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-wrong")))
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock, takes=5.0)
    for _ in range(5):
        async with world(tmp_path, text, store=store, provider=provider):  # killed while the answer is on its way
            await trio.sleep(1)
    assert len(provider.asked) == 1


async def test_a_password_that_cannot_be_noted_is_not_sent(autojump_clock: MockClock, tmp_path: Path) -> None:
    text = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-password")))
    async with world(tmp_path, text, refresher=False) as made:
        made.store.broken = True
        assert "the store cannot be written" in (await failure_of(made)).message
        assert made.provider.asked == []
        made.store.broken = False
        assert await made.broker.get("app")


async def test_a_password_that_has_proved_right_is_sent_again_after_a_crash(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    text = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-password")))
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock, refreshes=False)
    async with world(tmp_path, text, store=store, provider=provider) as made:
        await made.broker.get("app")
        provider.takes = 5.0
        asked = len(provider.asked)
        await until(lambda: len(provider.asked) == asked + 1)
    async with world(tmp_path, text, store=store, provider=provider) as made:
        await trio.sleep(120)
        assert len(provider.asked) == asked + 2


async def test_a_refused_client_does_not_make_its_password_refused(autojump_clock: MockClock, tmp_path: Path) -> None:
    one = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-password")))
    text = one + one[one.index("[grants.app]") :].replace("app]", "right]")
    async with world(tmp_path, text) as made:
        made.provider.answers = [(401, {"error": "invalid_client"})]
        await until(lambda: made.broker.cached("app") and made.broker.cached("right"), 10)


async def test_where_renewals_stay_unreadable_the_password_brings_tokens(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    text = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-password")))
    async with world(tmp_path, text) as made:
        await made.broker.get("app")
        died = trio.current_time() + LIFETIME
        serve = made.provider._serve

        def unreadable(request: Request, fields: dict[str, str]) -> Answer:
            return (200, b"") if fields["grant_type"] == "refresh_token" else serve(request, fields)

        made.provider._serve = unreadable  # type: ignore[method-assign]
        await until(lambda: made.provider.count("password") == 2, 3 * LIFETIME)
        assert died <= trio.current_time() <= died + 1
        await until(lambda: made.broker.cached("app"), 10)


async def test_after_an_outage_the_refresh_token_brings_tokens_while_the_password_still_waits(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    text = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-password")))
    async with world(tmp_path, text) as made:
        await made.broker.get("app")
        serve = made.provider._serve
        made.provider._serve = lambda *_: (401, {"detail": "no route"})  # type: ignore[method-assign]
        await until(lambda: made.provider.count("password") == 2, 3 * LIFETIME)
        await trio.sleep(60)
        made.provider._serve = serve  # type: ignore[method-assign]
        await until(lambda: made.broker.cached("app"), 310)
        assert made.provider.count("password") == 2, "it may have been refused"


async def test_a_refresh_by_hand_sends_a_doubted_password_also_after_the_refresh_tokens_turn(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    text = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-password")))
    async with world(tmp_path, text) as made:
        await made.broker.get("app")
        serve = made.provider._serve
        made.provider._serve = lambda *_: (401, {"detail": "no"})  # type: ignore[method-assign]
        await until(lambda: made.provider.count("password") == 2, 3 * LIFETIME)

        def rejecting(request: Request, fields: dict[str, str]) -> Answer:
            is_renewal = fields["grant_type"] == "refresh_token"
            return (400, {"error": "invalid_grant"}) if is_renewal else serve(request, fields)

        made.provider._serve = rejecting  # type: ignore[method-assign]
        await made.broker.refresh("app")
        assert made.provider.count("password") == 3
        assert not made.broker.grants["app"].insisted, "that word was for this time"


@pytest.mark.parametrize(
    "answer", [(400, {"error": "invalid_grant"}), (401, {"detail": "no"})], ids=["refused", "perhaps refused"]
)
async def test_a_refresh_by_hand_while_a_password_is_on_its_way_sends_it_no_second_time(
    autojump_clock: MockClock, tmp_path: Path, answer: Answer
) -> None:
    text = PASSWORD.replace("PASSWORD", str(password_file(tmp_path, "test-only-password")))
    async with world(tmp_path, text) as made:
        made.provider.takes = 5.0
        made.provider.answers = [answer]
        await until(lambda: made.provider.count("password") == 1)
        with pytest.raises(Failure):
            await made.broker.refresh("app")
        made.apply()
        await trio.sleep(800)
        assert made.provider.count("password") == 1
        with contextlib.suppress(Failure):
            await made.broker.refresh("app")
        assert made.provider.count("password") == 2, "who refreshes after the answer says so"


async def test_a_refresh_by_hand_counts_for_the_password_that_was_mended_while_the_other_was_on_its_way(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    file = password_file(tmp_path, "test-only-wrong")
    async with world(tmp_path, PASSWORD.replace("PASSWORD", str(file))) as made:
        made.provider.takes = 5.0
        await until(lambda: made.provider.count("password") == 1)
        file.write_text(made.provider.password)
        assert await made.broker.refresh("app", wait=30.0)
        assert made.provider.count("password") == 2
