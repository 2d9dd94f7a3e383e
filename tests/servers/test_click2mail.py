# Our click2mail: each operation and each error that its document describes.
from __future__ import annotations

from datetime import datetime, timedelta
from urllib.parse import quote

import jwt
import pytest

from tests.servers import CLICK2MAIL_CLIENT, CLICK2MAIL_OTPS, CLICK2MAIL_SECRET, Click2Mail, Clock, click2mail, serve
from tests.servers.plain_client import (
    C2M_BASE,
    C2M_KEY,
    C2M_LOGIN,
    FORM,
    NOON,
    Headers,
    bearer,
    c2m_long,
    c2m_short,
    me,
    post_json,
    send,
)


async def c2m_revoke(provider: Click2Mail, token_id: str, by: str) -> int:
    path = f"/auth/tokens/{quote(token_id, safe='')}/revoke"
    return (await send("POST", provider.base_url + path, bearer(by))).status


async def test_click2mail_issues_long_and_short_tokens() -> None:
    clock = Clock(NOON)
    settings = click2mail.Settings(now=clock, access_lifetime=6, refresh_lifetime=60)
    async with serve(provider := Click2Mail(settings)):
        answer = await post_json(provider.base_url + "/auth/tokens/long", C2M_LOGIN, C2M_KEY)
        long = answer.json
        short = await c2m_short(provider, long["access_token"])
        for token, seconds in ((long, 60), (short, 6)):
            assert set(token) == {
                "token_type",
                "access_token",
                "expires_in",
                "expires_at",
                "scopes",
                "token_id",
            }
            assert (token["token_type"], token["expires_in"]) == ("Bearer", seconds)
            expires_at = datetime.fromisoformat(token["expires_at"])
            assert expires_at.utcoffset() == timedelta(hours=-5)
            assert expires_at.timestamp() == int(NOON) + seconds + 1  # rounded up
        assert answer.headers["x-token-id"] == long["token_id"] != short["token_id"]
        assert await me(provider, short["access_token"]) == 200
        assert await me(provider, long["access_token"]) == 401
        clock.advance(7)
        assert await me(provider, short["access_token"]) == 401


async def test_click2mail_can_tell_the_token_id_in_the_header_only_and_say_z() -> None:
    settings = click2mail.Settings(token_id_in_body=False, offset_minutes=None, id_prefix="tok/ %")
    async with serve(provider := Click2Mail(settings)):
        answer = await post_json(provider.base_url + "/auth/tokens/long", C2M_LOGIN, C2M_KEY)
        assert "token_id" not in answer.json
        assert answer.json["expires_at"].endswith("Z")
        token_id = answer.headers["x-token-id"]
        assert token_id.startswith("tok/ %")
        assert await c2m_revoke(provider, token_id, by=answer.json["access_token"]) == 204


async def test_click2mail_rotates_with_a_short_token() -> None:
    async with serve(provider := Click2Mail()):
        url = provider.base_url + "/auth/tokens/long"
        first = await c2m_long(provider)
        short = await c2m_short(provider, first["access_token"])
        answer = await post_json(url, C2M_BASE, {**C2M_KEY, **bearer(short["access_token"])})
        assert answer.status == 201
        await c2m_short(provider, answer.json["access_token"])
        await c2m_short(provider, first["access_token"])  # still good: the document says nothing else
        assert provider.by_operation == {"issue_long": 1, "issue_short": 3, "rotate_long": 1}


async def test_click2mail_rotation_can_kill_the_old_long_token() -> None:
    async with serve(provider := Click2Mail(click2mail.Settings(rotation=True))):
        first = await c2m_long(provider)
        short = await c2m_short(provider, first["access_token"])
        headers = {**C2M_KEY, **bearer(short["access_token"])}
        second = (await post_json(provider.base_url + "/auth/tokens/long", C2M_BASE, headers)).json
        answer = await send("POST", provider.base_url + "/auth/tokens/short", bearer(first["access_token"]))
        assert (answer.status, provider.counts.reused) == (401, 1)
        await c2m_short(provider, second["access_token"])
        assert await me(provider, short["access_token"]) == 200


