# The client against scripted servers: what is repeated and what is not, and answers that etcd would not give.
from __future__ import annotations

import contextlib
import json
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
import trio
import trio.testing

from brokerd.core.fleet.etcd import ABSENT, Changes, Compacted, EtcdAway, EtcdError, EtcdRefused, EtcdUnanswered, Put
from brokerd.core.secret import Secret
from brokerd.edge.etcd import asking, lines, login
from brokerd.edge.etcd.client import PAGE, EtcdClient
from brokerd.edge.etcd.login import EtcdUser
from brokerd.edge.http.connection import HttpSettings
from tests.unit.edge.http.fixtures import StepClock
from tests.unit.edge.http.servers import Peer, Script, Server, serving

HEADER = {"cluster_id": "7", "revision": "5"}
DONE = {"header": HEADER, "succeeded": True}
EMPTY = {"header": HEADER}
KEY = b"/a"
SOON = 0.3  # seconds, instead of what is waited for in earnest


def answer(value: object, status: int = 200) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def said(text: str, status: int = 503) -> bytes:
    return answer({"error": text, "message": text, "code": 14}, status)


def with_answers(*answers: bytes) -> Script:
    """One after the other, over all connections, and the last one ever after."""
    left = list(answers)

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(left.pop(0) if len(left) > 1 else left[0])

    return script


async def hanging(peer: Peer) -> None:
    await peer.request()
    await peer.hears_the_end()


async def closing(peer: Peer) -> None:
    await peer.request()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ONE_TRY", SOON)
    monkeypatch.setattr(asking, "ELECTION", SOON)
    monkeypatch.setattr(asking, "PAUSE", 0.01)


@contextlib.asynccontextmanager
async def client(*urls: str, user: EtcdUser | None = None) -> AsyncGenerator[EtcdClient, None]:
    made = EtcdClient(urls, HttpSettings(proxy=Secret("")), StepClock(), user)
    with trio.fail_after(20):
        try:
            yield made
        finally:
            await made.aclose()


async def put(etcd: EtcdClient) -> object:
    return await etcd.transact({KEY: ABSENT}, {KEY: Put(b"1")})


async def read(etcd: EtcdClient) -> object:
    return await etcd.read([KEY])


Call = Callable[[EtcdClient], Awaitable[object]]


async def failure(call: Call, etcd: EtcdClient) -> EtcdError:
    with pytest.raises(EtcdError) as caught:
        await call(etcd)
    assert caught.value.__context__ is None
    assert "hunter" not in str(caught.value)
    return caught.value


def paths(server: Server) -> list[bytes]:
    return [request.split(b" ")[1] for request in server.requests]


