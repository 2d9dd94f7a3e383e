# What an upstream that speaks TLS can do to the one thread of the proxy: records of one byte each, many answers 1xx,
# and an end that the kernel does not show.
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trustme

from brokerd.core.http.heads import END, ResponseHead, read_response
from brokerd.edge.http.wire import RECORDS, Wire
from brokerd.proxy import short_way
from brokerd.proxy.exchange import EARLY
from tests.unit.proxy.conftest import WITHIN, Setup, proxied

GET = b"GET /things HTTP/1.1\r\nHost: proxy\r\n\r\n"
POST = b"POST /things HTTP/1.1\r\nHost: proxy\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class TlsUpstream:
    """It answers each request with the next of `answers`, all records of one answer at once. `closes`: TLS ends with
    each answer, and the connection stays open."""

    def __init__(self, folder: Path) -> None:
        self.answers: list[list[bytes]] = []
        self.closes = False
        self.port = 0
        self.ca_file = folder / "ca.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.ca_file))
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(self._context)

    async def serve(self, stream: trio.SocketStream) -> None:
        came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls, shaken, ahead = self._context.wrap_bio(came, goes, server_side=True), False, b""
        async with stream:
            while True:
                try:
                    if not shaken:
                        tls.do_handshake()
                        shaken = True
                    if not (more := tls.read(65_536)):
                        return
                    ahead += more
                    if ahead.endswith(END):
                        ahead = b""
                        for record in self.answers.pop(0):
                            tls.write(record)
                        if self.closes:
                            tls.unwrap()
                except ssl.SSLWantReadError:
                    if goes.pending:
                        await stream.send_all(goes.read())
                    if not (data := await stream.receive_some(65_536)):
                        return
                    came.write(data)
                except (ssl.SSLError, trio.BrokenResourceError):
                    return


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[TlsUpstream]:
    async with trio.open_nursery() as nursery:
        made = TlsUpstream(tmp_path)
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, made.serve, [listener])
        made.port = listener.socket.getsockname()[1]
        yield made
        nursery.cancel_scope.cancel()


@pytest.fixture
async def setup(upstream: TlsUpstream, tmp_path: Path) -> AsyncIterator[Setup]:
    url, ca_file = f'"https://localhost:{upstream.port}"', f'"{upstream.ca_file}"'
    async with proxied(tmp_path, upstream=url, ca_file=ca_file) as made:
        yield made


async def test_an_answer_in_records_of_one_byte_delays_nobody(
    upstream: TlsUpstream, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, received, at_once = 0, list[int](), Wire.receive_into

    def counted(data: bytes) -> ResponseHead:
        nonlocal read
        read += 1
        return read_response(data)

    async def noted(self: Wire, room: memoryview) -> int:
        size = await at_once(self, room)
        if self._secured:
            received.append(size)
        return size

    monkeypatch.setattr(short_way, "read_response", counted)
    monkeypatch.setattr(Wire, "receive_into", noted)
    body = b"x" * 2_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + body
    upstream.answers = [[OK], [answer[:50], *(answer[at : at + 1] for at in range(50, len(answer)))]]
    async with setup.client() as client:
        assert await client.ask(GET) == OK
        received.clear()
        assert await client.ask(GET) == answer
    assert 0 < read <= 2
    assert received
    assert max(received) <= RECORDS + 1


@pytest.mark.parametrize("pieces", [1, 2])
async def test_an_end_that_came_with_an_answer_is_seen_before_the_next_request(
    pieces: int, upstream: TlsUpstream, setup: Setup
) -> None:
    upstream.answers, upstream.closes = [[OK]] * 4, True
    async with setup.client() as client:
        for _ in range(3):
            assert await client.ask(POST, pieces=pieces) == OK


@pytest.mark.parametrize("number", [EARLY, EARLY + 1])
async def test_more_answers_before_the_answer_than_a_few_are_an_error(
    number: int, upstream: TlsUpstream, setup: Setup
) -> None:
    upstream.answers = [[OK], [b"HTTP/1.1 103 E\r\n\r\n" * number, OK]]
    async with setup.client() as client:
        with trio.fail_after(WITHIN):
            await client.ask(GET)
            answer = await client.ask(GET)
    assert answer.startswith(b"HTTP/1.1 200 " if number <= EARLY else b"HTTP/1.1 502 ")
