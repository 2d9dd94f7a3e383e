# What the port for metrics answers at all: requests that name this machine, not those that a page in a browser makes.
# And that many who ask at once cost one text.
from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from brokerd.edge.http.requests import HttpRequest
from brokerd.server.http.messages import Refused
from brokerd.server.http.metrics_port import KEPT, WITHIN, MetricsPort, check
from brokerd.server.scrape import Scrape


def asked(
    host: str = "127.0.0.1", *, path: str = "/metrics", method: str = "GET", origin: str | None = None
) -> HttpRequest:
    return HttpRequest(method, path, {}, b"", origin, host=host)


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9464", "[::1]:9464", "[::1]", "LOCALHOST", "localhost.:9464", "db1", "DB1:9464", "10.1.2.3", ""]
)
def test_an_address_and_the_own_names_are_taken(host: str) -> None:
    check(asked(host), "db1")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:9464", "localhost.evil.example", "db1.evil.example", "db2", "[x]"]
)
def test_a_name_that_somebody_else_may_have_made_is_refused(host: str) -> None:
    with pytest.raises(Refused) as caught:
        check(asked(host), "db1")
    assert caught.value.status == 403
    assert "expected the IP address of this machine, localhost or db1 in Host" in str(caught.value)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asked(origin="http://127.0.0.1:9464"), 403),
        (asked(path="/v1/token/app"), 404),
        (asked(path="/metrics/../v1/status"), 404),
        (asked(path="/%6detrics"), 404),
        (asked(method="POST"), 405),
        (asked(method="HEAD"), 405),
    ],
)
def test_nothing_else_is_answered(request_: HttpRequest, status: int) -> None:
    with pytest.raises(Refused) as caught:
        check(request_, "db1")
    assert caught.value.status == status


class SlowScrape:
    def __init__(self) -> None:
        self.texts = 0
        self.bugs: list[str] = []
        self.events = self

    def bug(self, where: str) -> None:
        self.bugs.append(where)

    async def text(self, may_see: Callable[[str], bool]) -> str:
        assert may_see("any grant")
        await trio.sleep(0.3)
        self.texts += 1
        return f"text {self.texts}"


async def test_many_who_ask_at_once_get_one_text(autojump_clock: MockClock) -> None:
    scrape, found = SlowScrape(), list[bytes]()
    port = MetricsPort(cast(Scrape, scrape), "db1")

    async def ask() -> None:
        found.append((await port._answer(asked()))[2])

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert set(found) == {b"text 1"}
    await trio.sleep(KEPT + 0.1)
    await ask()
    assert found[-1] == b"text 2"


async def fetched(port: MetricsPort) -> bytes:
    ours, its = memory_stream_pair()
    await ours.send_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await port._serve(its)
    return b"".join([piece async for piece in ours])


async def test_a_fault_of_ours_ends_one_connection(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    scrape = SlowScrape()
    port = MetricsPort(cast(Scrape, scrape), "db1")
    with monkeypatch.context() as broken:
        broken.delattr(SlowScrape, "text")
        assert await fetched(port) == b""
    assert scrape.bugs == ["scrape"]
    assert (await fetched(port)).endswith(b"text 1")


async def test_a_client_that_says_nothing_is_given_up(autojump_clock: MockClock) -> None:
    _, its = memory_stream_pair()
    began = trio.current_time()
    await MetricsPort(cast(Scrape, SlowScrape()), "db1")._serve(its)
    assert trio.current_time() - began == WITHIN
