# Our occam: each operation and each error that its document describes.
from __future__ import annotations

import json
from urllib.parse import quote, urlencode

import pytest

from tests.servers import OCCAM_KEY, OCCAM_PASSWORD, OCCAM_USER, Clock, Occam, serve
from tests.servers.plain_client import FORM, GOOD_OCCAM, JSON, NOON, bearer, me, occam_login, post_form, post_json, send


async def test_occam_answers_whole_seconds_rounded_up_and_keeps_to_them() -> None:
    clock = Clock(NOON)
    async with serve(occam := Occam()):
        occam.settings.now = clock
        occam.settings.access_lifetime = 6
        occam.settings.refresh_lifetime = 60.5
        tokens = await occam_login(occam)
        assert set(tokens) == {
            "token_type",
            "access_token",
            "expires_at",
            "refresh_token",
            "refresh_token_expires_at",
        }
        assert tokens["token_type"] == "Bearer"
        assert (tokens["expires_at"], tokens["refresh_token_expires_at"]) == (int(NOON) + 7, int(NOON) + 61)
        clock.time = tokens["expires_at"] - 0.01
        assert await me(occam, tokens["access_token"]) == 200
        clock.time = tokens["expires_at"]
        assert await me(occam, tokens["access_token"]) == 401


async def test_occam_uses_a_refresh_token_up() -> None:
    async with serve(occam := Occam()):
        url = occam.base_url + "/auth/refresh-token"
        first = await occam_login(occam)
        answer = await post_json(url, {"refresh_token": first["refresh_token"]})
        second = answer.json
        assert answer.status == 200
        assert set(second) == set(first)
        assert second["refresh_token"] != first["refresh_token"]
        answer = await post_json(url, {"refresh_token": first["refresh_token"]})
        assert (answer.status, answer.json) == (400, {"detail": "Refresh token expired or is already used"})
        answer = await post_json(url, {"refresh_token": second["refresh_token"]})
        assert answer.status == 400
        answer = await post_json(url, {"refresh_token": "never-issued"})
        assert (answer.status, answer.json) == (404, {"detail": "Refresh token does not exist"})


async def test_occam_takes_a_key_and_gives_no_refresh_token() -> None:
    async with serve(occam := Occam()):
        url = occam.base_url + "/auth/access-token?key="
        answer = await send("GET", url + quote(OCCAM_KEY, safe=""))
        assert answer.status == 200
        assert set(answer.json) == {"token_type", "access_token", "expires_at"}
        assert await me(occam, answer.json["access_token"]) == 200
        answer = await send("GET", url + "wrong")
        assert (answer.status, answer.json) == (400, {"detail": "Invalid key"})
        assert occam.by_operation == {"issue_key": 2, "me": 1}
        assert occam.counts.wrong_credentials == 1


async def test_occam_takes_the_optional_fields() -> None:
    async with serve(occam := Occam()):
        occam.settings.clients = {"test-only-id": "test-only-client-secret"}
        fields = {
            "username": OCCAM_USER,
            "password": OCCAM_PASSWORD,
            "grant_type": "password",
            "scope": "read write",
            "client_id": "test-only-id",
            "client_secret": "test-only-client-secret",
        }
        url = occam.base_url + "/auth/access-token"
        token = (await post_form(url, fields)).json["access_token"]
        about = (await send("GET", occam.base_url + "/me", bearer(token))).json
        assert (about["who"], about["client"], about["scopes"]) == (OCCAM_USER, "test-only-id", ["read", "write"])
        assert (await post_form(url, {**fields, "client_secret": "no"})).status == 400


@pytest.mark.parametrize(
    ("method", "path", "kind", "content", "status", "where"),
    [
        ("POST", "/auth/access-token", FORM, urlencode({**GOOD_OCCAM, "password": "no"}), 400, None),
        ("POST", "/auth/access-token", FORM, urlencode({"username": "a"}), 422, ["body", "password"]),
        ("POST", "/auth/access-token", FORM, urlencode({**GOOD_OCCAM, "x": "y"}), 422, ["body", "x"]),
        ("POST", "/auth/access-token", FORM, urlencode({**GOOD_OCCAM, "grant_type": "x"}), 422, ["body", "grant_type"]),
        ("POST", "/auth/access-token", FORM, "username=a&username=b", 422, ["body", "username"]),
        ("POST", "/auth/access-token", FORM, "username=a b&password=c", 422, ["body"]),
        ("POST", "/auth/access-token", FORM, "username=%zz&password=c", 422, ["body"]),
        ("POST", "/auth/access-token", FORM, "username=%ff&password=c", 422, ["body"]),
        ("POST", "/auth/access-token", FORM, "username=&password=c", 422, ["body", "username"]),
        ("POST", "/auth/access-token", JSON, json.dumps(GOOD_OCCAM), 422, ["body"]),
        ("POST", "/auth/access-token?key=x", JSON, "{}", 422, ["body"]),
        ("GET", "/auth/access-token", FORM, None, 422, ["query", "key"]),
        ("GET", "/auth/access-token?key=a&key=b", FORM, None, 422, ["query", "key"]),
        ("GET", "/auth/access-token?key=a&x=b", FORM, None, 422, ["query", "x"]),
        ("POST", "/auth/refresh-token", JSON, "{}", 422, ["body", "refresh_token"]),
        ("POST", "/auth/refresh-token", FORM, "refresh_token=x", 422, ["body"]),
        ("GET", "/auth/refresh-token", JSON, None, 405, None),
        ("POST", "/elsewhere", JSON, "{}", 404, None),
        ("GET", "/me", JSON, None, 401, None),
    ],
)
async def test_occam_says_its_errors_as_details(
    method: str, path: str, kind: str, content: str | None, status: int, where: list[str] | None
) -> None:
    async with serve(occam := Occam()):
        body = content.encode() if content is not None else None
        answer = await send(method, occam.base_url + path, {"content-type": kind}, body)
        assert answer.status == status
        detail = answer.json["detail"]
        if where is None:
            assert isinstance(detail, str)
        else:
            (fault,) = detail
            assert set(fault) == {"loc", "msg", "type"}
            assert fault["loc"] == where
        assert not occam.ledger.tokens


async def test_a_wrong_password_is_counted() -> None:
    async with serve(occam := Occam()):
        answer = await post_form(occam.base_url + "/auth/access-token", {**GOOD_OCCAM, "password": "no"})
        assert answer.json == {"detail": "Invalid email or password"}
        assert occam.counts.wrong_credentials == 1