async def test_click2mail_rotation_needs_a_short_token_with_tokens_write() -> None:
    async with serve(provider := Click2Mail()):
        url = provider.base_url + "/auth/tokens/long"
        long = await c2m_long(provider)
        narrow = await post_json(
            provider.base_url + "/auth/tokens/short", {"scopes": ["jobs:read"]}, bearer(long["access_token"])
        )
        assert narrow.json["scopes"] == ["jobs:read"]
        for token, status, code in (
            (narrow.json["access_token"], 403, "insufficient_scope"),
            (long["access_token"], 403, "insufficient_scope"),
            ("never-issued", 401, "invalid_token"),
        ):
            answer = await post_json(url, C2M_BASE, {**C2M_KEY, **bearer(token)})
            assert (answer.status, answer.json["code"]) == (status, code)


async def test_click2mail_takes_each_otp_code_once() -> None:
    async with serve(provider := Click2Mail()):
        url = provider.base_url + "/auth/tokens/long"
        for code, status in ((CLICK2MAIL_OTPS[0], 201), (CLICK2MAIL_OTPS[0], 401), (CLICK2MAIL_OTPS[1], 201)):
            assert (await post_json(url, {**C2M_BASE, "otp_code": code}, C2M_KEY)).status == status


async def test_click2mail_takes_a_signed_assertion() -> None:
    async with serve(provider := Click2Mail(click2mail.Settings(now=Clock(NOON)))):
        url = provider.base_url + "/auth/tokens/long"
        claims: dict[str, object] = {"iss": CLICK2MAIL_CLIENT, "sub": CLICK2MAIL_CLIENT, "exp": int(NOON) + 60}
        for changed, key, status in (
            ({}, CLICK2MAIL_SECRET, 201),
            ({}, "test-only-another-key-of-more-than-32-bytes", 401),
            ({"exp": int(NOON)}, CLICK2MAIL_SECRET, 401),
            ({"sub": "another"}, CLICK2MAIL_SECRET, 401),
        ):
            fields = {
                "grant_type": "assertion",
                "client_id": CLICK2MAIL_CLIENT,
                "assertion_type": click2mail.ASSERTION,
                "assertion": jwt.encode({**claims, **changed}, key, algorithm="HS256"),
            }
            assert (await post_json(url, fields, C2M_KEY)).status == status
        fields.pop("assertion_type")
        assert (await post_json(url, fields, C2M_KEY)).status == 400


async def test_click2mail_clamps_the_lifetime_asked_for() -> None:
    async with serve(provider := Click2Mail(click2mail.Settings(refresh_lifetime=7200))):
        assert (await c2m_long(provider, ttl_seconds=3600))["expires_in"] == 3600
        assert (await c2m_long(provider, ttl_seconds=7_776_000))["expires_in"] == 7200
        assert (await c2m_long(provider, scopes=["jobs:read"]))["scopes"] == ["jobs:read"]
        provider.settings.clamp_ttl = True
        assert (await c2m_long(provider, ttl_seconds=1))["expires_in"] == 3600


async def test_click2mail_revokes_by_id_and_again() -> None:
    async with serve(provider := Click2Mail()):
        long = await c2m_long(provider)
        short, other = [await c2m_short(provider, long["access_token"]) for _ in range(2)]
        for _ in range(2):
            assert await c2m_revoke(provider, short["token_id"], by=long["access_token"]) == 204
        assert provider.counts.revoked == 1
        assert await me(provider, short["access_token"]) == 401
        assert await c2m_revoke(provider, "never-issued", by=long["access_token"]) == 404
        assert await c2m_revoke(provider, long["token_id"], by=short["access_token"]) == 401
        assert await c2m_revoke(provider, long["token_id"], by="never-issued") == 401
        assert await c2m_revoke(provider, long["token_id"], by=long["access_token"]) == 204
        assert await c2m_revoke(provider, long["token_id"], by=other["access_token"]) == 204
        assert await me(provider, other["access_token"]) == 200  # a long token's end is not its short tokens'


