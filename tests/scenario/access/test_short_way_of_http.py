# What only HTTP has on the short way: the whole request counts, with its headers, and the answer says how many seconds
# the token still lives. Each answer of the short way is compared with the long way's (repeated_gets.py).
from __future__ import annotations

import contextlib
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.scenario.access.repeated_gets import History, HttpClient, history
from tests.scenario.laws.world import LIFETIME

GET = b"GET /v1/token/app HTTP/1.1\r\nHost: brokerd\r\n"
END = b"\r\n"
PLAIN = GET + END


class Here:
    """`exchange` sends bytes and brings those of the answers that come before all is quiet; b"": the server hung up."""

    def __init__(self, past: History, client: HttpClient, clock: MockClock) -> None:
        self.past, self.client, self.clock = past, client, clock

    @property
    def given(self) -> int:
        return self.past.way.given

    async def exchange(self, data: bytes) -> bytes:
        self.client.send(data)
        return await self.received()

    async def received(self) -> bytes:
        await trio.testing.wait_all_tasks_blocked()
        with contextlib.suppress(BlockingIOError):
            return self.client._ours.recv(1 << 20)
        raise AssertionError("no answer")

    async def warm(self, data: bytes = PLAIN) -> bytes:
        """The short way answers from now on."""
        before = self.given
        answers = {await self.exchange(data) for _ in range(3)}
        assert self.given > before
        assert len(answers) == 1
        return answers.pop()


@pytest.fixture
async def here(autojump_clock: MockClock) -> AsyncIterator[Here]:
    async with history(kind=HttpClient) as past:
        assert isinstance(past.client, HttpClient)
        autojump_clock.autojump_threshold = math.inf  # time passes when a test says so
        yield Here(past, past.client, autojump_clock)
        autojump_clock.autojump_threshold = 0


