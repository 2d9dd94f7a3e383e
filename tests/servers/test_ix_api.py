# Our ix-api: each operation and each error that its document describes.
from __future__ import annotations

import json
from urllib.parse import urlencode

import jwt
import pytest

from tests.servers import IX_API_KEY, IX_API_SECRET, Clock, IxApi, Occam, ix_api, serve
from tests.servers.plain_client import FORM, JSON, NOON, ix_pair, ix_refresh, me, post_form, post_json, send


async def test_ix_api_answers_a_pair_of_jwts_that_say_when_they_expire() -> None:
    settings = ix_api.Settings(now=Clock(NOON), access_lifetime=5.5, refresh_lifetime=600)
    async with serve(ix := IxApi(settings)):
        pair = await ix_pair(ix)
        assert set(pair) == {"access_token", "refresh_token"}
        for name, seconds in (("access_token", 6), ("refresh_token", 600)):
            claims = jwt.decode(pair[name], options={"verify_signature": False})
            assert (claims["iat"], claims["exp"] - claims["iat"]) == (int(NOON), seconds)


async def test_ix_api_can_state_fractions_and_answer_200() -> None:
    settings = ix_api.Settings(now=Clock(NOON), access_lifetime=5.5, whole_seconds=False, success_status=200)
    async with serve(ix := IxApi(settings)):
        pair = await ix_pair(ix, status=200)
        claims = jwt.decode(pair["access_token"], options={"verify_signature": False})
        assert (claims["iat"], claims["exp"]) == (NOON, NOON + 5.5)


async def test_ix_api_serves_each_token_until_its_exp() -> None:
    clock = Clock(NOON)
    async with serve(ix := IxApi(ix_api.Settings(now=clock, access_lifetime=6))):
        pair = await ix_pair(ix)
        clock.time = int(NOON) + 5.99
        assert await me(ix, pair["access_token"]) == 200
        clock.time = int(NOON) + 6
        assert await me(ix, pair["access_token"]) == 401
        assert ix.refusals == ["tok-access-1: expired 0.000 s ago"]


async def test_ix_api_gives_a_new_pair_at_each_refresh_and_takes_each_refresh_token_once() -> None:
    async with serve(ix := IxApi()):
        first = await ix_pair(ix)
        second = (await ix_refresh(ix, first["refresh_token"])).json
        assert not set(first.values()) & set(second.values())
        assert await me(ix, first["access_token"]) == await me(ix, second["access_token"]) == 200
        assert (await ix_refresh(ix, first["refresh_token"])).status == 401
        assert await me(ix, second["access_token"]) == 401
        assert (await ix_refresh(ix, second["refresh_token"])).status == 401


async def test_reuse_without_detection_costs_the_reuser_only() -> None:
    async with serve(ix := IxApi(ix_api.Settings(reuse_detection=False))):
        first = await ix_pair(ix)
        second = (await ix_refresh(ix, first["refresh_token"])).json
        assert (await ix_refresh(ix, first["refresh_token"])).status == 401
        assert (await ix_refresh(ix, second["refresh_token"])).status == 201
        assert (ix.counts.reused, ix.counts.families_killed) == (1, 0)


async def test_without_rotation_a_refresh_token_is_taken_again() -> None:
    async with serve(ix := IxApi(ix_api.Settings(rotation=False))):
        pair = await ix_pair(ix)
        for _ in range(2):
            assert (await ix_refresh(ix, pair["refresh_token"])).status == 201
        assert ix.counts.reused == 0


async def test_a_reuse_grace_takes_a_replaced_token_for_a_while() -> None:
    clock = Clock(NOON)
    async with serve(ix := IxApi(ix_api.Settings(now=clock, reuse_grace=10))):
        pair = await ix_pair(ix)
        assert (await ix_refresh(ix, pair["refresh_token"])).status == 201
        clock.advance(9)
        assert (await ix_refresh(ix, pair["refresh_token"])).status == 201
        clock.advance(1)
        assert (await ix_refresh(ix, pair["refresh_token"])).status == 401