async def test_click2mail_keeps_clients_apart() -> None:
    async with serve(provider := Click2Mail()):
        provider.settings.clients["test-only-other"] = "test-only-other-secret"
        mine = await c2m_long(provider)
        fields = {"grant_type": "client_credentials", "client_id": "test-only-other"}
        headers = {"x-client-id": "test-only-other"}
        url = provider.base_url + "/auth/tokens/long"
        other = await post_json(url, {**fields, "client_secret": "test-only-other-secret"}, headers)
        assert await c2m_revoke(provider, mine["token_id"], by=other.json["access_token"]) == 404
        short = await c2m_short(provider, mine["access_token"])
        assert (await post_json(url, fields, {**headers, **bearer(short["access_token"])})).status == 401


@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        (C2M_KEY, {**C2M_LOGIN, "client_secret": "no"}, 401, "invalid_client"),
        (C2M_KEY, {**C2M_LOGIN, "client_id": "no"}, 401, "invalid_client"),
        ({"x-client-id": "no"}, C2M_LOGIN, 401, "invalid_client"),
        ({}, C2M_LOGIN, 400, "invalid_request"),  # no X-Client-Id
        (C2M_KEY, C2M_BASE, 400, "invalid_request"),  # nothing that proves anything
        (C2M_KEY, {**C2M_LOGIN, "otp_code": CLICK2MAIL_OTPS[0]}, 400, "invalid_request"),
        ({**C2M_KEY, **bearer("x")}, C2M_LOGIN, 400, "invalid_request"),
        (C2M_KEY, {**C2M_LOGIN, "grant_type": "assertion"}, 400, "unsupported_grant_type"),
        (C2M_KEY, {**C2M_LOGIN, "grant_type": "password"}, 400, "unsupported_grant_type"),
        (C2M_KEY, {"grant_type": "client_credentials", "client_secret": "x"}, 400, "invalid_request"),
        (C2M_KEY, {**C2M_LOGIN, "scope": "jobs:read"}, 400, "invalid_request"),
        (C2M_KEY, {**C2M_LOGIN, "scopes": "jobs:read"}, 400, "invalid_request"),
        (C2M_KEY, {**C2M_LOGIN, "scopes": ["everything"]}, 400, "invalid_scope"),
        (C2M_KEY, {**C2M_LOGIN, "ttl_seconds": "3600"}, 400, "invalid_request"),
        (C2M_KEY, {**C2M_LOGIN, "ttl_seconds": 3599}, 400, "invalid_request"),
        (C2M_KEY, {**C2M_LOGIN, "ttl_seconds": 7_776_001}, 400, "invalid_request"),
        ({**C2M_KEY, "content-type": FORM}, C2M_LOGIN, 400, "invalid_request"),
        (C2M_KEY, [], 400, "invalid_request"),
    ],
)
async def test_click2mail_says_what_is_wrong_with_a_long_request(
    headers: Headers, content: object, status: int, code: str
) -> None:
    async with serve(provider := Click2Mail()):
        answer = await post_json(provider.base_url + "/auth/tokens/long", content, headers)
        assert (answer.status, answer.json["code"]) == (status, code)
        assert set(answer.json) == {"code", "message"}
        assert not provider.ledger.tokens


async def test_click2mail_says_what_is_wrong_with_a_short_request() -> None:
    clock = Clock(NOON)
    async with serve(provider := Click2Mail(click2mail.Settings(now=clock))):
        url = provider.base_url + "/auth/tokens/short"
        long = await c2m_long(provider, scopes=["jobs:read"])
        short = await c2m_short(provider, long["access_token"])
        by = bearer(long["access_token"])
        assert (await send("POST", url)).status == 401
        assert (await send("POST", url, bearer(short["access_token"]))).status == 401
        assert (await send("POST", url, {**by, "content-type": FORM}, b"scopes=x")).status == 400
        assert (await post_json(url, {"scopes": ["jobs:submit"]}, by)).status == 400
        assert (await post_json(url, {"scope": "jobs:read"}, by)).status == 400
        assert (await post_json(url, {}, by)).status == 201
        provider.fail_with(429, {"Retry-After": "60"}, operation="issue_short")
        answer = await send("POST", url, by)
        assert (answer.status, answer.json["code"]) == (429, "rate_limited")
        clock.advance(provider.settings.refresh_lifetime + 1)
        assert (await send("POST", url, by)).status == 401
        assert (await send("GET", url)).status == 405
