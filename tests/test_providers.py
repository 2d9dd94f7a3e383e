# The tests' own token providers: each operation and error row of provider-apis.md, and the faults that tests set.
# The client is the standard library's, in a thread, so that nothing of ours is on both ends.
from __future__ import annotations

import base64
import email.utils
import http.client
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlencode, urlsplit

import jwt
import pytest
import trio
import trustme

from tests import providers
from tests.providers import (
    CLICK2MAIL_CLIENT,
    CLICK2MAIL_OTPS,
    CLICK2MAIL_SECRET,
    IX_API_KEY,
    IX_API_SECRET,
    OAUTH2_CLIENT,
    OAUTH2_ODD_CLIENT,
    OAUTH2_ODD_SECRET,
    OAUTH2_PASSWORD,
    OAUTH2_POST_CLIENT,
    OAUTH2_POST_SECRET,
    OAUTH2_PUBLIC_CLIENT,
    OAUTH2_SECRET,
    OAUTH2_USER,
    OCCAM_KEY,
    OCCAM_PASSWORD,
    OCCAM_USER,
    TREEZOR_CLIENT,
    TREEZOR_PASSWORD,
    TREEZOR_SECRET,
    TREEZOR_USER,
    Click2Mail,
    Client,
    Clock,
    IxApi,
    OAuth2,
    Occam,
    Provider,
    Treezor,
    click2mail,
    ix_api,
    oauth2,
    serve,
    serve_all,
    treezor,
)
from tests.providers.provider import Garbage

NOON = 1_800_000_000.25  # a clock's start that is no whole second
TIMEOUT = 10  # seconds for any one exchange
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
BOUNDARY = "test-only-boundary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] in {JSON, "application/problem+json"}
        return json.loads(self.body)


def _send(method: str, url: str, headers: Headers, content: bytes | None, tls: ssl.SSLContext | None) -> Answer:
    parts = urlsplit(url)
    assert parts.hostname
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=TIMEOUT, context=tls
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)
    try:
        return _on(connection, method, parts.path + (f"?{parts.query}" if parts.query else ""), headers, content)
    finally:
        connection.close()


def _on(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Headers, content: bytes | None = None
) -> Answer:
    connection.request(method, target, content, dict(headers))
    response = connection.getresponse()
    return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())