async def test_a_refresh_token_that_expired_is_refused_and_counts_as_reused_only_when_it_comes_again() -> None:
    clock = Clock(NOON)
    async with serve(ix := IxApi(ix_api.Settings(now=clock, refresh_lifetime=60))):
        pair = await ix_pair(ix)
        clock.advance(60)
        for reused in (0, 1):
            assert (await ix_refresh(ix, pair["refresh_token"])).status == 401
            assert ix.counts.reused == reused
        for reused in (1, 2):
            assert (await ix_refresh(ix, "never-issued")).status == 401
            assert ix.counts.reused == reused


GOOD_IX = {"api_key": IX_API_KEY, "api_secret": IX_API_SECRET}


@pytest.mark.parametrize(
    ("method", "path", "kind", "content", "status", "problem"),
    [
        ("POST", "/auth/token", JSON, json.dumps({**GOOD_IX, "api_secret": "no"}), 401, "authentication-error"),
        ("POST", "/auth/token", JSON, json.dumps({**GOOD_IX, "api_key": "no"}), 401, "authentication-error"),
        ("POST", "/auth/token", JSON, json.dumps({"api_key": IX_API_KEY}), 400, "validation-error"),
        ("POST", "/auth/token", JSON, json.dumps({**GOOD_IX, "scope": "x"}), 400, "validation-error"),
        ("POST", "/auth/token", JSON, json.dumps({**GOOD_IX, "api_secret": 7}), 400, "validation-error"),
        ("POST", "/auth/token", JSON, json.dumps({**GOOD_IX, "api_secret": ""}), 400, "validation-error"),
        ("POST", "/auth/token", JSON, "[]", 400, "validation-error"),
        ("POST", "/auth/token", JSON, "{", 400, "validation-error"),
        ("POST", "/auth/token", JSON, '{"api_key": "a", "api_key": "b"}', 400, "validation-error"),
        ("POST", "/auth/token", FORM, urlencode(GOOD_IX), 400, "validation-error"),
        ("POST", "/auth/token", "application/json; charset=latin-1", json.dumps(GOOD_IX), 400, "validation-error"),
        ("POST", "/auth/refresh", JSON, "{}", 400, "validation-error"),
        ("POST", "/auth/refresh", JSON, '{"refresh_token": "unknown"}', 401, "authentication-error"),
        ("GET", "/auth/token", JSON, None, 405, "error"),
        ("POST", "/auth/elsewhere", JSON, "{}", 404, "error"),
        ("GET", "/me", JSON, None, 401, "authentication-error"),
    ],
)
async def test_ix_api_says_its_errors_as_problems(
    method: str, path: str, kind: str, content: str | None, status: int, problem: str
) -> None:
    async with serve(ix := IxApi()):
        body = content.encode() if content is not None else None
        answer = await send(method, ix.base_url + path, {"content-type": kind}, body)
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert set(answer.json) == {"type", "title", "status", "detail", "instance"}
        assert answer.json["status"] == status
        assert answer.json["type"].endswith(f"/{problem}.html")
        assert not ix.ledger.tokens


async def test_an_echoing_provider_repeats_secrets_in_its_errors() -> None:
    async with serve(ix := IxApi(), occam := Occam()):
        ix.settings.echo_input = occam.settings.echo_input = True
        answer = await post_json(ix.base_url + "/auth/token", {"api_secret": IX_API_SECRET})
        assert IX_API_SECRET in answer.json["detail"]
        answer = await post_form(occam.base_url + "/auth/access-token", {"password": "test-only"})
        assert "test-only" in answer.json["detail"][0]["input"]
        answer = await send("GET", occam.base_url + "/auth/access-token?key=test-only-wrong")
        assert "test-only-wrong" in answer.json["detail"]