UNCLEAR = {
    "hangs": hanging,
    "closes": closing,
    "html": with_answers(answer(b"<html>hunter2</html>")),
    "html-503": with_answers(answer(b"<html>hunter2</html>", 503)),
    "other-json": with_answers(answer({"hunter2": True})),
    "no-numbers": with_answers(answer({"header": {"cluster_id": "hunter2", "revision": "x"}})),
    "timed-out": with_answers(said("etcdserver: request timed out, possibly due to previous leader failure")),
    "unknown": with_answers(said("hunter2")),
    "cut": with_answers(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"),
}


@pytest.mark.parametrize("script", UNCLEAR.values(), ids=UNCLEAR)
async def test_a_transaction_that_may_have_been_carried_out_is_not_sent_again(script: Script) -> None:
    other = with_answers(answer(DONE))
    async with serving(script) as first, serving(other) as second, client(first.url, second.url) as etcd:
        assert isinstance(await failure(put, etcd), EtcdUnanswered)
        assert not second.requests
        await put(etcd)  # which asks the other server
        assert len(first.requests) == 1


@pytest.mark.parametrize("script", UNCLEAR.values(), ids=UNCLEAR)
async def test_a_read_is_repeated_at_another_server(script: Script) -> None:
    async with serving(script) as first, serving(with_answers(answer(EMPTY))) as second:
        async with client(first.url, second.url) as etcd:
            await read(etcd)
        assert (len(first.requests), len(second.requests)) == (1, 1)


@pytest.mark.parametrize("script", UNCLEAR.values(), ids=UNCLEAR)
async def test_a_read_that_nobody_answers_changed_nothing(script: Script) -> None:
    async with serving(script) as first, client(first.url) as etcd:
        error = await failure(read, etcd)
    assert isinstance(error, EtcdAway)
    assert str(error).startswith(f"etcd {first.authority}: ")


async def unused_url() -> str:
    async with serving(hanging) as server:
        return server.url


@pytest.mark.parametrize("call", [put, read])
async def test_what_was_not_sent_is_sent_to_the_next(call: Call) -> None:
    nobody = await unused_url()
    async with serving(with_answers(answer(DONE | {"responses": []}))) as second, client(nobody, second.url) as etcd:
        await call(etcd)
        assert etcd.server == second.url
    async with client(nobody, other := await unused_url(), "http://a b:1") as etcd:
        error = await failure(call, etcd)
    assert isinstance(error, EtcdAway)
    names = (url.removeprefix("http://") for url in (nobody, other))
    refused = "; ".join(f"etcd {name}: connection refused" for name in names)
    assert str(error).startswith(f"{refused}; etcd an address that is no URL: ")


async def test_a_watch_that_nobody_takes_says_why() -> None:
    async with client(await unused_url(), "http://a b:1") as etcd:
        error = await failure(lambda etcd: all_of(etcd, []), etcd)
    assert isinstance(error, EtcdAway)
    assert "connection refused; etcd an address that is no URL: " in str(error)


async def test_an_election_is_waited_for() -> None:
    async with (
        serving(with_answers(said("etcdserver: no leader"), said("etcdserver: no leader"), answer(DONE))) as one,
        client(one.url) as etcd,
    ):
        await put(etcd)
    assert len(one.requests) == 3


async def test_a_server_that_stays_without_a_leader_is_left() -> None:
    async with serving(with_answers(said("etcdserver: no leader"))) as first:
        async with serving(with_answers(answer(DONE))) as second, client(first.url, second.url) as etcd:
            await put(etcd)
            assert etcd.server == second.url
        async with client(first.url) as etcd:
            assert isinstance(await failure(put, etcd), EtcdAway)


async def test_a_change_of_the_leader_is_waited_for_only_by_reads() -> None:
    changed = said("etcdserver: leader changed")
    async with serving(with_answers(changed, answer(EMPTY))) as server, client(server.url) as etcd:
        await read(etcd)
    async with serving(with_answers(changed, answer(DONE))) as server, client(server.url) as etcd:
        assert isinstance(await failure(put, etcd), EtcdUnanswered)


async def test_keeping_a_lease_alive_is_repeated_and_granting_one_is_not() -> None:
    alive = answer({"result": {"header": HEADER, "ID": "3", "TTL": "15"}})
    async with serving(closing) as first, serving(with_answers(alive)) as second:
        async with client(first.url, second.url) as etcd:
            assert await etcd.keep_alive(3) == 15
        async with client(first.url, second.url) as etcd:
            assert isinstance(await failure(lambda etcd: etcd.grant_lease(15), etcd), EtcdUnanswered)
        assert len(second.requests) == 1
        async with client(first.url) as etcd:
            assert isinstance(await failure(lambda etcd: etcd.keep_alive(3), etcd), EtcdUnanswered)


async def test_a_compaction_between_two_pages_makes_it_begin_again_once() -> None:
    compacted = said("etcdserver: mvcc: required revision has been compacted", 400)
    pair = {"key": b64encode(KEY).decode(), "mod_revision": "4"}
    page, last = answer(EMPTY | {"kvs": [pair], "more": True}), answer(EMPTY)
    async with serving(with_answers(page, compacted, page, last)) as server, client(server.url) as etcd:
        assert set((await etcd.read_prefix(KEY)).pairs) == {KEY}
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
    assert [body.get("revision") for body in bodies] == [None, "5", None, "5"]
    async with serving(with_answers(page, compacted, page, compacted)) as server, client(server.url) as etcd:
        assert isinstance(await failure(lambda etcd: etcd.read_prefix(KEY), etcd), EtcdAway)


async def test_a_page_that_is_too_large_is_asked_for_in_parts() -> None:
    large = said("grpc: received message larger than max (5592440 vs. 4194304)", 429)
    async with serving(with_answers(large, large, answer(EMPTY))) as server, client(server.url) as etcd:
        await etcd.read_prefix(KEY)
    limits = [int(json.loads(request.partition(b"\r\n\r\n")[2])["limit"]) for request in server.requests]
    assert limits == [PAGE, PAGE // 8, PAGE // 64]
    async with serving(with_answers(large)) as server, client(server.url) as etcd:
        assert isinstance(await failure(lambda etcd: etcd.read_prefix(KEY), etcd), EtcdAway)
        assert isinstance(await failure(put, etcd), EtcdRefused)


async def test_an_answer_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ONE_TRY", 15.0)  # 16 MiB take seconds on a busy machine

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await peer.say(b" " * 65536)

    async with serving(script) as server, client(server.url) as etcd:
        assert "larger than 16 MiB" in str(await failure(read, etcd))


# Users


def passwords(*texts: str) -> Callable[[], Awaitable[Secret]]:
    left = list(texts)

    async def password() -> Secret:
        return Secret(left.pop(0) if len(left) > 1 else left[0])

    return password


TOKEN = answer({"header": HEADER, "token": "hunter-token"})
WRONG = said("etcdserver: authentication failed, invalid user ID or password", 400)
NO_TOKEN = said("etcdserver: invalid auth token", 401)


async def test_a_token_goes_with_each_request_and_is_asked_for_again_when_it_counts_no_longer() -> None:
    script = with_answers(TOKEN, answer(DONE), NO_TOKEN, TOKEN, answer(DONE))
    async with serving(script) as server, client(server.url, user=EtcdUser("me", passwords("hunter2"))) as etcd:
        await put(etcd)
        await put(etcd)
    login_path, put_path = b"/v3/auth/authenticate", b"/v3/kv/txn"
    assert paths(server) == [login_path, put_path, put_path, login_path, put_path]
    assert [b"authorization: hunter-token" in each.lower() for each in server.requests] == [0, 1, 1, 0, 1]


async def test_a_token_that_never_counts_is_no_endless_loop() -> None:
    async with (
        serving(with_answers(TOKEN, NO_TOKEN, TOKEN, NO_TOKEN)) as server,
        client(server.url, user=EtcdUser("me", passwords("hunter2"))) as etcd,
    ):
        assert isinstance(await failure(put, etcd), EtcdRefused)
    assert len(server.requests) == 4


async def test_a_refused_password_is_sent_again_when_it_has_changed() -> None:
    user = EtcdUser("me", passwords("hunter1", "hunter1", "hunter2"))
    async with serving(with_answers(WRONG)) as server, client(server.url, user=user) as etcd:
        for _ in range(5):
            assert isinstance(await failure(put, etcd), EtcdRefused)
    assert [b"hunter2" in each for each in server.requests] == [False, True]


async def test_a_refused_password_is_sent_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "REFUSED_FOR", 0.0)
    user = EtcdUser("me", passwords("hunter2"))
    async with serving(with_answers(WRONG, TOKEN, answer(DONE))) as server, client(server.url, user=user) as etcd:
        await failure(put, etcd)
        await put(etcd)


async def test_a_password_that_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused() -> Secret:
        raise EtcdRefused("password of [store]: /etc/x: permission denied")

    monkeypatch.setattr(login, "READ_WITHIN", 0.05)
    async with serving(with_answers(TOKEN)) as server:
        async with client(server.url, user=EtcdUser("me", refused)) as etcd:
            assert "/etc/x" in str(await failure(put, etcd))
        never = trio.Event()

        async def hangs() -> Secret:
            await never.wait()
            raise AssertionError

        async with client(server.url, user=EtcdUser("me", hangs)) as etcd:
            error = await failure(put, etcd)
    assert isinstance(error, EtcdAway)
    assert "reading the password" in str(error)
    assert not server.requests


# Watches

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(value: object) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


CREATED = chunk({"result": {"header": HEADER, "created": True}})


def changed(revision: int) -> bytes:
    kv = {"key": b64encode(KEY).decode(), "mod_revision": str(revision), "value": ""}
    return chunk({"result": {"header": HEADER, "events": [{"kv": kv}]}})


def watched(*then: bytes, hold: bool = True) -> Script:
    async def script(peer: Peer) -> None:
        while request := await peer.request():
            if b"/v3/watch" not in request:
                await peer.say(answer(DONE))
                continue
            await peer.say(CHUNKED + CREATED)
            for each in then:
                await peer.say(each)
            if hold:
                await peer.hears_the_end()
            return

    return script


async def all_of(etcd: EtcdClient, found: list[Changes]) -> None:
    async with etcd.watch(KEY, 1) as changes:
        while True:
            found.append(await anext(changes))


async def test_lines_may_be_cut_anywhere() -> None:
    data = changed(5).partition(b"\r\n")[2][:-2]
    pieces = [chunk(data[at : at + 1]) for at in range(len(data))]
    found: list[Changes] = []
    async with serving(watched(*pieces, changed(6) + changed(7), b"0\r\n\r\n")) as server, client(server.url) as etcd:
        assert isinstance(await failure(lambda etcd: all_of(etcd, found), etcd), EtcdAway)
    assert [each.revision for each in found] == [5, 6, 7]


LOST = {
    "ended": ((b"0\r\n\r\n",), EtcdAway),
    "closed": ((), EtcdAway),
    "html": ((chunk(b"<html>hunter2</html>\n"),), EtcdAway),
    "no-chunk": ((b"hunter2\r\n",), EtcdAway),
    "long-chunk-header": ((b"1;" + b"h" * 9000,), EtcdAway),
    "no-leader": ((chunk({"error": {"grpc_code": 14, "message": "etcdserver: no leader"}}),), EtcdAway),
    "token-ended": ((chunk({"error": {"grpc_code": 16, "message": "etcdserver: invalid auth token"}}),), EtcdAway),
    "last-line-without-end": (
        (chunk(b'{"error":{"message":"etcdserver: mvcc: required revision has been compacted"}}') + b"0\r\n\r\n",),
        Compacted,
    ),
    "compacted": (
        (chunk({"result": {"header": {"cluster_id": "7"}, "canceled": True, "compact_revision": "4"}}),),
        Compacted,
    ),
    "denied": (
        (chunk({"result": {"header": HEADER, "canceled": True, "cancel_reason": "etcdserver: permission denied"}}),),
        EtcdRefused,
    ),
}


@pytest.mark.parametrize(("then", "error"), LOST.values(), ids=LOST)
async def test_how_a_watch_is_lost(then: tuple[bytes, ...], error: type[EtcdError]) -> None:
    found: list[Changes] = []
    async with serving(watched(changed(5), *then, hold=False)) as server, client(server.url) as etcd:
        assert type(await failure(lambda etcd: all_of(etcd, found), etcd)) is error
    assert [each.revision for each in found] == [5]


async def test_a_message_without_an_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE", 1 << 20)
    pieces = [chunk(b"x" * 60_000)] * 40
    async with serving(watched(*pieces)) as server, client(server.url) as etcd:
        assert "larger than 1 MiB" in str(await failure(lambda etcd: all_of(etcd, []), etcd))


async def test_a_request_that_fails_ends_the_watch_of_that_server() -> None:
    async def script(peer: Peer) -> None:
        request = await peer.request()
        if b"/v3/watch" in request:
            await peer.say(CHUNKED + CREATED + changed(5))
            await peer.hears_the_end()

    async with (
        serving(script) as first,
        serving(watched()) as second,
        client(first.url, second.url) as etcd,
        etcd.watch(KEY, 1) as changes,
    ):
        assert (await anext(changes)).revision == 5
        async with trio.open_nursery() as nursery:

            async def waits() -> None:
                for _ in range(2):  # the same again
                    with pytest.raises(EtcdAway, match="the watch was given up"):
                        await anext(changes)

            nursery.start_soon(waits)
            await trio.testing.wait_all_tasks_blocked()
            await failure(put, etcd)
        async with etcd.watch(KEY, 1):
            assert etcd.server == second.url
        with pytest.raises(EtcdAway):
            await anext(changes)


async def test_a_refusal_ends_no_watch() -> None:
    async def script(peer: Peer) -> None:
        while request := await peer.request():
            if b"/v3/watch" not in request:
                await peer.say(said("etcdserver: mvcc: database space exceeded", 429))
                continue
            await peer.say(CHUNKED + CREATED)
            await server.until(lambda: any(b"/v3/kv/txn" in each for each in server.requests))
            await peer.say(changed(5))

    async with (
        serving(script) as server,
        serving(hanging) as second,
        client(server.url, second.url) as etcd,
        etcd.watch(KEY, 1) as changes,
    ):
        await failure(put, etcd)
        server._move()
        assert (await anext(changes)).revision == 5


@pytest.mark.parametrize("script", [hanging, closing, with_answers(answer(b"<html>", 502))])
async def test_a_watch_is_opened_at_the_next_server_if_the_first_does_not(script: Script) -> None:
    async with serving(script) as first, serving(watched(changed(6))) as second, client(first.url, second.url) as etcd:
        async with etcd.watch(KEY, 1) as changes:
            assert (await anext(changes)).revision == 6
        assert etcd.server == second.url


async def test_a_watch_asks_for_what_it_needs() -> None:
    async with serving(watched()) as server, client(server.url) as etcd, etcd.watch(KEY, 9):
        pass
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert b"grpc-metadata-hasleader: true" in head.lower()
    assert json.loads(body) == {
        "create_request": {
            "key": "L2E=",
            "range_end": "L2I=",
            "start_revision": "9",
            "progress_notify": True,
            "fragment": True,
        }
    }