async def send(
    method: str,
    url: str,
    headers: Headers | None = None,
    content: bytes | None = None,
    *,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    return await trio.to_thread.run_sync(
        partial(_send, method, url, headers or {}, content, tls), abandon_on_cancel=True
    )


async def post_json(url: str, content: object, headers: Headers | None = None) -> Answer:
    return await send("POST", url, {"content-type": JSON, **(headers or {})}, json.dumps(content).encode())


async def post_form(url: str, fields: Mapping[str, str], headers: Headers | None = None) -> Answer:
    return await send("POST", url, {"content-type": FORM, **(headers or {})}, urlencode(fields).encode())


async def post_multipart(url: str, fields: Mapping[str, str]) -> Answer:
    return await send("POST", url, {"content-type": MULTIPART}, multipart(fields))


def multipart(fields: Mapping[str, str]) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return ("".join(parts) + f"--{BOUNDARY}--\r\n").encode()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def basic(name: str, secret: str) -> dict[str, str]:
    pair = f"{quote_plus(name)}:{quote_plus(secret)}"
    return {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


async def me(provider: Provider[Any], token: str) -> int:
    return (await send("GET", provider.base_url + "/me", bearer(token))).status


# The server, and the faults that every provider has.


async def ix_pair(ix: IxApi, status: int = 201) -> Any:
    answer = await post_json(ix.base_url + "/auth/token", {"api_key": IX_API_KEY, "api_secret": IX_API_SECRET})
    assert answer.status == status
    return answer.json


async def ix_refresh(ix: IxApi, token: str) -> Answer:
    return await post_json(ix.base_url + "/auth/refresh", {"refresh_token": token})


async def test_requests_on_a_kept_connection_share_its_number() -> None:
    async with serve(ix := IxApi()) as server:

        def twice() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)
            for _ in range(2):
                assert _on(connection, "GET", "/ix/api/v2/me", {}).status == 401
            connection.close()

        await trio.to_thread.run_sync(twice)
        await send("GET", ix.base_url + "/me")
        assert [entry.request.connection for entry in ix.requests] == [1, 1, 2]
        assert server.connections == 2


async def test_a_server_without_keep_alive_closes_after_each_answer() -> None:
    async with serve(ix := IxApi(), keep_alive=False):
        answer = await send("GET", ix.base_url + "/me")
        assert answer.headers["connection"] == "close"


async def test_answers_can_come_in_chunks() -> None:
    async with serve(ix := IxApi()):
        ix.chunked = True
        assert set(await ix_pair(ix)) == {"access_token", "refresh_token"}
        answer = await send("GET", ix.base_url + "/me")
        assert answer.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in answer.headers


async def test_tls_is_served_and_a_client_certificate_seen() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    client = ssl.create_default_context()
    authority.configure_trust(client)
    presenting = ssl.create_default_context()
    authority.configure_trust(presenting)
    authority.issue_cert("client@test-only.example").configure_cert(presenting)
    async with serve(ix := IxApi(), tls=context) as server:
        assert server.url.startswith("https://127.0.0.1:")
        for used in (client, presenting):
            assert (await send("GET", ix.base_url + "/me", tls=used)).status == 401
        without, with_one = (entry.request.peer_certificate for entry in ix.requests)
        assert without is None
        assert with_one is not None
        with pytest.raises(ssl.SSLCertVerificationError):
            await send("GET", ix.base_url + "/me", tls=ssl.create_default_context())
        with trio.fail_after(TIMEOUT):
            while server.failed_handshakes < 1:
                await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /ix/api/v2/me HTTP/1.1\r\n\r\n", b"400"),  # no Host
        (
            b"POST /ix/api/v2/auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2_000_000,
            b"413",
        ),
        (b"GET /elsewhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"404"),
        (b"HEAD /ix/api/v2/me HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"405"),
        (
            b"POST /ix/api/v2/auth/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            b"400",
        ),
    ],
)
async def test_the_server_answers_what_is_on_the_wire(sent: bytes, status: bytes) -> None:
    async with serve(IxApi()) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with stream:
            with trio.fail_after(TIMEOUT):
                await stream.send_all(sent)
                answer = b"".join([bytes(chunk) async for chunk in stream])
        assert answer.startswith(b"HTTP/1.1 " + status)


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    async with serve(IxApi()) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        head = b"POST /ix/api/v2/auth/token HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        async with stream:
            with trio.fail_after(TIMEOUT):
                await stream.send_all(head)
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 100")
                await stream.send_all(b"{}")
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 400")


async def test_a_provider_alone_that_is_down_refuses_connections_and_comes_back_on_the_same_port() -> None:
    async with serve(ix := IxApi()) as server:
        idle = await trio.open_tcp_stream("127.0.0.1", server.port)
        await send("GET", ix.base_url + "/me")
        ix.down = True
        with trio.fail_after(TIMEOUT):
            assert await idle.receive_some() == b""
        with pytest.raises(ConnectionRefusedError):
            await send("GET", ix.base_url + "/me")
        ix.down = False
        assert (await send("GET", ix.base_url + "/me")).status == 401
        await idle.aclose()


async def test_a_provider_that_shares_its_server_is_down_alone_and_does_nothing() -> None:
    async with serve(ix := IxApi(), occam := Occam()):
        ix.down = True
        with pytest.raises(http.client.RemoteDisconnected):
            await ix_pair(ix)
        assert (await send("GET", occam.base_url + "/me")).status == 401
        assert ix.statuses("issue") == [None]
        assert not ix.ledger.tokens


async def test_faults_come_in_order_for_their_operation_and_so_many_times() -> None:
    async with serve(ix := IxApi()):
        ix.fail_with(503, {"Retry-After": "7"}, times=2, operation="issue")
        ix.fail_with(429, body={"slow": "down"})
        pair = await ix_refresh(ix, "unknown")
        assert (pair.status, pair.json) == (429, {"slow": "down"})
        for _ in range(2):
            answer = await post_json(ix.base_url + "/auth/token", {})
            assert (answer.status, answer.headers["retry-after"]) == (503, "7")
            assert answer.headers["content-type"] == "application/problem+json"
        assert await me(ix, (await ix_pair(ix))["access_token"]) == 200
        assert ix.statuses() == [429, 503, 503, 201]


async def test_an_endless_fault_ends_when_faults_are_cleared() -> None:
    async with serve(ix := IxApi()):
        ix.fail_with(500, body=b"oh", times=None)
        for _ in range(3):
            answer = await post_json(ix.base_url + "/auth/token", {})
            assert (answer.status, answer.body) == (500, b"oh")
        ix.clear_faults()
        await ix_pair(ix)


async def test_a_dropped_answer_leaves_the_token_rotated_and_its_reuse_kills_the_family() -> None:
    async with serve(ix := IxApi()):
        pair = await ix_pair(ix)
        ix.drop_after_request(operation="refresh")
        with pytest.raises(http.client.RemoteDisconnected):
            await ix_refresh(ix, pair["refresh_token"])
        assert (ix.counts.renewed, ix.counts.reused) == (1, 0)
        assert await me(ix, pair["access_token"]) == 200
        assert (await ix_refresh(ix, pair["refresh_token"])).status == 401
        assert (ix.counts.reused, ix.counts.families_killed) == (1, 1)
        assert await me(ix, pair["access_token"]) == 401


@pytest.mark.parametrize("reset", [False, True])
async def test_a_drop_before_the_request_does_nothing(reset: bool) -> None:
    async with serve(ix := IxApi()):
        ix.drop(reset=reset)
        with pytest.raises(ConnectionResetError):  # RemoteDisconnected is one
            await ix_pair(ix)
        assert not ix.ledger.tokens


async def test_an_error_after_processing_has_rotated_the_token() -> None:
    async with serve(ix := IxApi()):
        pair = await ix_pair(ix)
        ix.fail_with(502, body=b"bad gateway", operation="refresh", processed=True)
        assert (await ix_refresh(ix, pair["refresh_token"])).status == 502
        assert ix.counts.renewed == 1
        assert ix.statuses("refresh") == [502]


async def test_a_held_answer_waits_for_the_gate_and_everybody_is_counted() -> None:
    async with serve(ix := IxApi()), trio.open_nursery() as nursery:
        with trio.fail_after(TIMEOUT), ix.hold("issue") as gate:
            for _ in range(3):
                nursery.start_soon(ix_pair, ix)
            await gate.reached(3)
            assert (gate.waiting, ix.active, ix.peak) == (3, 3, 3)
            assert ix.counts.issued == 3
            assert ix.statuses() == [None] * 3
        await ix.until(lambda: ix.active == 0)
        assert ix.statuses() == [201] * 3
        await ix_pair(ix)
        assert ix.peak == 3


async def test_a_gate_before_processing_holds_the_effect_too() -> None:
    async with serve(ix := IxApi()), trio.open_nursery() as nursery:
        with trio.fail_after(TIMEOUT), ix.hold("issue", processed=False) as gate:
            nursery.start_soon(ix_pair, ix)
            await gate.reached()
            assert ix.counts.issued == 0
        await ix.until(lambda: ix.counts.issued == 1)


async def test_going_down_breaks_off_what_is_held() -> None:
    async with serve(ix := IxApi()), trio.open_nursery() as nursery:

        async def disconnected() -> None:
            with pytest.raises(ConnectionResetError):
                await ix_pair(ix)

        gate = ix.hold("issue")
        nursery.start_soon(disconnected)
        with trio.fail_after(TIMEOUT):
            await gate.reached()
            ix.down = True
            await ix.until(lambda: ix.active == 0)
        assert ix.statuses() == [None]


GARBAGE: dict[Garbage, type[Exception] | None] = {
    "html": None,
    "not_json": None,
    "no_token": None,
    "wrong_types": None,
    "oversized": None,
    "truncated": http.client.IncompleteRead,
    "not_http": http.client.BadStatusLine,
    "huge_headers": http.client.LineTooLong,
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_is_answered_once(kind: Garbage) -> None:
    async with serve(ix := IxApi()):
        ix.garbage(kind)
        url = ix.base_url + "/auth/token"
        expected = GARBAGE[kind]
        if expected is None:
            answer = await post_json(url, {})
            assert answer.status == 200
            assert b'"refresh_token": "' not in answer.body
            assert (len(answer.body) > 1024 * 1024) is (kind == "oversized")
        else:
            with pytest.raises(expected):
                await post_json(url, {})
        assert not ix.ledger.tokens
        await ix_pair(ix)


async def test_a_stalled_answer_never_ends() -> None:
    async with serve(ix := IxApi()) as server:
        ix.garbage("stall")
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(b"POST /ix/api/v2/auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            got = b""
            while b"test-only-st" not in got:
                got += await stream.receive_some()
            with trio.move_on_after(0.05) as waited:
                await stream.receive_some()
            assert waited.cancelled_caught


async def test_the_date_header_is_the_providers_clock() -> None:
    clock = Clock(NOON)
    async with serve(ix := IxApi(ix_api.Settings(now=clock))):
        clock.advance(-3600)
        date = (await send("GET", ix.base_url + "/me")).headers["date"]
        assert email.utils.parsedate_to_datetime(date).timestamp() == int(NOON) - 3600
        ix.settings.date_header = False
        assert "date" not in (await send("GET", ix.base_url + "/me")).headers


async def test_counters_tell_what_happened() -> None:
    async with serve(ix := IxApi()):
        pair = await ix_pair(ix)
        await ix_refresh(ix, pair["refresh_token"])
        await me(ix, pair["access_token"])
        await me(ix, "never-issued")
        await me(ix, pair["refresh_token"])
        await send("GET", ix.base_url + "/me")
        await send("GET", ix.base_url + "/nowhere")
        with trio.fail_after(TIMEOUT):
            await ix.reached(3)
        assert ix.count() == 3
        assert len(ix.times("issue")) == 1
        assert ix.refusals == ["never issued", "a refresh token"]
        assert ix.snapshot() == {
            "requests": 7,
            "issued": 1,
            "renewed": 1,
            "revoked": 0,
            "refused": 2,
            "reused": 0,
            "families_killed": 0,
            "wrong_credentials": 0,
            "by_operation": {"issue": 1, "refresh": 1, "me": 4, "unknown": 1},
            "by_path": {"/auth/token": 1, "/auth/refresh": 1, "/me": 4, "/nowhere": 1},
            "peak": 1,
        }
        assert pair["access_token"] in ix.secret_values()


async def test_forgotten_access_tokens_are_refused_early() -> None:
    async with serve(ix := IxApi()):
        pair = await ix_pair(ix)
        ix.forget_access_tokens()
        assert await me(ix, pair["access_token"]) == 401
        assert (await ix_refresh(ix, pair["refresh_token"])).status == 201


# ix-api.


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


# occam.


async def occam_login(occam: Occam) -> Any:
    answer = await post_form(
        occam.base_url + "/auth/access-token", {"username": OCCAM_USER, "password": OCCAM_PASSWORD}
    )
    assert answer.status == 200
    return answer.json


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


GOOD_OCCAM = {"username": OCCAM_USER, "password": OCCAM_PASSWORD}


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


# treezor.

TREEZOR_APP = {"client_id": TREEZOR_CLIENT, "client_secret": TREEZOR_SECRET}
TREEZOR_LOGIN = {
    **TREEZOR_APP,
    "grant_type": "password",
    "username": TREEZOR_USER,
    "password": TREEZOR_PASSWORD,
}


async def test_treezor_gives_client_credentials_an_access_token_alone() -> None:
    async with serve(provider := Treezor()):
        fields = {**TREEZOR_APP, "grant_type": "client_credentials", "scope": "read_only admin"}
        answer = await post_multipart(provider.base_url + "/oauth/token", fields)
        assert answer.status == 200
        assert set(answer.json) == {"token_type", "expires_in", "access_token"}
        assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 3600)
        about = (await send("GET", provider.base_url + "/me", bearer(answer.json["access_token"]))).json
        assert about["scopes"] == ["read_only", "admin"]


@pytest.mark.parametrize("grant_type", [{"grant_type": "refresh_token"}, {}])
async def test_treezor_refreshes_where_grant_type_says_so_or_is_missing(grant_type: dict[str, str]) -> None:
    async with serve(provider := Treezor()):
        url = provider.base_url + "/oauth/token"
        first = (await post_multipart(url, TREEZOR_LOGIN)).json
        fields = {**TREEZOR_APP, **grant_type, "refresh_token": first["refresh_token"]}
        second = (await post_multipart(url, fields)).json
        assert set(second) == set(first) == {"token_type", "expires_in", "access_token", "refresh_token"}
        assert second["refresh_token"] != first["refresh_token"]
        assert provider.by_operation == {"issue": 1, "refresh": 1}
        answer = await post_multipart(url, fields)
        assert answer.json["errors"][0]["code"] == "invalid_grant"
        assert await me(provider, second["access_token"]) == 401


async def test_treezor_can_leave_the_refresh_token_out_and_keep_the_old_one_good() -> None:
    async with serve(provider := Treezor(treezor.Settings(omit_refresh_token=True))):
        url = provider.base_url + "/oauth/token"
        first = (await post_multipart(url, TREEZOR_LOGIN)).json
        fields = {**TREEZOR_APP, "grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
        for _ in range(2):
            assert set((await post_multipart(url, fields)).json) == {"token_type", "expires_in", "access_token"}


async def test_treezor_without_rotation_repeats_the_refresh_token() -> None:
    async with serve(provider := Treezor(treezor.Settings(rotation=False))):
        url = provider.base_url + "/oauth/token"
        first = (await post_multipart(url, TREEZOR_LOGIN)).json
        fields = {**TREEZOR_APP, "grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
        for _ in range(2):
            assert (await post_multipart(url, fields)).json["refresh_token"] == first["refresh_token"]


async def test_treezor_states_expires_in_as_asked() -> None:
    async with serve(provider := Treezor(treezor.Settings(access_lifetime=5.2))):
        url = provider.base_url + "/oauth/token"
        fields = {**TREEZOR_APP, "grant_type": "client_credentials"}
        assert (await post_multipart(url, fields)).json["expires_in"] == 6
        provider.settings.expires_in = "string"
        assert (await post_multipart(url, fields)).json["expires_in"] == "6"
        provider.settings.expires_in = "absent"
        assert "expires_in" not in (await post_multipart(url, fields)).json


GRANT_TYPE = b'form-data; name="grant_type"'
FILE = multipart(TREEZOR_LOGIN).replace(GRANT_TYPE, GRANT_TYPE + b'; filename="a"')
ENCODED = multipart(TREEZOR_LOGIN).replace(GRANT_TYPE, GRANT_TYPE + b"\r\nContent-Transfer-Encoding: quoted-printable")
UNFINISHED = multipart(TREEZOR_LOGIN).removesuffix(f"--{BOUNDARY}--\r\n".encode())


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (multipart({**TREEZOR_LOGIN, "client_secret": "no"}), "invalid_client"),
        (multipart({**TREEZOR_LOGIN, "client_id": "no"}), "invalid_client"),
        (multipart({**TREEZOR_LOGIN, "password": "no"}), "invalid_grant"),
        (multipart({**TREEZOR_LOGIN, "scope": "everything"}), "invalid_scope"),
        (multipart({**TREEZOR_LOGIN, "grant_type": "magic"}), "unsupported_grant_type"),
        (multipart({**TREEZOR_LOGIN, "colour": "red"}), "invalid_request"),
        (multipart({**TREEZOR_LOGIN, "grant_type": "client_credentials"}), "invalid_request"),
        (multipart(TREEZOR_APP), "invalid_request"),  # grant_type defaults to refresh_token
        (multipart({**TREEZOR_APP, "refresh_token": "unknown"}), "invalid_grant"),
        (multipart({**TREEZOR_LOGIN, "username": ""}), "invalid_request"),
        (UNFINISHED, "invalid_request"),
        (UNFINISHED + f"--{BOUNDARY}\r\n".encode(), "invalid_request"),
        (multipart(TREEZOR_LOGIN).replace(b"client_id", b"client_secret"), "invalid_request"),  # twice
        (multipart(TREEZOR_LOGIN).replace("ä".encode(), b"\xff"), "invalid_request"),
        (FILE, "invalid_request"),
        (ENCODED, "invalid_request"),
        (b"", "invalid_request"),
    ],
)
@pytest.mark.parametrize("status", [400, 401])
async def test_treezor_says_its_errors_in_its_own_form(content: bytes, code: str, status: int) -> None:
    async with serve(provider := Treezor(treezor.Settings(error_status=status))):
        answer = await send("POST", provider.base_url + "/oauth/token", {"content-type": MULTIPART}, content)
        assert answer.status == status
        (error,) = answer.json["errors"]
        assert set(error) == {"type", "code", "message", "docUrl"}
        assert error["code"] == code
        assert not provider.ledger.tokens


async def test_treezor_takes_nothing_but_multipart_and_post() -> None:
    async with serve(provider := Treezor()):
        url = provider.base_url + "/oauth/token"
        for answer in (
            await post_form(url, TREEZOR_LOGIN),
            await post_json(url, TREEZOR_LOGIN),
            await send("POST", url, {"content-type": "multipart/form-data"}, multipart(TREEZOR_LOGIN)),
        ):
            assert (answer.status, answer.json["errors"][0]["code"]) == (400, "invalid_request")
        answer = await send("GET", url)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert (await send("GET", provider.base_url + "/elsewhere")).json["errors"][0]["code"] == "not_found"


@pytest.mark.parametrize("value", ["ä€ %41+&=", " spaces around ", "line\r\nbreaks\nand\r", "--" + BOUNDARY + "x"])
async def test_treezor_reads_multipart_values_byte_by_byte(value: str) -> None:
    async with serve(provider := Treezor()):
        provider.settings.users[TREEZOR_USER] = value
        url = provider.base_url + "/oauth/token"
        assert (await post_multipart(url, {**TREEZOR_LOGIN, "password": value})).status == 200


async def test_treezor_refresh_tokens_are_bound_to_their_client() -> None:
    async with serve(provider := Treezor()):
        provider.settings.clients["test-only-other"] = "test-only-other-secret"
        token = provider.new_refresh_token(TREEZOR_USER, client=TREEZOR_CLIENT).value
        other = {"client_id": "test-only-other", "client_secret": "test-only-other-secret"}
        for app, status in ((other, 400), (TREEZOR_APP, 200)):
            answer = await post_multipart(provider.base_url + "/oauth/token", {**app, "refresh_token": token})
            assert answer.status == status


async def test_treezor_narrows_a_scope_at_refresh_and_never_widens_it() -> None:
    async with serve(provider := Treezor()):
        url = provider.base_url + "/oauth/token"
        first = (await post_multipart(url, {**TREEZOR_LOGIN, "scope": "read_only admin"})).json
        fields = {**TREEZOR_APP, "refresh_token": first["refresh_token"]}
        answer = await post_multipart(url, {**fields, "scope": "read_write"})
        assert answer.json["errors"][0]["code"] == "invalid_scope"
        token = (await post_multipart(url, {**fields, "scope": "admin"})).json["access_token"]
        assert (await send("GET", provider.base_url + "/me", bearer(token))).json["scopes"] == ["admin"]


# click2mail.

C2M_KEY = {"x-client-id": CLICK2MAIL_CLIENT}
C2M_BASE = {"grant_type": "client_credentials", "client_id": CLICK2MAIL_CLIENT}
C2M_LOGIN = {**C2M_BASE, "client_secret": CLICK2MAIL_SECRET}


async def c2m_long(provider: Click2Mail, **more: object) -> Any:
    answer = await post_json(provider.base_url + "/auth/tokens/long", {**C2M_LOGIN, **more}, C2M_KEY)
    assert answer.status == 201
    return answer.json


async def c2m_short(provider: Click2Mail, long: str) -> Any:
    answer = await send("POST", provider.base_url + "/auth/tokens/short", bearer(long))
    assert answer.status == 201
    return answer.json


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


# oauth2.


async def oauth2_token(provider: OAuth2, headers: Headers | None = None, **fields: str) -> Answer:
    return await post_form(provider.token_url, fields, headers)


OAUTH2_BASIC = basic(OAUTH2_CLIENT, OAUTH2_SECRET)
PASSWORD = {"grant_type": "password", "username": OAUTH2_USER, "password": OAUTH2_PASSWORD}


async def test_oauth2_gives_client_credentials_no_refresh_token() -> None:
    async with serve(provider := OAuth2(oauth2.Settings(access_lifetime=5.5))):
        answer = await oauth2_token(provider, OAUTH2_BASIC, grant_type="client_credentials", scope="read")
        assert answer.status == 200
        assert answer.headers["cache-control"] == "no-store"
        token = answer.json.pop("access_token")
        assert {**answer.json, "access_token": ""} == {
            "access_token": "",
            "token_type": "Bearer",
            "expires_in": 6,
            "scope": "read",
        }
        assert token is not None
        provider.settings.refresh_for_client_credentials = True
        answer = await oauth2_token(provider, OAUTH2_BASIC, grant_type="client_credentials")
        refreshed = await oauth2_token(
            provider, OAUTH2_BASIC, grant_type="refresh_token", refresh_token=answer.json["refresh_token"]
        )
        assert refreshed.status == 200


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        (OAUTH2_BASIC, {}),
        (OAUTH2_BASIC, {"client_id": OAUTH2_CLIENT}),
        ({}, {"client_id": OAUTH2_CLIENT, "client_secret": OAUTH2_SECRET}),
        (basic(OAUTH2_ODD_CLIENT, OAUTH2_ODD_SECRET), {}),
        ({}, {"client_id": OAUTH2_POST_CLIENT, "client_secret": OAUTH2_POST_SECRET}),
        ({}, {"client_id": OAUTH2_PUBLIC_CLIENT}),
    ],
)
async def test_oauth2_authenticates_clients(headers: Headers, fields: Mapping[str, str]) -> None:
    async with serve(provider := OAuth2()):
        answer = await oauth2_token(provider, headers, **PASSWORD, **fields)
        assert answer.status == 200
        assert await me(provider, answer.json["access_token"]) == 200


