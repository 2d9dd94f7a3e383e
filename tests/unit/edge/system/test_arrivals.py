# A function is called when something has come at a socket: bytes once, an end once, and nothing without a reason.
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from brokerd.edge.system.arrivals import AT_ONCE, LOOKS, Arrivals

WITHIN = 30.0  # seconds


@pytest.fixture
async def arrivals(nursery: trio.Nursery) -> AsyncIterator[Arrivals]:
    made = Arrivals()
    nursery.start_soon(made.run)
    yield made
    nursery.cancel_scope.cancel()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


async def until(said: list[bool], number: int) -> None:
    with trio.fail_after(WITHIN):
        while len(said) < number:
            await trio.lowlevel.checkpoint()


async def test_bytes_and_an_end_are_told_once_each(
    arrivals: Arrivals, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    said = list[bool]()
    arrivals.calls[ours.fileno()] = said.append
    arrivals.add(ours)
    theirs.send(b"x")
    await until(said, 1)
    await trio.testing.wait_all_tasks_blocked(0.02)
    assert said == [False]  # although the byte was not read
    theirs.send(b"y")
    await until(said, 2)
    theirs.shutdown(socket.SHUT_WR)
    await until(said, 3)
    assert said == [False, False, True]


async def test_what_has_come_before_is_told_with_the_end_behind_it(
    arrivals: Arrivals, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    said = list[bool]()
    theirs.send(b"x")
    theirs.close()
    arrivals.calls[ours.fileno()] = said.append
    arrivals.add(ours)
    await until(said, 1)
    assert said == [True]


async def test_a_socket_without_a_call_is_passed_over(
    arrivals: Arrivals, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    said = list[bool]()
    arrivals.add(ours)
    theirs.send(b"x")
    await trio.testing.wait_all_tasks_blocked(0.02)
    arrivals.calls[ours.fileno()] = said.append
    theirs.send(b"y")
    await until(said, 1)


async def test_other_tasks_have_their_turn_however_much_comes(arrivals: Arrivals) -> None:
    pairs = [socket.socketpair() for _ in range(2 * AT_ONCE)]
    calls = 0

    def again(ours: socket.socket, theirs: socket.socket) -> None:
        nonlocal calls
        calls += 1
        ours.recv(1)
        theirs.send(b"x")  # the next one is there at once

    try:
        for ours, theirs in pairs:
            arrivals.calls[ours.fileno()] = lambda _, one=ours, other=theirs: again(one, other)  # type: ignore[misc]
            arrivals.add(ours)
            theirs.send(b"x")
        for _ in range(20):
            before = calls
            await trio.lowlevel.checkpoint()
            assert calls - before <= 2 * AT_ONCE * LOOKS  # trio mixes the order of tasks: twice, between two turns
        assert calls > 0
    finally:
        arrivals.calls.clear()
        for one in pairs:
            for each in one:
                each.close()
