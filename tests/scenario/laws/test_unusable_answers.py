# Answers with a good refresh token that cannot be used otherwise (law 3), and two grants of one account, one of them
# with a mistake in its configuration (law 7). The whole broker on virtual time.
from __future__ import annotations

from pathlib import Path

import jwt
import pytest
import trio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from trio.testing import MockClock

from brokerd.core.errors import Failure
from brokerd.core.exchange.steps import Request
from tests.scenario.laws.helpers import imported, password_file, until
from tests.scenario.laws.world import (
    LIFETIME,
    PASSWORD,
    REFRESHING,
    Answer,
    MemoryStore,
    ModelProvider,
    TestClock,
    world,
)


async def test_the_refresh_token_of_a_2xx_that_cannot_be_used_replaces_the_stored_one(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        await imported(made)
        provider.valid.clear()
        newer = provider.new_refresh_token()
        provider.answers = [(200, {"access_token": "two\nlines", "refresh_token": newer, "expires_in": 600})]
        await until(lambda: made.broker.status("app")["failures"] == 1)
        (kept,) = store.records.values()
        assert kept.refresh_token is not None
        assert kept.refresh_token.value.reveal() == newer
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        await until(lambda: made.broker.status("app")["state"] == "ready" and made.broker.cached("app"), LIFETIME)
        assert provider.reused == 0
        assert made.broker.status("app")["last_error"] is None


@pytest.mark.parametrize("stored", ["the newer", "the older"])
async def test_of_a_pair_of_tokens_in_a_500_the_newer_is_tried_first_and_the_older_is_not_lost(
    autojump_clock: MockClock, tmp_path: Path, stored: str
) -> None:
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:
        await imported(made)
        issued = trio.current_time()
        newer = provider.new_refresh_token()
        provider.valid.clear() if stored == "the newer" else provider.valid.discard(newer)
        provider.valid |= {newer} if stored == "the newer" else set()
        provider.answers = [(500, {"access_token": "test-only-a", "refresh_token": newer, "expires_in": 600})]
        await until(lambda: made.broker.status("app")["failures"] == 1)
        assert made.broker.status("app")["interrupted"] is not None
    async with world(tmp_path, REFRESHING, store=store, provider=provider) as made:  # both are in the record
        asked = len(provider.asked)
        await until(lambda: len(provider.asked) == asked + 1, LIFETIME)
        assert provider.asked[-1][1]["refresh_token"] == newer
        assert trio.current_time() - issued < LIFETIME - 61, "the newer one was never sent, and need not wait"
        if stored == "the older":
            await until(lambda: len(provider.asked) == asked + 2, LIFETIME)
            assert trio.current_time() - issued >= LIFETIME - 61, "the older one may be used up"
        await until(lambda: made.broker.status("app")["state"] == "ready" and made.broker.cached("app"), 5)
        assert made.broker.status("app")["interrupted"] is None
        assert provider.reused == 0


KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


async def test_a_wrong_audience_of_one_grant_costs_the_other_one_nothing_and_the_mend_is_tried_at_once(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    key.write_text(PEM)
    key.chmod(0o600)
    password = password_file(tmp_path, "test-only-password")
    one = PASSWORD.replace('"none"', '"private_key_jwt"').replace("PASSWORD", str(password))
    one = one.replace('client_id = "app"', f'client_id = "app", private_key = {{ file = "{key}" }}')
    right = (
        one[one.index("[grants.app]") :].replace("app]", "right]") + 'client_assertion = { audience = "token_url" }\n'
    )
    wrong = one + 'client_assertion = { audience = "https://elsewhere.test" }\n' + right
    mended = wrong.replace("https://elsewhere.test", "https://idp.test/token")
    clock, store = TestClock(), MemoryStore()
    provider = ModelProvider(clock)
    serve = provider._serve

    def checking(request: Request, fields: dict[str, str]) -> Answer:
        claims = jwt.decode(fields["client_assertion"], options={"verify_signature": False})
        return (
            serve(request, fields) if claims["aud"] == "https://idp.test/token" else (401, {"error": "invalid_client"})
        )

    provider._serve = checking  # type: ignore[method-assign]
    async with world(tmp_path, wrong, store=store, provider=provider) as made:
        await trio.sleep(120)
        assert made.broker.cached("right")
        assert made.broker.status("app")["state"] == "misconfigured"
        with pytest.raises(Failure, match="invalid_client"):
            await made.broker.get("app")
        made.configure(mended)
        await until(lambda: made.broker.cached("app"), 1)
    store.records = {key: record for key, record in store.records.items() if key[0] != "app"}
    async with world(tmp_path, wrong, store=store, provider=provider):
        await trio.sleep(120)
    async with world(tmp_path, mended, store=store, provider=provider) as made:
        await until(lambda: made.broker.cached("app"), 61)