def unencoded(name: str, secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {}),
        (basic(OAUTH2_CLIENT, "no"), {}),
        (basic("no", OAUTH2_SECRET), {}),
        ({"authorization": "Basic !!!"}, {}),
        ({"authorization": "Bearer x"}, {}),
        (unencoded(OAUTH2_ODD_CLIENT, OAUTH2_ODD_SECRET), {}),  # RFC 6749 §2.3.1 encodes them first
        ({}, {"client_id": OAUTH2_ODD_CLIENT, "client_secret": OAUTH2_ODD_SECRET}),  # basic only
        (basic(OAUTH2_POST_CLIENT, OAUTH2_POST_SECRET), {}),  # post only
        ({}, {"client_id": OAUTH2_CLIENT}),  # not a public client
        ({}, {"client_id": OAUTH2_PUBLIC_CLIENT, "client_secret": "x"}),
    ],
)
async def test_oauth2_refuses_clients_that_do_not_prove_themselves(headers: Headers, fields: Mapping[str, str]) -> None:
    async with serve(provider := OAuth2()):
        answer = await oauth2_token(provider, headers, **PASSWORD, **fields)
        assert (answer.status, answer.json["error"]) == (401, "invalid_client")
        assert ("www-authenticate" in answer.headers) is ("authorization" in headers)
        assert provider.counts.wrong_credentials == 1
        assert not provider.ledger.tokens


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "invalid_request"),
        ("grant_type=", "invalid_request"),
        ("grant_type=magic", "unsupported_grant_type"),
        ("grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
        ("grant_type=client_credentials&client_secret=x", "invalid_request"),  # two ways at once
        ("grant_type=client_credentials&client_id=other", "invalid_request"),
        ("grant_type=client_credentials&scope=everything", "invalid_scope"),
        ("grant_type=client_credentials&scope=read++write", "invalid_scope"),
        ("grant_type=client_credentials&resource=relative", "invalid_target"),
        ("grant_type=client_credentials&scope=%zz", "invalid_request"),
        ("grant_type=password&username=x", "invalid_request"),
        ("grant_type=password&username=x&password=y", "invalid_grant"),
        ("grant_type=refresh_token", "invalid_request"),
        ("grant_type=refresh_token&refresh_token=unknown", "invalid_grant"),
    ],
)
async def test_oauth2_says_its_errors_as_rfc_6749_does(content: str, error: str) -> None:
    async with serve(provider := OAuth2()):
        headers = {**OAUTH2_BASIC, "content-type": FORM}
        answer = await send("POST", provider.token_url, headers, content.encode())
        assert (answer.status, answer.json["error"]) == (400, error)
        assert set(answer.json) == {"error", "error_description"}
        provider.settings.errors_as_200 = True
        provider.settings.error_uri = "https://idp.example/errors"
        answer = await send("POST", provider.token_url, headers, content.encode())
        assert (answer.status, answer.json["error"]) == (200, error)
        assert answer.json["error_uri"] == "https://idp.example/errors"
        assert not provider.ledger.tokens


