# The laws of DESIGN.md 3 as far as they are the broker's, on virtual time.
from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.exchange import Request
from brokerd.core.failure import Code, Failure
from brokerd.core.ports import TransportError
from brokerd.core.record import Record
from brokerd.core.secret import Secret, sha256_of
from tests.laws.world import (
    ISSUING,
    LIFETIME,
    PASSWORD,
    REFRESHING,
    Answer,
    MemoryStore,
    ModelProvider,
    TestClock,
    World,
    world,
)


async def until(condition: object, most: float = 1e7) -> None:
    """Wait, in virtual time, until the condition holds."""
    with trio.fail_after(most):
        while not condition():  # type: ignore[operator]
            await trio.sleep(0.25)


async def imported(made: World) -> str:
    """Give the grant a refresh token; the value of the first access token that it brought."""
    await made.broker.import_token("app", Secret(made.provider.new_refresh_token()))
    return (await made.broker.get("app")).value.reveal()


async def failure_of(made: World, name: str = "app", **params: object) -> Failure:
    with pytest.raises(Failure) as caught:
        await made.broker.get(name, **params)  # type: ignore[arg-type]
    return caught.value


# -- law 1: one exchange per grant at a time


async def test_a_hundred_gets_of_a_grant_without_a_token_cause_one_request(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        made.provider.takes = 2.0
        values = []

        async def get() -> None:
            values.append((await made.broker.get("app")).value.reveal())

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(get)
        assert len(values) == 100
        assert len(set(values)) == 1
        assert len(made.provider.asked) == 1


async def test_all_waiters_share_a_failure_and_ask_no_second_time(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        made.provider.takes = 1.0
        made.provider.answers = [(503, {})]
        failures = []

        async def get() -> None:
            failures.append(await failure_of(made))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(get)
        assert {failure.code for failure in failures} == {Code.UNAVAILABLE}
        assert len(made.provider.asked) == 1


async def test_a_caller_who_goes_away_does_not_stop_the_exchange(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        made.provider.takes = 5.0
        with trio.move_on_after(1.0):
            await made.broker.get("app")
        await until(lambda: made.broker.cached("app"))
        assert len(made.provider.asked) == 1


# -- law 2: durable before served


async def test_a_rotated_token_is_not_served_before_it_is_stored(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        first = made.broker.cached("app")
        seen = []

        async def look(record: Record) -> None:
            seen.append((record.generation, made.broker.cached("app")))

        made.store.before_write = look
        await made.broker.refresh("app")
        stored = [token for generation, token in seen if generation == 3]
        assert stored == [first]
        assert made.broker.cached("app") != first


async def test_without_a_journal_nothing_that_spends_is_sent(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        value = await imported(made)
        asked = len(made.provider.asked)
        made.store.broken = True
        await trio.sleep(0.8 * LIFETIME)
        assert len(made.provider.asked) == asked
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value
        made.store.broken = False
        await until(lambda: len(made.provider.asked) > asked, 600)
        assert made.provider.reused == 0


async def test_a_token_that_could_not_be_stored_is_served_and_renewed_only_once_it_is(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)

        async def break_at_commit(record: Record) -> None:
            made.store.broken = True

        made.store.before_write = break_at_commit
        asked = len(made.provider.asked)
        await until(lambda: len(made.provider.asked) == asked + 1)
        await until(lambda: made.broker.status("app")["unstored"])
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == f"test-only-access-{asked + 1}"
        await trio.sleep(2 * LIFETIME)
        assert len(made.provider.asked) == asked + 1
        made.store.before_write, made.store.broken = None, False
        await until(lambda: made.broker.cached("app"), 600)
        assert not made.broker.status("app")["unstored"]
        assert made.provider.reused == 0


async def test_grants_that_spend_nothing_go_on_in_memory_while_the_disk_is_away(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.store.broken = True
        for _ in range(5):
            await trio.sleep(LIFETIME)
            assert made.broker.cached("app") is not None


async def test_an_answer_without_a_refresh_token_keeps_the_old_one(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        made.provider.refreshes = False
        await made.broker.import_token("app", Secret(made.provider.new_refresh_token()))
        await made.broker.get("app")
        assert made.broker.grants["app"].record.refresh_token is not None


# -- law 3: what may be used up


async def test_after_a_lost_answer_the_refresh_token_waits_for_the_end_of_the_living_token(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        value = await imported(made)
        issued = trio.current_time()
        made.provider.lost = 1
        asked = len(made.provider.asked)
        await until(lambda: len(made.provider.asked) == asked + 1)
        await until(lambda: made.broker.status("app")["interrupted"])
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value
        await until(lambda: len(made.provider.asked) == asked + 2)
        assert made.provider.times[-1] - issued >= LIFETIME - 61
        await until(lambda: made.broker.status("app")["state"] == "needs_login")
        failure = await failure_of(made, min_ttl=200)
        assert failure.code is Code.NEEDS_LOGIN
        assert "interrupted" in failure.message
        assert "brokerctl import app" in failure.message


async def test_within_the_providers_grace_a_used_token_is_sent_again_at_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    text = REFRESHING.replace("[grants.app]", "reuse_grace = 30\n[grants.app]")
    async with world(tmp_path, text) as made:
        await imported(made)
        made.provider.answers = [TransportError("connection reset", sent=True)]
        asked = len(made.provider.asked)
        await until(lambda: len(made.provider.asked) == asked + 2)
        assert made.provider.times[-1] - made.provider.times[-2] < 5
        assert made.broker.status("app")["interrupted"] is None


@pytest.mark.parametrize(
    "said",
    [TransportError("connection refused", sent=False), (429, {"error": "slow_down"})],
    ids=["before the first byte", "429"],
)
async def test_what_surely_used_nothing_marks_nothing(autojump_clock: MockClock, tmp_path: Path, said: object) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.answers = [said]  # type: ignore[list-item]
        asked = len(made.provider.asked)
        await until(lambda: len(made.provider.asked) == asked + 1)
        assert made.broker.status("app")["interrupted"] is None
        await until(lambda: len(made.provider.asked) == asked + 2)
        assert made.provider.times[-1] - made.provider.times[-2] < 3


async def test_a_crash_between_send_and_commit_is_an_interruption_at_the_next_start(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        value = await imported(made)
        provider.gate = trio.Event()
        asked = len(provider.asked)
        await until(lambda: len(provider.asked) == asked + 1)
        crashed = dict(store.records), dict(store.attempts)
        provider.gate.set()
        provider.gate = None
    store.records, store.attempts = crashed
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        assert made.broker.status("app")["interrupted"] is not None
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value
        asked = len(provider.asked)
        await trio.sleep(60)
        assert len(provider.asked) == asked


async def test_a_rejected_refresh_token_is_never_sent_again(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.valid.clear()
        await until(lambda: made.broker.status("app")["state"] == "needs_login")
        asked = len(made.provider.asked)
        await trio.sleep(10 * LIFETIME)
        assert len(made.provider.asked) == asked
        assert (await failure_of(made)).code is Code.NEEDS_LOGIN
        assert all(record.refresh_token is None for record in made.store.records.values())


async def test_spending_requests_say_that_they_spend(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        assert made.provider.connections == [True]


async def test_sigterm_starts_no_exchange(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        made.broker.flights.stopping = True
        assert (await failure_of(made)).code is Code.UNAVAILABLE
        assert made.provider.asked == []


async def test_a_2xx_that_cannot_be_read_is_an_interruption_whose_cause_stays_visible(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.answers = [(200, b"<br />Notice: Undefined index")]
        made.provider.valid.clear()
        await until(lambda: made.broker.status("app")["state"] == "needs_login")
        error = str(made.broker.status("app")["last_error"])
        assert "invalid_grant" in error
        assert "answered 200" in error
        assert "interrupted at" in error
        await imported(made)
        assert made.broker.status("app")["last_error"] is None


# -- law 4: invalid_grant is believed for the current generation only


async def test_a_rejection_is_not_believed_if_somebody_else_renewed_meanwhile(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING, refresher=False) as made:
        await imported(made)
        held = made.broker.grants["app"]
        key = ("app", held.fingerprint)
        assert held.record.access_token is not None
        newer = replace(held.record.access_token, value=Secret("test-only-theirs"))
        theirs = replace(held.record, generation=held.record.generation + 1, access_token=newer)

        async def rotate_behind_our_back() -> None:
            made.provider.gate = trio.Event()
            await until(lambda: len(made.provider.asked) == 2)
            made.store.records[key] = theirs
            made.provider.answers = [(400, {"error": "invalid_grant"})]
            made.provider.gate.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(rotate_behind_our_back)
            await made.broker.refresh("app")
        assert held.record == theirs
        assert made.store.records[key] == theirs


async def test_a_stray_rejection_costs_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    """One server of a cluster has not heard of the refresh token yet."""
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        value = await imported(made)
        issued = trio.current_time()
        provider.answers = [(400, {"error": "invalid_grant"})]
        await until(lambda: len(provider.asked) == 2)
        await trio.sleep(1)
        status = made.broker.status("app")
        assert status["state"] == "retrying"
        assert "invalid_grant (it was rejected once" in str(status["last_error"])
        assert status["remedy"] == "brokerctl import app"
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        made.bring_in()
        await until(lambda: len(provider.asked) == 3)
        assert LIFETIME - 61 <= trio.current_time() - issued <= LIFETIME - 30
        await until(lambda: made.broker.status("app")["state"] == "ready")
        assert made.broker.status("app")["remedy"] is None
        assert provider.reused == 0


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refresh_by_hand_that_meets_an_outage_leaves_the_last_try_where_it_was(
    autojump_clock: MockClock, tmp_path: Path, status: int
) -> None:
    text = REFRESHING.replace("[grants.app]", "reuse_grace = 30\n[grants.app]")
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    async with world(tmp_path, text, store=store, provider=provider) as made:
        await imported(made)
        issued = trio.current_time()
        provider.answers = [(400, {"error": "invalid_grant"}), (status, {})]
        await until(lambda: len(provider.asked) == 2)
        with pytest.raises(Failure, match=str(status)):
            await made.broker.refresh("app")
        made.bring_in()
        await trio.sleep(10)
    async with world(tmp_path, text, store=store, provider=provider) as made:
        await until(lambda: len(provider.asked) == 4)
        assert LIFETIME - 61 <= trio.current_time() - issued <= LIFETIME - 30
        await until(lambda: made.broker.status("app")["state"] == "ready")


async def test_the_second_rejection_counts(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.answers = [(400, {"error": "invalid_grant"})] * 9
        await until(lambda: made.broker.status("app")["state"] == "needs_login")
        await trio.sleep(10 * LIFETIME)
        assert len(made.provider.asked) == 3


async def test_after_an_interruption_the_first_rejection_counts(autojump_clock: MockClock, tmp_path: Path) -> None:
    text = REFRESHING.replace("[grants.app]", "reuse_grace = 30\n[grants.app]")
    async with world(tmp_path, text) as made:
        await imported(made)
        made.provider.answers = [TransportError("connection reset", sent=True), (400, {"error": "invalid_grant"})]
        await until(lambda: len(made.provider.asked) == 3)
        await until(lambda: made.broker.status("app")["state"] == "needs_login", 2)


# -- law 5: never an expired token


async def test_an_expired_token_is_not_served_even_if_nobody_could_renew_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        await made.broker.get("app")
        await trio.sleep(LIFETIME - 0.01)
        assert made.broker.cached("app") is not None
        await trio.sleep(0.02)
        assert made.broker.cached("app") is None


async def test_in_an_outage_the_valid_token_goes_on_being_served_with_its_true_expiry(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        token = await made.broker.get("app")
        made.provider.answers = [TransportError("connection refused", sent=False)] * 1000
        await trio.sleep(LIFETIME - 1)
        assert made.broker.cached("app") is token
        assert made.broker.expires_at(token) == pytest.approx(1_800_000_000 + LIFETIME, abs=1)
        await trio.sleep(2)
        failure = await failure_of(made, wait=1)
        assert failure.code is Code.UNAVAILABLE
        assert failure.retry_after is not None


async def test_min_ttl_and_refused_bring_an_exchange_forward_once_per_third_of_a_lifetime(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        token = await made.broker.get("app")
        await trio.sleep(10)
        second = await made.broker.get("app", refused=sha256_of(token.value.reveal()))
        assert second.value != token.value
        failure = await failure_of(made, refused=sha256_of(second.value.reveal()))
        assert failure.code is Code.UNAVAILABLE
        assert failure.retry_after == pytest.approx(LIFETIME / 3, abs=1)
        assert len(made.provider.asked) == 2
        await trio.sleep(LIFETIME / 3)
        await made.broker.get("app", refused=sha256_of(second.value.reveal()))
        assert len(made.provider.asked) == 3


async def test_a_min_ttl_above_half_of_the_lifetime_is_a_bad_request(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING, refresher=False) as made:
        await made.broker.get("app")
        assert (await failure_of(made, min_ttl=LIFETIME / 2 + 1)).code is Code.BAD_REQUEST


# -- law 6: refresh ahead


async def test_a_token_is_renewed_at_about_two_thirds_and_nobody_waits(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        await made.broker.get("app")
        for _ in range(200):
            await trio.sleep(LIFETIME / 10)
            assert made.broker.cached("app") is not None
        gaps = [b - a for a, b in zip(made.provider.times, made.provider.times[1:], strict=False)]
        assert len(gaps) > 20
        assert all(0.66 * LIFETIME < gap < 0.76 * LIFETIME for gap in gaps)


async def test_permanent_failure_does_not_hammer(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.provider.answers = [(500, {})] * 100_000
        await trio.sleep(86_400)
        assert 200 < len(made.provider.asked) < 400


async def test_tokens_that_are_dead_on_arrival_do_not_hammer(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        made.provider.lifetime = 0
        await trio.sleep(86_400)
        assert len(made.provider.asked) < 400
        words = str(made.broker.status("app")["last_error"])
        assert words.endswith(
            "expired: the provider says that the token lives 0 s; if that is wrong, write lifetime on the grant"
        )


async def test_a_grant_on_demand_is_renewed_only_when_somebody_asks(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING + "on_demand = true\n") as made:
        await trio.sleep(10 * LIFETIME)
        assert made.provider.asked == []
        await made.broker.get("app")
        await trio.sleep(10 * LIFETIME)
        assert len(made.provider.asked) == 1


# -- law 7: backoff, breaker, passwords


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
            made.bring_in()
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
    provider.answers = [(401, b"")] * 1_000  # without a word: not in the provider's form
    for again in ("reload", "restart"):
        secret.write_text(f"test-only-wrong-{again}")
        secret.chmod(0o600)
        async with world(tmp_path, text, store=store, provider=provider) as made:
            await trio.sleep(3_600)
            made.bring_in()  # nothing has changed
            asked = len(provider.asked)
            await trio.sleep(1)
            assert len(provider.asked) == asked
            if again == "reload":
                secret.write_text("test-only-mended")
                made.bring_in()
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


def password_file(folder: Path, password: str) -> Path:
    file = folder / "password"
    file.write_text(password)
    file.chmod(0o600)
    return file


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
            made.bring_in()
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


# -- law 8: two clocks


@pytest.mark.parametrize("step", [-86_400.0, 86_400.0], ids=["back a day", "forward a day"])
async def test_a_step_of_the_wall_clock_changes_neither_life_nor_renewal(
    autojump_clock: MockClock, tmp_path: Path, step: float
) -> None:
    async with world(tmp_path, ISSUING) as made:
        await made.broker.get("app")
        await trio.sleep(100)
        made.clock.wall_off = step
        token = made.broker.cached("app")
        assert token is not None
        assert made.broker.expires_at(token) == pytest.approx(made.clock.now().wall + LIFETIME - 100, abs=1)
        await trio.sleep(LIFETIME)
        assert len(made.provider.asked) == 2


async def test_after_a_reboot_with_an_unsynchronised_clock_tokens_are_renewed_before_they_are_served(
    autojump_clock: MockClock,
    tmp_path: Path,
) -> None:
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        value = await imported(made)
    clock.boot_id, clock.trusted = "boot-2", False
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        assert made.broker.cached("app") is None
        token = await made.broker.get("app")
        assert token.value.reveal() != value
        assert provider.count("refresh_token") == 2


async def test_after_a_restart_in_the_same_boot_tokens_are_served_at_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    store, provider = MemoryStore(), ModelProvider(TestClock())
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        value = await imported(made)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value


# -- law 10: revocation


async def test_a_revoked_grant_is_never_served_or_renewed_and_the_provider_is_told(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        done = await made.broker.revoke("app")
        assert (done.stored, done.provider) == (True, "told")
        assert len(made.provider.revoked) == 2
        asked = len(made.provider.asked)
        await trio.sleep(10 * LIFETIME)
        assert len(made.provider.asked) == asked
        assert (await failure_of(made)).code is Code.REVOKED


async def test_the_provider_is_told_of_a_revocation_as_often_as_it_takes_across_restarts(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    store, provider = MemoryStore(), ModelProvider(TestClock())
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        await imported(made)
        provider.answers = [(503, {})] * 3
        done = await made.broker.revoke("app", wait=1)
        assert (done.stored, done.provider) == (True, "pending")
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        await until(lambda: len(provider.revoked) == 2, 600)
        await until(lambda: made.broker.status("app")["pending_revocations"] == 0)


async def test_tokens_that_come_after_the_revocation_are_revoked_too(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.gate = trio.Event()
        asked = len(made.provider.asked)
        await until(lambda: len(made.provider.asked) == asked + 1)
        done = await made.broker.revoke("app", wait=1)
        assert (done.stored, done.provider) == (True, "pending")
        made.provider.gate.set()
        made.provider.gate = None
        await until(lambda: f"test-only-access-{asked + 1}" in made.provider.revoked, 600)
        await until(lambda: made.broker.status("app")["pending_revocations"] == 0)
        assert not made.provider.valid


async def test_a_revocation_that_cannot_be_written_stops_serving_all_the_same_and_says_so(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.store.broken = True
        done = await made.broker.revoke("app")
        assert not done.stored
        assert "NOT" in done.detail
        assert (await failure_of(made)).code is Code.REVOKED
        made.store.broken = False
        await until(lambda: not made.broker.status("app")["unstored"])
        assert [record.state for record in made.store.records.values()] == ["revoked"]


async def test_only_an_import_ends_a_revocation(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        await made.broker.revoke("app")
        with pytest.raises(Failure) as caught:
            await made.broker.refresh("app")
        assert caught.value.code is Code.REVOKED
        made.bring_in()
        assert (await failure_of(made)).code is Code.REVOKED
        assert await imported(made)


async def test_a_refresh_that_brings_nothing_does_not_deny_the_token_that_lives(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        await trio.sleep(0.5 * LIFETIME)
        await made.broker.refresh("app")
        await trio.sleep(3)
        with pytest.raises(Failure, match=r"^app was renewed 3 s ago$") as caught:
            await made.broker.refresh("app")
        assert (caught.value.code, caught.value.retry_after) == (Code.UNAVAILABLE, LIFETIME / 3 - 3)
        await trio.sleep(LIFETIME / 3)
        made.provider.answers = [TransportError("connection refused", sent=False)] * 3
        with pytest.raises(Failure, match=r"^app was not refreshed and keeps its token: connection refused"):
            await made.broker.refresh("app")


async def test_an_edited_configuration_does_not_end_a_revocation(autojump_clock: MockClock, tmp_path: Path) -> None:
    store, provider = MemoryStore(), ModelProvider(TestClock())
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        await imported(made)
        await made.broker.revoke("app")
        made.configure(REFRESHING.replace("idp.test", "other.test"))
        assert (await failure_of(made)).code is Code.REVOKED


# -- law 12: an answer that is not the provider's kills nothing


@pytest.mark.parametrize(
    "said",
    [
        (200, b"<html>log in to our network</html>"),
        (403, b"<html>forbidden by proxy</html>"),
        (407, b""),
        (400, b""),
        (200, b'{"access_token'),
        (200, {"no": "token"}),
        (500, {"error": "invalid_grant"}),
        (302, b""),
    ],
    ids=str,
)
async def test_an_answer_that_is_not_the_providers_kills_nothing(
    autojump_clock: MockClock, tmp_path: Path, said: tuple[int, object]
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        asked = len(made.provider.asked)
        made.provider.answers = [said]
        await until(lambda: len(made.provider.asked) == asked + 2)
        await until(lambda: made.broker.status("app")["state"] == "ready")
        assert made.broker.status("app")["last_error"] is None
        assert made.provider.reused == 0


# -- law 14: reload


async def test_an_unchanged_grant_keeps_token_and_timer_at_a_reload(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        token = await made.broker.get("app")
        at = made.broker.flights.schedule.at("app")
        await trio.sleep(10)
        made.bring_in()
        assert made.broker.cached("app") is token
        assert made.broker.flights.schedule.at("app") == pytest.approx(at)


async def test_a_new_secret_keeps_the_tokens_and_a_new_scope_renews(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        token = await made.broker.get("app")
        made.configure(ISSUING.replace("test-only-secret", "test-only-other"))
        await trio.sleep(10)
        assert made.broker.cached("app") is token
        made.configure(ISSUING + 'scope = ["read"]\n')
        await until(lambda: len(made.provider.asked) == 2, 10)
        assert made.provider.asked[1][1]["scope"] == "read"
        await trio.sleep(100)
        assert len(made.provider.asked) == 2


async def test_an_edited_url_sets_the_record_aside_and_sends_nothing_of_it(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        value = await imported(made)
        asked = len(made.provider.asked)
        made.configure(REFRESHING.replace("idp.test", "evil.test"))
        await trio.sleep(10 * LIFETIME)
        assert len(made.provider.asked) == asked
        assert (await failure_of(made)).code is Code.NEEDS_LOGIN
        made.configure(REFRESHING)
        held = made.broker.grants["app"]
        assert held.record.access_token is not None
        assert held.record.access_token.value.reveal() == value
        await until(lambda: made.broker.cached("app"))


async def test_a_vanished_grant_is_not_served_and_comes_back_with_its_tokens(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        value = await imported(made)
        made.configure(REFRESHING.partition("[grants.app]")[0])
        assert (await failure_of(made)).code is Code.UNKNOWN_GRANT
        assert made.store.dormancy
        made.configure(REFRESHING)
        token = made.broker.cached("app")
        assert token is not None
        assert token.value.reveal() == value
        assert not made.store.dormancy


# -- law 15: a store that was copied


async def test_a_copied_store_spends_nothing_until_it_is_adopted(autojump_clock: MockClock, tmp_path: Path) -> None:
    store, provider = MemoryStore(), ModelProvider(TestClock())
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        await imported(made)
    store.adopted = False
    asked = len(provider.asked)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        assert made.broker.cached("app") is not None
        await trio.sleep(2 * LIFETIME)
        assert len(provider.asked) == asked
        failure = await failure_of(made)
        assert "brokerctl adopt" in failure.message
        await made.broker.adopt()
        await made.broker.get("app")
        assert len(provider.asked) == asked + 1
