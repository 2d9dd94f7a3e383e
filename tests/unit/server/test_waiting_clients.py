# Clients that are waited for together, and the one that is waited for by itself because no other sends anything.
from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from brokerd.server.waiting_clients import LOOKS, SLOW, TIMES, WaitingClients


class Client:
    """Answers each byte by itself, except a zero, which it leaves to a task. `error`: what is raised for it."""

    def __init__(self, waiting: WaitingClients) -> None:
        self.other, self.sock = socket.socketpair()
        self.other.setblocking(False)
        self.sock.setblocking(False)
        self.descriptor, self.waiting = self.sock.fileno(), waiting
        self.data, self.batches = b"", list[object]()
        self.error: Exception | None = None
        self.went_on: list[Exception | None] = []
        self.closed = False
        self.looks_in_vain = 0

    def read_at_once(self) -> bool:
        if self.error is not None:
            raise self.error
        try:
            self.data = self.sock.recv(1)
        except BlockingIOError:
            self.looks_in_vain += 1
            return False
        return True

    def answer_at_once(self, batch: object) -> bool:
        self.batches.append(batch)
        if self.data in (b"", b"\0"):
            return False
        self.sock.send(self.data)
        return True

    def go_on(self, error: Exception | None) -> None:
        self.went_on.append(error)
        if not self.data:
            self.waiting.forget(self.descriptor)
            self.sock.close()

    def close(self) -> None:
        self.closed = True

    @property
    def is_sole(self) -> bool:
        return self.waiting._sole.descriptor == self.descriptor

    async def ask(self, data: bytes = b"x") -> bytes:
        self.other.send(data)
        await trio.lowlevel.wait_readable(self.other)
        return self.other.recv(1)

    async def be_sole(self) -> None:
        for _ in range(TIMES + 1):
            assert await self.ask() == b"x"
        await trio.testing.wait_all_tasks_blocked()
        assert self.is_sole


@asynccontextmanager
async def clients(number: int = 1) -> AsyncIterator[list[Client]]:
    """They rest, and are waited for."""
    waiting = WaitingClients()
    made = [Client(waiting) for _ in range(number)]
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting.run)
            for each in made:
                waiting.rest(each.descriptor, each)
            yield made
            nursery.cancel_scope.cancel()
    for each in made:
        each.sock.close()
        each.other.close()


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_who_alone_sends_is_waited_for_by_itself() -> None:
    async with clients(3) as (one, two, _):
        for _ in range(TIMES):
            assert await one.ask() == b"x"
            assert not one.is_sole
        assert await one.ask() == b"x"
        assert one.is_sole
        for _ in range(3):
            assert await one.ask() == b"x"
        assert one.is_sole
        assert await two.ask() == b"x"
        assert not one.is_sole
        for each in (one, two, one):
            assert await each.ask() == b"x"
        assert len({id(each) for each in one.batches}) == TIMES + 6, "each look has a batch of its own"


async def test_who_takes_turns_with_others_is_not() -> None:
    async with clients(2) as (one, two):
        for number in range(6 * TIMES):
            await one.ask()
            if number % (TIMES - 1) == 0:
                await two.ask()
            assert one.waiting._sole.descriptor < 0


async def test_what_another_sends_at_the_same_moment_is_answered_too() -> None:
    async with clients(2) as (one, two):
        for _ in range(3):
            await one.be_sole()
            one.other.send(b"1")
            two.other.send(b"2")
            assert await two.ask(b"3") == b"2"
            await until(lambda: len(two.batches) % 2 == 0)
            assert (one.other.recv(9), two.other.recv(9)) == (b"1", b"3")
            assert not one.is_sole


async def test_one_that_asks_again_soon_is_not_waited_for_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    async with clients() as (one,):
        await one.be_sole()
        waited = list[object]()
        wait = trio.lowlevel.wait_readable

        async def counted(what: socket.socket | int) -> None:
            waited.append(what)
            await wait(what)

        monkeypatch.setattr(trio.lowlevel, "wait_readable", counted)
        for _ in range(100):
            one.other.send(b"x")
            number = len(one.batches)
            await until(lambda number=number: len(one.batches) > number)
        assert waited.count(one.descriptor) <= 1
        assert one.is_sole