async def test_oauth2_takes_forms_by_post_and_nothing_else() -> None:
    async with serve(provider := OAuth2()):
        fields = {"grant_type": "client_credentials"}
        answer = await post_json(provider.token_url, fields, OAUTH2_BASIC)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")
        answer = await post_form(provider.token_url + "?scope=read", fields, OAUTH2_BASIC)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")
        assert (await send("GET", provider.token_url)).status == 405
        assert (await send("POST", provider.base_url + "/elsewhere")).status == 404


async def test_oauth2_ignores_unknown_and_empty_parameters() -> None:
    async with serve(provider := OAuth2()):
        fields = {"grant_type": "client_credentials", "colour": "red", "scope": ""}
        answer = await oauth2_token(provider, OAUTH2_BASIC, **fields)
        assert (answer.status, answer.json["scope"]) == (200, "read write admin")


async def test_oauth2_unauthorized_clients_are_told_so() -> None:
    async with serve(provider := OAuth2()):
        grants = frozenset({"client_credentials"})
        provider.settings.clients[OAUTH2_CLIENT] = Client(OAUTH2_CLIENT, OAUTH2_SECRET, grants=grants)
        public = {"grant_type": "client_credentials", "client_id": OAUTH2_PUBLIC_CLIENT}
        for answer in (
            await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD),
            await post_form(provider.token_url, public),
        ):
            assert (answer.status, answer.json["error"]) == (400, "unauthorized_client")


