# What real servers do beyond the documents, one test each: brokerd copes, at strict servers on loopback or by the
# dialect alone. Those of logins are in tests of their own.
from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from brokerd_client.blocking import Broker
from trio.testing import MockClock

from brokerd.dialects.oauth2.dialect import OAuth2 as Dialect
from brokerd.dialects.recipe.dialect import RecipeDialect
from brokerd.dialects.recipe.file import read_recipe
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, Table, at
from tests.scenario.laws.helpers import failure_of
from tests.scenario.laws.world import PASSWORD, ModelProvider, TestClock, world
from tests.servers import OAUTH2_ODD_CLIENT, OAUTH2_ODD_SECRET, OAuth2
from tests.unit.dialects.exchange_driver import BASE, NOW, answer, meaning, outcome, sent, view
from tests.unit.dialects.recipe.built_in_grants import tokens_of

HOUR = 3_600.0
ODD: Table = {"client_id": OAUTH2_ODD_CLIENT, "client_secret": OAUTH2_ODD_SECRET}
PASSWORD_GRANT: Table = {**FIVE["oauth2-password"], "scope": ["read", "write"]}


# -- client authentication


@pytest.mark.parametrize(("encoded", "method"), [(True, "client_secret_basic"), (False, "client_secret_basic_raw")])
async def test_basic_that_takes_only_encoded_or_only_raw_secrets(
    brokerd: Brokerd, serving: Serving, encoded: bool, method: str
) -> None:
    provider = await serving(OAuth2())
    provider.settings.basic_encoded = encoded
    if not encoded:  # which no client can send a colon or letters beyond ASCII to
        client = provider.settings.clients[OAUTH2_ODD_CLIENT]
        provider.settings.clients["odd client"] = type(client)("odd client", "a %20b+/&=", client.methods)
    credentials = ODD if encoded else {"client_id": "odd client", "client_secret": "a %20b+/&="}
    other = {"client_secret_basic", "client_secret_basic_raw"} - {method}
    grants = {
        name: {
            "provider": "oauth2",
            "grant_type": "client_credentials",
            "client_auth": each,
            "credentials": credentials,
        }
        for name, each in (("right", method), ("wrong", *other))
    }
    brokerd.configure(grants, {"oauth2": at(provider)})
    await brokerd.start()
    assert await brokerd.get("right")
    assert (await brokerd.error("get", grant="wrong"))["code"] == "misconfigured"


def test_raw_basic_is_what_is_written() -> None:
    settings = {"grant_type": "client_credentials", "client_auth": "client_secret_basic_raw"}
    request = sent(Dialect(f"{BASE}/token").issue(view({"client_id": "a b", "client_secret": "c%d"}, settings)))
    assert request.headers["Authorization"] == f"Basic {base64.b64encode(b'a b:c%d').decode()}"


# -- refusals without a word, and with the wrong one


