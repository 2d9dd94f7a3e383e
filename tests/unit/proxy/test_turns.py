# Users share the event loop: one that wants very much delays another one by a few turns at most.
from __future__ import annotations

import trio

from brokerd.proxy.turns import MOST, Turn, Turns

FLOOD, VICTIM = 1, 2


async def test_few_turns_are_had_without_waiting_and_more_in_the_next_round() -> None:
    turns = Turns()
    assert [turns.now() for _ in range(MOST + 2)] == [True] * MOST + [False] * 2
    await trio.testing.wait_all_tasks_blocked()
    assert turns.now()


async def test_a_user_that_wants_very_much_delays_another_by_three_rounds_at_most() -> None:
    turns, taken = Turns(), list[int]()

    async def flood() -> None:
        turn = Turn(turns, FLOOD)
        while True:
            await turn.take()
            taken.append(FLOOD)

    async with trio.open_nursery() as nursery:
        for _ in range(1_000):
            nursery.start_soon(flood)
        victim = Turn(turns, VICTIM)
        for _ in range(20):
            for _ in range(50):
                await trio.lowlevel.checkpoint()
            before = len(taken)
            await victim.take()
            assert len(taken) - before <= 3 * MOST
        nursery.cancel_scope.cancel()
    assert len(taken) > 20 * MOST


async def test_who_wants_little_is_done_before_who_wants_much() -> None:
    turns, taken = Turns(), list[int]()

    async def want(uid: int) -> None:
        await Turn(turns, uid).take()
        taken.append(uid)

    async with trio.open_nursery() as nursery:
        for uid, tasks in ((1, 500), (2, 10), (3, 1)):
            for _ in range(tasks):
                nursery.start_soon(want, uid)
    assert len(taken) == 511
    assert taken.index(3) <= 4 * MOST
    assert taken[: 4 * MOST + 3 * 10].count(2) == 10


async def test_who_gives_up_waiting_takes_no_turn() -> None:
    turns, taken = Turns(), list[int]()

    async def want(uid: int) -> None:
        await Turn(turns, uid).take(1 + MOST)
        taken.append(uid)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            await Turn(turns, FLOOD).take(2 * MOST)
        nursery.start_soon(want, VICTIM)
    assert scope.cancelled_caught
    assert taken == [VICTIM]
    await trio.testing.wait_all_tasks_blocked()
    assert turns.now()