async def test_oauth2_reads_basic_credentials_as_a_form_and_strictly() -> None:
    async with serve(provider := OAuth2()):
        provider.settings.clients["100%"] = Client("100%", "test-only-secret")
        for headers, status in (
            (basic("100%", "test-only-secret"), 200),
            (unencoded("100%", "test-only-secret"), 401),
        ):
            answer = await oauth2_token(provider, headers, grant_type="client_credentials")
            assert answer.status == status


async def test_oauth2_rotates_refresh_tokens_and_reuse_kills_the_family() -> None:
    async with serve(provider := OAuth2()):
        first = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        refresh = partial(oauth2_token, provider, OAUTH2_BASIC, grant_type="refresh_token")
        second = (await refresh(refresh_token=first["refresh_token"])).json
        assert second["refresh_token"] != first["refresh_token"]
        stranger = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        answer = await refresh(refresh_token=first["refresh_token"])
        assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
        assert await me(provider, second["access_token"]) == 401
        assert (await refresh(refresh_token=second["refresh_token"])).status == 400
        assert await me(provider, stranger["access_token"]) == 200
        assert provider.counts.families_killed == 1


@pytest.mark.parametrize("omit", [False, True])
async def test_oauth2_without_rotation_keeps_the_refresh_token(omit: bool) -> None:
    async with serve(provider := OAuth2(oauth2.Settings(rotation=False, omit_refresh_token=omit))):
        first = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        for _ in range(2):
            answer = await oauth2_token(
                provider, OAUTH2_BASIC, grant_type="refresh_token", refresh_token=first["refresh_token"]
            )
            assert answer.json.get("refresh_token") == (None if omit else first["refresh_token"])