async def test_one_that_asks_again_late_is_seldom_looked_for() -> None:
    async with clients() as (one,):
        await one.be_sole()
        one.looks_in_vain = 0
        for _ in range(2 * SLOW + 2):
            assert await one.ask() == b"x"
            await trio.testing.wait_all_tasks_blocked()
        assert LOOKS <= one.looks_in_vain <= 3 * LOOKS


@pytest.mark.parametrize("error", [None, ConnectionResetError("gone")])
async def test_one_that_needs_a_task_is_not_waited_for_any_more(error: Exception | None) -> None:
    async with clients() as (one,):
        await one.be_sole()
        one.error = error
        one.other.send(b"\0")
        await until(lambda: one.went_on)
        assert one.went_on == [error]
        assert not one.is_sole
        one.other.send(b"z")
        await trio.lowlevel.wait_readable(one.sock)  # the task may do so, as nobody else does
        assert one.sock.recv(9)[-1:] == b"z"
        one.error = None
        one.waiting.rest(one.descriptor, one)
        assert await one.ask() == b"x"


async def test_one_that_needs_a_task_at_last_does_not_become_it() -> None:
    async with clients() as (one,):
        for _ in range(TIMES):
            await one.ask()
        one.other.send(b"\0")
        await until(lambda: one.went_on)
        await trio.testing.wait_all_tasks_blocked()
        assert not one.is_sole


async def test_one_that_ends_right_after_it_became_it_ends_nobody_else() -> None:
    for _ in range(20):  # which task goes first is drawn
        async with clients() as (one,):
            for _ in range(TIMES):
                await one.ask()
            one.other.send(b"x")
            await until(lambda one=one: one.is_sole)
            one.waiting.forget(one.descriptor)
            await trio.testing.wait_all_tasks_blocked()
            assert one.other.recv(9) == b"x"


async def test_one_that_has_gone_is_noticed_and_its_number_may_be_anothers() -> None:
    async with clients() as (one,):
        await one.be_sole()
        one.other.close()
        await until(lambda: one.went_on)
        another = Client(one.waiting)
        assert one.descriptor in (another.descriptor, another.other.fileno())
        one.waiting.rest(another.descriptor, another)
        await another.be_sole()
        one.waiting.forget(another.descriptor)  # while it is waited for by itself
        assert not another.is_sole
        another.sock.close()
        another.other.close()
        assert one.went_on == [None]
        assert another.went_on == []


async def test_a_task_that_waits_may_be_cancelled_and_then_wait_by_itself() -> None:
    async with clients() as (one,), trio.open_nursery() as nursery:
        waits = trio.CancelScope()

        async def wait() -> None:
            with waits:
                await one.waiting.wait(one.descriptor, one)
            await trio.lowlevel.wait_readable(one.sock)
            one.went_on.append(None)

        nursery.start_soon(wait)
        await one.be_sole()
        waits.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not one.is_sole
        one.other.send(b"y")
        await until(lambda: one.went_on)
        assert one.sock.recv(9) == b"y"


async def test_who_waits_until_it_can_send_goes_on_waiting_when_another_client_sends() -> None:
    async with clients(2) as (one, two), trio.open_nursery() as nursery:
        await one.be_sole()
        sent = one.sock.send(bytes(1 << 24))  # more than fits
        writable: list[int] = []

        async def write() -> None:
            await trio.lowlevel.wait_writable(one.sock)
            writable.append(1)

        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        assert one.is_sole
        assert await two.ask() == b"x"
        await trio.testing.wait_all_tasks_blocked()
        assert not one.is_sole
        assert writable == []
        while sent:
            sent -= len(one.other.recv(1 << 20))
        await until(lambda: writable)


async def test_nobody_is_answered_after_the_end() -> None:
    async with trio.open_nursery() as nursery:
        waiting = WaitingClients()
        nursery.start_soon(waiting.run)
        await trio.testing.wait_all_tasks_blocked()
        waiting.answer_now()
        nursery.cancel_scope.cancel()
    waiting.answer_now()


async def test_a_client_that_rests_is_closed_at_the_end() -> None:
    async with clients(2) as (one, two):
        await one.be_sole()
    assert one.closed
    assert two.closed
