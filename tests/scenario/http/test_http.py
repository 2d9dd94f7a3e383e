# HTTP on a Unix socket as applications use it, with the real curl and the real daemon.
from __future__ import annotations

import json
import time

import pytest
import trio

from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import Brokerd, Serving
from tests.scenario.http.conftest import curl, raw, with_http


async def test_a_token_and_its_header_lines(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    answer = await curl(brokerd, "/v1/token/app")
    value = await brokerd.get("app")
    assert (answer.status, answer.headers["content-type"], answer.headers["cache-control"]) == (
        200,
        "application/json",
        "no-store",
    )
    found = answer.json
    assert (found["grant"], found["access_token"], found["token_type"]) == ("app", value, "Bearer")
    assert 0 < found["expires_in"] <= found["expires_at"] - time.time() + 1
    lines = await curl(brokerd, "/v1/header/app")
    assert lines.body == f"Authorization: Bearer {value}\n".encode()


async def test_a_refused_token_is_replaced(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    first = (await curl(brokerd, "/v1/token/app")).json["access_token"]
    answer = await curl(brokerd, "/v1/refused/app", data=first.encode() + b"\n")
    assert answer.status == 200
    assert answer.json["access_token"] not in ("", first)


@pytest.mark.parametrize(
    ("path", "options", "status", "words"),
    [
        ("/v1/token/none", (), 404, "unknown_grant"),
        ("/v1/token/app?min_ttl=x", (), 400, "expected a number of seconds, found 'x'"),
        ("/v1/token/app?mintttl=5", (), 400, "unknown parameter 'mintttl'; known: min_ttl, wait, scope"),
        ("/v1/token/app?wait=1&wait=2", (), 400, "the parameter wait stands there 2 times"),
        ("/v1/token/app?wait=61", (), 400, "bad_request"),
        ("/v1/token/", (), 404, "unknown_grant"),
        ("/v2/token/app", (), 404, "there is no such path; known: GET /v1/token/GRANT"),
        ("/v1/token/app/more", (), 404, "there is no such path"),
        ("/v1/token/app", ("-X", "PUT"), 405, "expected the method GET"),
        ("/v1/refused/app", (), 405, "expected the method POST"),
        ("/v1/refused/app", ("-X", "POST"), 400, "expected the token that the API refused as the body"),
        ("/v1/token/app", ("-H", "X-Request-ID: a b"), 400, "get: request_id: expected 1 to 64 characters of A-Z"),
        ("/v1/status", ("-H", "X-Request-ID: a", "-H", "X-Request-ID: b"), 400, "status: request_id: expected 1 to 64"),
        ("/v1/token/app", ("-H", "Origin: https://evil.example"), 403, "comes from a page in a browser"),
    ],
)
async def test_a_wrong_request_is_told_what_would_be_right(
    brokerd: Brokerd, serving: Serving, path: str, options: tuple[str, ...], status: int, words: str
) -> None:
    await with_http(brokerd, serving)
    answer = await curl(brokerd, path, *options)
    assert answer.status == status
    assert words in json.dumps(answer.json)


async def test_an_id_of_the_caller_reaches_the_provider(brokerd: Brokerd, serving: Serving) -> None:
    provider = await with_http(brokerd, serving)
    value = (await curl(brokerd, "/v1/token/app")).json["access_token"]
    await curl(brokerd, "/v1/refused/app", "-H", "X-Request-ID: web-7", data=value.encode())
    assert provider.requests[-1].request.header("x-request-id") == "web-7"


async def test_a_locked_brokerd_says_so(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    await brokerd.call("lock")
    answer = await curl(brokerd, "/v1/token/app")
    assert (answer.status, answer.json["error"]) == (423, "locked")


async def test_another_user_gets_what_the_rules_say_and_denied_looks_like_unknown(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    await with_http(brokerd, serving, socket_mode="0666")
    denied, unknown = [await curl(brokerd, f"/v1/token/{name}", user=other_user) for name in ("app", "qqq")]
    assert (denied.status, unknown.status) == (404, 404)
    assert denied.body.replace(b"app", b"qqq") == unknown.body


async def test_events_bring_the_token_and_its_successors(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    await brokerd.get("app")
    async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
        await stream.send_all(b"GET /v1/events?grant=app HTTP/1.1\r\nHost: brokerd\r\n\r\n")
        found = b""

        async def until(words: bytes) -> None:
            nonlocal found
            with trio.fail_after(20):
                while words not in found:
                    found += await stream.receive_some()

        await until(b"event: token")
        assert b"Content-Type: text/event-stream" in found
        first = (await brokerd.get("app")).encode()
        await until(first)
        await brokerd.call("refresh", grant="app")
        await until((await brokerd.get("app")).encode())
        await brokerd.call("revoke", grant="app")
        await until(b"event: gone")


async def test_requests_on_one_connection_are_answered_in_their_order(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    requests = b"".join(
        b"GET %s HTTP/1.1\r\nHost: brokerd\r\n%s\r\n" % each
        for each in [
            (b"/v1/token/app", b""),
            (b"/no", b""),
            (b"/v1/header/app", b""),
            (b"/v1/status", b"Connection: close\r\n"),
        ]
    )
    answer = await raw(brokerd, requests)
    heads = [line for line in answer.split(b"\r\n") if b"HTTP/1.1 " in line]
    assert [head[-30:].split(b"HTTP/1.1 ")[1][:3] for head in heads] == [b"200", b"404", b"200", b"200"]
    assert answer.index(b"access_token") < answer.index(b"no such path") < answer.index(b"\nAuthorization: Bearer")


async def test_http_1_0_is_answered_and_closed(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    answer = await curl(brokerd, "/v1/token/app", "--http1.0")
    assert answer.status == 200


async def test_who_speaks_http_at_the_other_socket_is_told_where_http_is(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    brokerd.http_socket = brokerd.socket
    answer = await curl(brokerd, "/v1/token/app")
    assert (answer.status, answer.json["error"]) == (400, "bad_request")
    assert "http.sock" in answer.json["message"]


async def test_status_is_the_protocols(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    await brokerd.get("app")
    found = (await curl(brokerd, "/v1/status")).json
    assert [each["name"] for each in found["grants"]] == ["app"]