async def test_oauth2_refresh_tokens_are_bound_to_client_and_scope() -> None:
    async with serve(provider := OAuth2()):
        token = provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read", "write")).value
        odd = basic(OAUTH2_ODD_CLIENT, OAUTH2_ODD_SECRET)
        fields = {"grant_type": "refresh_token", "refresh_token": token}
        assert (await oauth2_token(provider, odd, **fields)).json["error"] == "invalid_grant"
        assert (await oauth2_token(provider, OAUTH2_BASIC, **fields, scope="admin")).json["error"] == "invalid_scope"
        narrow = (await oauth2_token(provider, OAUTH2_BASIC, **fields, scope="read")).json
        assert narrow["scope"] == "read"
        fields["refresh_token"] = narrow["refresh_token"]
        assert (await oauth2_token(provider, OAUTH2_BASIC, **fields)).json["scope"] == "read write"


async def test_oauth2_issues_for_audiences_and_resources() -> None:
    async with serve(provider := OAuth2()):
        fields = [
            ("grant_type", "client_credentials"),
            ("resource", "https://a.example/"),
            ("resource", "https://b.example/"),
            ("audience", "c"),
        ]
        headers = {**OAUTH2_BASIC, "content-type": FORM}
        answer = await send("POST", provider.token_url, headers, urlencode(fields).encode())
        about = await send("GET", provider.base_url + "/me", bearer(answer.json["access_token"]))
        assert about.json["audience"] == ["https://a.example/", "https://b.example/", "c"]


