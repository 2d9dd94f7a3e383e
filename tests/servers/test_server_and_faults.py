# The server of our own providers, and the faults that every provider has. The client is the standard library's, in a
# thread, so that none of our code is on both ends.
from __future__ import annotations

import email.utils
import http.client
import ssl

import pytest
import trio
import trustme

from tests.servers import Clock, IxApi, Occam, ix_api, serve
from tests.servers.plain_client import NOON, TIMEOUT, _on, ix_pair, ix_refresh, me, post_json, send
from tests.servers.provider import Garbage


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