async def test_an_invalid_request_for_a_bad_password_is_a_refused_password(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    provider.settings.wrong_password = "invalid_request"
    wrong = {**PASSWORD_GRANT["credentials"], "password": "test-only-wrong"}
    brokerd.configure({"app": {**PASSWORD_GRANT, "credentials": wrong}}, {"oauth2": at(provider)})
    await brokerd.start()
    for _ in range(2):
        for _ in range(3):
            assert (await brokerd.error("get", grant="app"))["code"] == "misconfigured"
        await brokerd.restart()
    assert provider.count("issue") == 1
    assert provider.counts.wrong_credentials == 1


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_password_that_is_refused_without_a_word_waits_a_quarter_of_an_hour_and_then_an_hour(
    autojump_clock: MockClock, tmp_path: Path, status: int
) -> None:
    """It may be wrong, or its account locked, which a blind retry prolongs; or it was no word of the provider's."""
    (tmp_path / "password").write_text("test-only-password")
    (tmp_path / "password").chmod(0o600)
    provider = ModelProvider(TestClock())
    provider.answers = [(status, b"")] * 3
    text = PASSWORD.replace("PASSWORD", str(tmp_path / "password"))
    async with world(tmp_path, text, provider=provider) as made:
        assert "0 bytes" in (await failure_of(made)).message
        await trio.sleep(2 * HOUR)
        first, second = (later - earlier for earlier, later in pairwise(provider.times))
        assert HOUR / 4 <= first < HOUR / 2
        assert HOUR <= second < 1.5 * HOUR
        store = made.store
    tries = len(provider.asked)
    async with world(tmp_path, text, provider=provider, store=store) as made:  # a restart is nobody's word
        await failure_of(made)
        assert len(provider.asked) == tries
        await trio.sleep(2 * HOUR)
        assert await made.broker.get("app")  # nothing was killed by it


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refusal_without_a_word_kills_no_refresh_token(status: int) -> None:
    """Law 12: it is in nobody's own form. A recipe whose provider has no such form says so by naming no reason."""
    seen = view({"client_id": "a"}, {"grant_type": "refresh_token", "client_auth": "none"}, refresh="test-only-refresh")
    silent = answer(status)
    assert meaning(outcome(Dialect(f"{BASE}/token").renew(seen), silent)) == "silent"
    assert meaning(outcome(header_recipe(errors={"reason": "message"}).renew(seen), silent)) == "silent"
    assert meaning(outcome(header_recipe().renew(seen), silent)) == "rejected"


# -- where tokens and times stand


def header_recipe(**more: object) -> RecipeDialect:
    """Tokens in headers of a 201, as Keystone gives them, and its end in the body."""
    refused = {"400": "rejected", "401": "rejected", "403": "rejected"}
    raw = {
        "issue": [{"request": "POST /v3/auth/tokens"}],
        "renew": {"request": "POST /renew", "errors": refused, "json": {"token": "{refresh_token?}"}},
        "answer": {"access_token": {"at": "header:X-Subject-Token", "expires_at": "token.expires_at"}},
        **more,
    }
    return RecipeDialect(read_recipe("keystone", raw), BASE, {})


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("body", [{"token": {}}, b"", b"\r\n"])
def test_a_token_in_a_header_with_a_body_or_without(status: int, body: object) -> None:
    heard = answer(status, body, {"x-subject-token": "test-only-token"})
    found = tokens_of(header_recipe().issue(view({})), heard)
    assert found.access_token is not None
    assert found.access_token.value.reveal() == "test-only-token"
    assert meaning(outcome(header_recipe().issue(view({})), answer(status, body))) == "unreadable"
    page = answer(status, b"<html>", {"x-subject-token": "test-only-token"})
    assert meaning(outcome(header_recipe().issue(view({})), page)) == "unreadable"


END = datetime(2001, 1, 1, tzinfo=UTC) + timedelta(seconds=int(NOW.wall) - 978_307_200 + 3_600)


@pytest.mark.parametrize("minutes", [-720, -210, -1, 0, 1, 330, 345, 840])
@pytest.mark.parametrize(
    "form", ["{:%Y-%m-%dT%H:%M:%S.%f%z}", "{:%Y-%m-%dt%H:%M:%S.%f}{offset}", "{:%Y-%m-%d %H:%M:%S,%f %z}"]
)
def test_ends_in_iso_8601_with_microseconds_and_any_offset(minutes: int, form: str) -> None:
    local = (END + timedelta(microseconds=250_000)).astimezone(timezone(timedelta(minutes=minutes)))
    written = form.format(local, offset="z" if minutes == 0 else local.isoformat()[-6:])
    heard = answer(201, {"token": {"expires_at": written}}, {"x-subject-token": "test-only-token"})
    found = tokens_of(header_recipe().issue(view({})), heard)
    assert found.access_token is not None
    assert found.access_token.lifetime == pytest.approx(3_600.25 - NOW.wall % 1, abs=0.001)


# -- what was granted


async def test_scopes_that_are_silently_dropped_are_shown(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    provider.settings.scopes_dropped = frozenset({"write"})
    brokerd.configure({"app": PASSWORD_GRANT}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    status = await brokerd.status("app")
    assert (status["scope"], status["scope_dropped"]) == (["read"], ["write"])
    provider.settings.scope_in_answer = False  # who says nothing granted all (RFC 6749 §5.1)
    await brokerd.call("refresh", grant="app")
    status = await brokerd.status("app")
    assert (status["scope"], status["scope_dropped"]) == (None, [])


async def test_a_lower_case_bearer_is_presented_as_the_apis_want_it(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    provider.settings.token_type = "bearer"
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()

    def as_an_application() -> dict[str, str]:
        with Broker(brokerd.socket) as broker:
            return broker.get("app").header

    value = await brokerd.get("app")
    assert (await brokerd.call("get", grant="app"))["token_type"] == "bearer"
    assert await trio.to_thread.run_sync(as_an_application) == {"Authorization": f"Bearer {value}"}