async def test_oauth2_answers_as_real_servers_do() -> None:
    settings = oauth2.Settings(
        access_lifetime=6,
        refresh_lifetime=60,
        expires_in="string",
        token_type="bearer",
        refresh_expires_in=True,
        scope_in_answer=False,
    )
    async with serve(provider := OAuth2(settings)):
        answer = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        assert (answer["expires_in"], answer["token_type"]) == ("6", "bearer")
        assert answer["refresh_expires_in"] in {59, 60}
        assert "scope" not in answer
        settings.expires_in = "absent"
        assert "expires_in" not in (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json


async def test_oauth2_revokes_a_refresh_token_with_its_family() -> None:
    async with serve(provider := OAuth2()):
        tokens = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        for _ in range(2):
            fields = {"token": tokens["refresh_token"], "token_type_hint": "refresh_token"}
            answer = await post_form(provider.revocation_url, fields, OAUTH2_BASIC)
            assert (answer.status, answer.body) == (200, b"")
        assert provider.counts.revoked == 1
        assert await me(provider, tokens["access_token"]) == 401
        answer = await oauth2_token(
            provider, OAUTH2_BASIC, grant_type="refresh_token", refresh_token=tokens["refresh_token"]
        )
        assert answer.json["error"] == "invalid_grant"


async def test_oauth2_revokes_an_access_token_alone() -> None:
    async with serve(provider := OAuth2()):
        tokens = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        answer = await post_form(provider.revocation_url, {"token": tokens["access_token"]}, OAUTH2_BASIC)
        assert answer.status == 200
        assert await me(provider, tokens["access_token"]) == 401
        answer = await oauth2_token(
            provider, OAUTH2_BASIC, grant_type="refresh_token", refresh_token=tokens["refresh_token"]
        )
        assert answer.status == 200


async def test_oauth2_revocation_errors() -> None:
    async with serve(provider := OAuth2()):
        tokens = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        revoke = partial(post_form, provider.revocation_url)
        assert (await revoke({"token": "unknown"}, OAUTH2_BASIC)).status == 200
        assert (await revoke({"token": tokens["access_token"]})).json["error"] == "invalid_client"
        assert (await revoke({}, OAUTH2_BASIC)).json["error"] == "invalid_request"
        odd = basic(OAUTH2_ODD_CLIENT, OAUTH2_ODD_SECRET)
        assert (await revoke({"token": tokens["access_token"]}, odd)).json["error"] == "invalid_grant"
        provider.settings.revocable = frozenset({"refresh_token"})
        answer = await revoke({"token": tokens["access_token"]}, OAUTH2_BASIC)
        assert (answer.status, answer.json["error"]) == (400, "unsupported_token_type")
        provider.fail_with(503, {"Retry-After": "1"}, operation="revoke")
        assert (await revoke({"token": tokens["access_token"]}, OAUTH2_BASIC)).status == 503
        assert provider.counts.revoked == 0


# All together, and as a process of its own.


async def test_all_providers_share_one_port() -> None:
    async with serve_all(lifetime=6, now=Clock(NOON)) as fleet:
        assert len({urlsplit(provider.base_url).port for provider in fleet.by_name.values()}) == 1
        assert list(fleet.by_name) == ["ix-api", "occam", "treezor", "click2mail", "oauth2"]
        for provider in fleet.by_name.values():
            assert await me(provider, "never-issued") == 401
            assert provider.settings.access_lifetime == 6
        await ix_pair(fleet.ix_api)
        await occam_login(fleet.occam)
        await c2m_short(fleet.click2mail, (await c2m_long(fleet.click2mail))["access_token"])


async def test_every_refresh_token_can_be_handed_out_for_an_import() -> None:
    async with serve_all() as fleet:
        token = fleet.ix_api.new_refresh_token("test-only-person").value
        assert (await ix_refresh(fleet.ix_api, token)).status == 201
        token = fleet.occam.new_refresh_token("test-only-person").value
        answer = await post_json(fleet.occam.base_url + "/auth/refresh-token", {"refresh_token": token})
        assert answer.status == 200


class Process:
    """`python -m tests.providers`, started and waited for in threads."""

    def __init__(self, *arguments: str) -> None:
        root = Path(providers.__file__).parents[2]
        command = [sys.executable, "-m", "tests.providers", *arguments]
        self.popen = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.popen.stdout
        self.ready = json.loads(self.popen.stdout.readline())
        self.url: str = self.ready["url"]

    def close(self) -> int:
        assert self.popen.stdin
        assert self.popen.stdout
        self.popen.stdin.close()
        status = self.popen.wait(TIMEOUT)
        self.popen.stdout.close()
        return status

    def fault(self, **orders: object) -> Answer:
        content = json.dumps(orders).encode()
        return _send("POST", self.url + "/_faults", {"content-type": JSON}, content, None)

    def counts(self) -> Any:
        return _send("GET", self.url + "/_counts", {}, None, None).json


def test_the_process_serves_counts_takes_faults_and_ends_with_its_parent() -> None:
    process = Process("--lifetime", "6")
    try:
        assert process.url == f"http://127.0.0.1:{process.ready['port']}"
        occam = process.ready["providers"]["occam"]
        assert occam == process.url + "/occam"
        answer = _send(
            "POST", occam + "/auth/access-token", {"content-type": FORM}, urlencode(GOOD_OCCAM).encode(), None
        )
        assert answer.status == 200
        assert process.counts()["occam"]["issued"] == 1
        assert process.counts()["ix-api"]["requests"] == 0
        assert process.fault(provider="occam", down=True).status == 200
        with pytest.raises(http.client.RemoteDisconnected):
            _send("GET", occam + "/me", {}, None, None)
        process.fault(provider="all", clear=True)
        process.fault(provider="occam", fail_with={"status": 503, "headers": {"Retry-After": "1"}})
        assert _send("POST", occam + "/auth/refresh-token", {}, b"", None).status == 503
        process.fault(provider="occam", settings={"access_lifetime": 60}, forget_access_tokens=True)
        assert _send("GET", occam + "/me", bearer(answer.json["access_token"]), None, None).status == 401
        assert process.counts()["occam"]["refused"] == 1
        for wrong in ({"provider": "no"}, {"provider": "occam", "no": 1}, {"provider": "occam", "hold": {"no": 1}}):
            assert process.fault(**wrong).status == 400
    finally:
        assert process.close() == 0


def test_the_process_ends_on_sigterm() -> None:
    process = Process()
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(TIMEOUT) == 0
    process.close()


def test_the_process_can_give_each_provider_a_port_that_refuses_when_down(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(key)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(certificate, append=True)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    process = Process("--separate", "--tls", str(certificate), str(key))
    try:
        occam = process.ready["providers"]["occam"]
        assert occam.startswith("https://")
        assert urlsplit(occam).port != process.ready["port"]
        assert _send("GET", occam + "/me", {}, None, client).status == 401
        order = json.dumps({"provider": "occam", "down": True}).encode()
        assert _send("POST", process.url + "/_faults", {"content-type": JSON}, order, client).status == 200
        with pytest.raises(ConnectionRefusedError):
            _send("GET", occam + "/me", {}, None, client)
    finally:
        assert process.close() == 0
