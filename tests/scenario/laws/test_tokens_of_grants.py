# A grant whose credential is another grant's token: it waits for that token, uses a living one alone, says which grant
# has none, and never holds up that grant.
from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.errors import Code
from brokerd.core.grant.state import State
from brokerd.core.ports import TransportError
from brokerd.core.secret import Secret, sha256_of
from tests.scenario.laws.helpers import failure_of, until
from tests.scenario.laws.world import LIFETIME, PROVIDER, ModelProvider, TestClock, World, world
from tests.unit.dialects.exchange_driver import jwt_of

BASE = """
[grants.base]
provider = "idp"
grant_type = "refresh_token"
client_auth = "none"
credentials = { client_id = "base" }
"""
APP = """
[grants.app]
provider = "SAME"
grant_type = "token_exchange"
client_auth = "none"
credentials = { client_id = "app", subject_token = { grant = "base" } }
"""
OTHER = PROVIDER.replace("providers.idp", "providers.sts").replace("idp.test", "sts.test")
ONE_PROVIDER = PROVIDER + "concurrency = 1\n" + BASE + APP.replace("SAME", "idp")
TWO_PROVIDERS = PROVIDER + OTHER + BASE + APP.replace("SAME", "sts")


def subjects(made: ModelProvider) -> list[str]:
    return [fields["subject_token"] for _, fields in made.asked if "subject_token" in fields]


async def imported(made: World) -> None:
    await made.broker.import_token("base", Secret(made.provider.new_refresh_token()))