def body(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def test_the_seconds_that_a_token_still_lives_are_those_of_now(here: Here, autojump_clock: MockClock) -> None:
    first = body(await here.warm())
    assert LIFETIME - 2 < first["expires_in"] <= LIFETIME
    for seconds in (0.5, 1.0, 0.25, 0.25, 0.25, 3.0):
        here.clock.jump(seconds)
        now = here.past.clock.now().wall
        for _ in range(2):
            found = body(await here.exchange(PLAIN))
            assert found["expires_in"] == int(found["expires_at"] - now)
    given = here.given
    await here.exchange(PLAIN)
    assert here.given == given + 1, "within a second it is taken again"


async def test_a_second_that_ended_while_the_answer_was_made_is_not_remembered(
    here: Here, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is what was written, whatever the clock says afterwards."""
    await here.exchange(PLAIN)
    way, remember = here.past.way, here.past.way.remember_http

    def late(*args: Any) -> None:
        here.clock.jump(1.0)
        remember(*args)

    monkeypatch.setattr(way, "remember_http", late)
    first = body(await here.exchange(PLAIN))
    monkeypatch.undo()
    assert body(await here.exchange(PLAIN))["expires_in"] == first["expires_in"] - 1


@pytest.mark.parametrize(
    "header",
    [
        b"Accept: text/plain\r\n",
        b"Cookie: a=b\r\n",
        b"X-Request-ID: 0123456789abcdef\r\n",
        b"Content-Length: 0\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: h2c\r\n",
        b"X: a\r\n b\r\n",
    ],
)
async def test_another_header_is_another_request(here: Here, autojump_clock: MockClock, header: bytes) -> None:
    await here.warm()
    given = here.given
    await here.exchange(GET + header + END)
    assert here.given == given


@pytest.mark.parametrize(
    ("other", "status"),
    [
        (PLAIN.replace(b"GET", b"HEAD"), 405),
        (PLAIN.replace(b"GET", b"POST"), 405),
        (PLAIN.replace(b"app", b"other"), 200),
        (PLAIN.replace(b"app", b"none"), 404),
        (PLAIN.replace(b"/v1/token", b"/v1/header"), 200),
        (PLAIN.replace(b"1.1", b"1.0"), 200),
        (GET + b"Origin: http://evil.test\r\n" + END, 403),
    ],
)
async def test_another_request_line_is_another_request(
    here: Here, autojump_clock: MockClock, other: bytes, status: int
) -> None:
    await here.warm()
    given = here.given
    assert (await here.exchange(other)).startswith(b"HTTP/1.1 %d " % status)
    assert here.given == given


@pytest.mark.parametrize("at", [0, 20])
async def test_the_answer_to_another_request_is_never_remembered_for_this_one(
    here: Here, autojump_clock: MockClock, at: int
) -> None:
    """The other one is read by h11: because of its header, or because it came in pieces."""
    answer = await here.exchange(PLAIN)
    other = (
        PLAIN.replace(b"app", b"other")
        if at
        else (GET + b"X-Request-ID: 0123456789abcdef\r\n" + END).replace(b"app", b"other")
    )
    if at:
        here.client.send(other[:at])
        await trio.testing.wait_all_tasks_blocked()
    assert body(await here.exchange(other[at:]))["grant"] == "other"
    assert not here.client.session.short
    assert await here.warm() == answer


async def test_a_client_that_asks_for_the_end_gets_it(here: Here, autojump_clock: MockClock) -> None:
    await here.warm()
    answer = await here.exchange(GET + b"Connection: close\r\n" + END)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert await here.received() == b""


async def test_a_header_of_one_path_is_never_made_from_another(here: Here, autojump_clock: MockClock) -> None:
    """Nothing but the token's own path is answered the short way."""
    for _ in range(4):
        assert b"Bearer test-only-access-1" in await here.exchange(PLAIN.replace(b"/v1/token", b"/v1/header"))
    assert here.given == 0


async def test_pipelined_requests_are_all_answered(here: Here, autojump_clock: MockClock) -> None:
    answer = await here.warm()
    given = here.given
    assert await here.exchange(PLAIN * 5) == answer * 5
    assert here.given == given, "more than one request is for the long way"
    assert await here.exchange(PLAIN) == answer
    assert here.given == given + 1


@pytest.mark.parametrize("at", [1, 20, len(PLAIN) - 2])
async def test_a_request_in_pieces_takes_the_long_way(here: Here, autojump_clock: MockClock, at: int) -> None:
    answer = await here.warm()
    given = here.given
    here.client.send(PLAIN[:at])
    await trio.testing.wait_all_tasks_blocked()
    assert await here.exchange(PLAIN[at:]) == answer
    assert here.given == given


async def test_a_remembered_request_in_the_body_of_another_is_no_request(here: Here, autojump_clock: MockClock) -> None:
    await here.warm()
    given = here.given
    here.client.send(GET.replace(b"GET /v1/token", b"POST /v1/refused") + b"Content-Length: %d\r\n\r\n" % len(PLAIN))
    await trio.testing.wait_all_tasks_blocked()
    assert (await here.exchange(PLAIN)).startswith(b"HTTP/1.1 400 ")
    assert here.given == given


async def test_nothing_is_answered_behind_a_request_for_events(here: Here, autojump_clock: MockClock) -> None:
    await here.warm()
    given = here.given
    assert b"text/event-stream" in await here.exchange(GET.replace(b"token/app", b"events?grant=app") + END)
    assert b"access_token" not in await here.exchange(PLAIN)
    assert here.given == given


async def test_a_request_that_waits_is_answered_before_the_next(here: Here, autojump_clock: MockClock) -> None:
    """A get behind it is not answered at once, out of turn."""
    await here.warm()
    given = here.given
    here.client.send(b"POST /v1/refused/app HTTP/1.1\r\nHost: brokerd\r\nContent-Length: 18\r\n\r\ntest-only-access-1")
    await trio.testing.wait_all_tasks_blocked()
    here.client.send(PLAIN)
    here.clock.autojump_threshold = 0
    answers = b""
    with trio.fail_after(60):
        while answers.count(b"HTTP/1.1 ") < 2:
            await trio.lowlevel.wait_readable(here.client._ours)
            answers += here.client._ours.recv(65_536)
    assert answers.count(b'"access_token":"test-only-access-3"') == 2, "both after the renewal"
    assert here.given == given


async def test_a_long_request_is_not_remembered(here: Here, autojump_clock: MockClock) -> None:
    for _ in range(4):
        await here.exchange(GET + b"X: " + b"a" * 300 + b"\r\n" + END)
    assert here.given == 0
    assert not here.client.session.short