async def test_an_exchange_waits_for_the_token_that_it_needs_at_the_same_provider_with_one_place(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with world(tmp_path, ONE_PROVIDER, refresher=False) as made:
        made.provider.takes = 2.0
        await imported(made)
        assert (await made.broker.get("app")).value.reveal()
        assert subjects(made.provider) == ["test-only-access-1"]
        assert trio.current_time() < 10


async def test_each_exchange_sends_the_token_that_lives_then_and_its_renewal_alone_renews_nothing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    other = ModelProvider(TestClock(), lifetime=3 * LIFETIME, refreshes=False)
    async with world(tmp_path, TWO_PROVIDERS, others={"sts": other}) as made:
        await imported(made)
        await until(lambda: made.broker.cached("app") is not None)
        await trio.sleep(1_000)
        assert (made.provider.count("refresh_token"), len(subjects(other))) == (3, 1)
        await trio.sleep(500)
        assert subjects(other) == ["test-only-access-1", "test-only-access-3"]


async def test_a_grant_without_a_token_is_named_and_its_login_helps_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    other = ModelProvider(TestClock(), refreshes=False)
    async with world(tmp_path, TWO_PROVIDERS, others={"sts": other}) as made:
        await trio.sleep(1_800)  # until the backoff is at its longest
        failure = await failure_of(made)
        assert failure.code is Code.UNAVAILABLE
        assert "it is got with the token of the grant base, which has none now: base needs a login" in failure.message
        assert "brokerctl import base" in failure.message
        assert made.broker.grant("app").record.state is State.RETRYING
        assert other.asked == []
        await imported(made)
        with trio.fail_after(1):
            await until(lambda: made.broker.cached("app") is not None)


async def test_a_provider_that_wants_to_be_left_alone_is_not_asked_earlier_by_another_grants_login(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    other = ModelProvider(TestClock(), refreshes=False)
    async with world(tmp_path, TWO_PROVIDERS, others={"sts": other}) as made:
        await until(lambda: made.broker.grant("app").record.failures > 0)
        made.provider.answers = [TransportError("no route", sent=False)]
        other.headers["retry-after"] = "600"
        other.answers = [(503, {})]
        await imported(made)
        await until(lambda: len(other.asked) == 1)
        at = trio.current_time()
        await made.broker.import_token("base", Secret(made.provider.new_refresh_token()))
        await until(lambda: len(other.asked) == 2)
        assert trio.current_time() - at >= 598


@pytest.mark.parametrize("takes", [40.0, 20.0])
async def test_the_wait_for_the_other_grants_token_is_bounded(
    tmp_path: Path, autojump_clock: MockClock, takes: float
) -> None:
    other = ModelProvider(TestClock(), refreshes=False)
    async with world(tmp_path, TWO_PROVIDERS, others={"sts": other}, refresher=False) as made:
        made.provider.takes = takes
        await imported(made)
        if takes < 30:
            assert await made.broker.get("app", wait=35)
            return
        failure = await failure_of(made, wait=35)
        assert "the grant base, which has none now" in failure.message
        assert (trio.current_time(), other.asked) == (pytest.approx(30, abs=3), [])
        assert await made.broker.get("app", wait=15)


async def test_an_expired_token_of_the_other_grant_is_never_sent(tmp_path: Path, autojump_clock: MockClock) -> None:
    other = ModelProvider(TestClock(), refreshes=False, lifetime=2 * LIFETIME)
    async with world(tmp_path, TWO_PROVIDERS, others={"sts": other}) as made:
        await imported(made)
        await until(lambda: made.broker.cached("app") is not None)
        made.provider.answers = [(503, {})] * 1_000
        await trio.sleep(2 * LIFETIME)
        assert made.broker.cached("app") is None
        assert len(other.asked) == 1
        assert "the grant base, which has none now: base" in (await failure_of(made)).message


async def test_a_reload_that_removes_the_other_grant_is_refused_and_one_that_frees_the_grant_helps(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    other = ModelProvider(TestClock(), refreshes=False)
    async with world(tmp_path, TWO_PROVIDERS, others={"sts": other}) as made:
        await trio.sleep(60)
        made.configure(TWO_PROVIDERS.replace('{ grant = "base" }', '"test-only-subject"'))
        assert await made.broker.get("app")
        assert subjects(other) == ["test-only-subject"]


async def test_a_field_of_the_other_grants_token_is_exchanged(tmp_path: Path, autojump_clock: MockClock) -> None:
    text = TWO_PROVIDERS.replace('{ grant = "base" }', '{ grant = "base", field = "id_token" }')
    text = text.replace('{ client_id = "base" }', '{ client_id = "base" }\nfields = ["id_token"]')
    other = ModelProvider(TestClock(), refreshes=False)
    async with world(tmp_path, text, others={"sts": other}, refresher=False) as made:
        said = {"access_token": "test-only-access", "expires_in": 600, "id_token": "test-only-id-token"}
        made.provider.answers = [(200, said)]
        await imported(made)
        assert await made.broker.get("app")
        assert subjects(other) == ["test-only-id-token"]
        assert other.asked[0][1]["subject_token_type"] == "urn:ietf:params:oauth:token-type:id_token"


async def test_a_token_that_is_refused_is_replaced_once_and_no_oftener_than_a_caller_may(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    other = ModelProvider(TestClock(), refreshes=False)
    async with world(tmp_path, TWO_PROVIDERS, others={"sts": other}, refresher=False) as made:
        await imported(made)
        await made.broker.get("base")
        other.answers = [(401, {"error": "invalid_client"})]
        assert await made.broker.get("app")
        assert subjects(other) == ["test-only-access-1", "test-only-access-2"]
        other.answers = [(401, {"error": "invalid_client"})] * 1_000
        for _ in range(50):
            await trio.sleep(LIFETIME / 50)
            await failure_of(made, refused=sha256_of("test-only-access-2"), wait=5)
        assert made.provider.count("refresh_token") <= 6


async def test_a_refusal_of_something_else_replaces_no_token(tmp_path: Path, autojump_clock: MockClock) -> None:
    other = ModelProvider(TestClock(), refreshes=False)
    async with world(tmp_path, TWO_PROVIDERS, others={"sts": other}, refresher=False) as made:
        await imported(made)
        await made.broker.get("base")
        other.answers = [(400, {"error": "invalid_scope"})]
        await failure_of(made, wait=0.5)
        assert (made.provider.count("refresh_token"), len(other.asked)) == (1, 1)


async def test_a_revocation_too_reads_again_what_others_renew(tmp_path: Path, autojump_clock: MockClock) -> None:
    file = tmp_path / "identity"
    file.touch(mode=0o600)
    file.write_text(first := jwt_of())
    signed = f'{{ client_id = "base", client_assertion = {{ file = "{file}" }} }}'
    text = PROVIDER + BASE.replace('client_auth = "none"\n', "").replace('{ client_id = "base" }', signed)
    async with world(tmp_path, text, refresher=False) as made:
        await imported(made)
        assert await made.broker.get("base")
        file.write_text(second := jwt_of(job=2))
        await made.broker.revoke("base")
        assert made.provider.revoked != []
        assert [fields["client_assertion"] for _, fields in made.provider.asked][:2] == [first, second]


async def test_a_token_that_was_revoked_while_the_exchange_waited_for_its_turn_is_not_sent(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    busy = APP.replace("[grants.app]", "[grants.busy]").replace("SAME", "sts").replace('{ grant = "base" }', '"own"')
    text = TWO_PROVIDERS.replace(OTHER, OTHER + "concurrency = 1\n") + busy
    other = ModelProvider(TestClock(), refreshes=False, gate=trio.Event())
    async with world(tmp_path, text, others={"sts": other}, refresher=False) as made, trio.open_nursery() as nursery:
        await imported(made)
        await made.broker.get("base")
        nursery.start_soon(made.broker.get, "busy")
        await until(lambda: len(other.asked) == 1)
        nursery.start_soon(failure_of, made)
        await trio.sleep(1)
        assert made.broker.grant("app").running is not None
        await made.broker.revoke("base")
        assert other.gate is not None
        other.gate.set()
        await until(lambda: made.broker.grant("app").running is None)
        nursery.cancel_scope.cancel()
    assert subjects(other) == ["own"]
