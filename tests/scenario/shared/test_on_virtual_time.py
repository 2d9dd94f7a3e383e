# Shared tokens over a broker on virtual time: evidence that changes or takes its time, limits, and an audit log that
# cannot be written.
from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from brokerd_client import shared_token
from brokerd_client.shared_token import CLOSED, NONE, TOKEN, SharedTokenReader, _mapped
from trio.testing import MockClock

from brokerd.core.access.admission import Account
from brokerd.core.access.policy import Policy, Rule, Selector
from brokerd.core.shared_token import BEAT_EVERY, BEAT_LASTS
from brokerd.edge.system.shared_memory import SharedMemory
from brokerd.server import shared_tokens, token_memories
from brokerd.server.methods.method import AnswerWithDescriptor
from brokerd.server.session import CallerSession
from tests.scenario.access.methods import EVIL, PORTAL, RIGHT, Desk, Program, allows, desk

ANYBODY = Selector(uid=PORTAL)
BY_PROGRAM = Selector(uid=PORTAL, exe=RIGHT.exe)
OWNER = 990


async def asked(here: Desk, session: CallerSession, grant: str = "app") -> SharedTokenReader:
    answer = await here.ask(session, "share", grant=grant)
    assert isinstance(answer, AnswerWithDescriptor), answer
    reader = SharedTokenReader(_mapped(answer.descriptor), grant)
    os.close(answer.descriptor)
    return reader


@contextlib.asynccontextmanager
async def ready(folder: Path, *selectors: Selector) -> AsyncIterator[Desk]:
    """With a living token."""
    async with desk(folder, allows(*selectors)) as here:
        await here.ask(here.session(Program(uid=OWNER)), "get", grant="app")
        yield here
        for session in [*shared_of(here)._callers]:
            here.dispatcher.end(session)


def shared_of(here: Desk) -> shared_tokens.SharedTokens:
    return here.dispatcher._shared


def memories_of(here: Desk) -> token_memories.TokenMemories:
    return shared_of(here)._memories


def state(reader: SharedTokenReader) -> int:
    return reader._look().state


async def test_another_program_is_noticed_though_nobody_tells(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with ready(tmp_path, BY_PROGRAM) as here:
        process = Program()
        reader = await asked(here, here.session(process))
        assert state(reader) == TOKEN
        process.evidence = EVIL
        await trio.sleep(0.010)
        assert state(reader) == CLOSED
        assert shared_of(here).count("app") == 0


async def test_evidence_that_is_not_asked_for_is_not_looked_at(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_tokens, "LOOKED_AT_FOR", 10.0)
    async with ready(tmp_path, ANYBODY) as here:
        process = Program()
        reader = await asked(here, here.session(process))
        before = len(process.steps)
        await trio.sleep(2 * shared_tokens.LOOKED_AT_FOR)
        assert len(process.steps) == before
        assert state(reader) == TOKEN


async def test_a_program_that_reads_no_more_is_not_looked_at_for_ever(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_tokens, "LOOKED_AT_FOR", 10.0)
    async with ready(tmp_path, BY_PROGRAM) as here:
        process = Program()
        session = here.session(process)
        reader = await asked(here, session)
        await trio.sleep(shared_tokens.LOOKED_AT_FOR - 1)
        assert state(reader) == TOKEN
        await trio.sleep(2)
        assert state(reader) == CLOSED
        before = len(process.steps)
        await trio.sleep(10)
        assert len(process.steps) == before
        assert state(await asked(here, session)) == TOKEN


async def test_while_evidence_is_read_it_says_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with ready(tmp_path, BY_PROGRAM) as here:
        process, seen = Program(), list[int]()
        reader = await asked(here, here.session(process))
        process.at_once = False

        def looked() -> None:
            seen.append(state(reader))
            process.at_once = True

        process.while_looking = looked
        await trio.sleep(0.1)
        assert (seen, state(reader)) == ([NONE], TOKEN)


async def test_evidence_that_changes_while_it_is_read_closes_it(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with ready(tmp_path, BY_PROGRAM) as here:
        process = Program()
        reader = await asked(here, here.session(process))

        def looked() -> None:
            process.evidence, process.at_once = EVIL, True

        process.at_once, process.while_looking = False, looked
        await trio.sleep(0.1)
        assert state(reader) == CLOSED


async def test_who_cannot_be_glanced_at_gets_none(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with ready(tmp_path, BY_PROGRAM) as here:
        process = Program(at_once=False)
        session = here.session(process)
        assert await here.ask(session, "share", grant="app") == "bad_request"
        assert isinstance(await here.ask(session, "get", grant="app"), dict)
        process.at_once = True
        reader = await asked(here, session)
        process.at_once = False
        await trio.sleep(0.1)
        assert state(reader) == CLOSED, "nor does who cannot be glanced at any more"


async def test_a_reload_that_takes_the_right_away_closes_it(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with ready(tmp_path, ANYBODY) as here:
        reader = await asked(here, here.session(Program()))
        here.dispatcher.rights.policy = Policy((), owner=OWNER)
        here.broker.tell_watchers("app")  # as a reload does
        await trio.testing.wait_all_tasks_blocked()
        assert state(reader) == CLOSED


async def test_what_is_not_certain_any_more_goes_before_anything_else_happens(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """However many callers read it, and whatever brokerd has to do for each."""
    async with ready(tmp_path, ANYBODY) as here:
        readers = [await asked(here, here.session(Program())) for _ in range(20)]
        here.dispatcher.rights.policy = allows(ANYBODY)
        here.broker.tell_watchers("app")
        assert {state(reader) for reader in readers} == {NONE}, "the rules may say something else now"
        await trio.testing.wait_all_tasks_blocked()
        assert {state(reader) for reader in readers} == {TOKEN}, "they do not"
        here.broker.grants["app"].stopped = True  # the first thing that a revocation does
        here.broker.tell_watchers("app")
        assert {state(reader) for reader in readers} == {NONE}
        assert not any(any(reader._memory[76:]) for reader in readers)
        await trio.testing.wait_all_tasks_blocked()
        assert {state(reader) for reader in readers} == {CLOSED}


async def test_without_a_word_the_next_beat_notices(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with ready(tmp_path, ANYBODY) as here:
        process = Program()
        reader = await asked(here, here.session(process))
        process.ended = True
        await trio.sleep(BEAT_EVERY + 0.001)
        assert state(reader) == CLOSED


async def test_a_connection_that_ends_at_once_is_not_waited_for(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Its pidfd is closed by then."""

    class Closed(Program):
        async def until_ended(self) -> None:
            raise OSError(9, "Bad file descriptor")

    async with ready(tmp_path, ANYBODY) as here:
        session = here.session(Closed())
        reader = await asked(here, session)
        here.dispatcher.end(session)
        await trio.sleep(1)
        assert state(reader) == CLOSED
        recent = shared_of(here)._events.recent.newest(10, lambda _: True, fully=True)
        assert "bug" not in {each["event"] for each in recent}


async def test_the_beat_is_what_the_clock_says_and_often_enough(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with ready(tmp_path, ANYBODY) as here:
        reader = await asked(here, here.session(Program()))
        for _ in range(100):
            await trio.sleep(0.111)
            age = here.broker.now().boot - reader._times[shared_token.BEAT]
            assert 0 <= age <= BEAT_EVERY + 0.001 < BEAT_LASTS / 2


async def test_an_audit_log_that_cannot_be_written_ends_serving_here_too(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ready(tmp_path, ANYBODY) as here:
        reader = await asked(here, here.session(Program()))
        events = cast(Any, shared_of(here)._events)
        monkeypatch.setattr(type(events), "forbids_serving", "disk full")
        await trio.sleep(BEAT_EVERY + 0.001)
        assert state(reader) == NONE
        assert await here.ask(here.session(Program()), "share", grant="app") == "unavailable"
        monkeypatch.setattr(type(events), "forbids_serving", None)
        await trio.sleep(BEAT_EVERY + 0.001)
        assert state(reader) == TOKEN


async def test_a_fault_of_ours_closes_all(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ready(tmp_path, ANYBODY) as here:
        reader = await asked(here, here.session(Program()))

        def breaks(*_: object) -> None:
            raise RuntimeError("a fault")

        monkeypatch.setattr(shared_of(here), "_update", breaks)
        await trio.sleep(BEAT_EVERY + 0.001)
        assert state(reader) == CLOSED
        monkeypatch.undo()
        again = await asked(here, here.session(Program()))
        await trio.sleep(1)
        assert state(again) == TOKEN, "and nothing else"


async def test_a_fault_when_one_ends_ends_nothing_else(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ready(tmp_path, BY_PROGRAM) as here:
        shared, processes = shared_of(here), [Program(), Program()]
        readers = [await asked(here, here.session(process)) for process in processes]

        def breaks(*_: object) -> None:
            raise RuntimeError("a fault")

        with monkeypatch.context() as patched:
            patched.setattr(type(shared._events), "share_ended", breaks)
            processes[0].evidence = EVIL
            await trio.sleep(BEAT_EVERY)
        assert state(readers[0]) == CLOSED
        assert shared.count("app") in (0, 1)
        again = await asked(here, here.session(Program()))
        await trio.sleep(1)
        assert state(again) == TOKEN


async def test_limits_are_answered_with_a_clear_error(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_memories, "PART_OF_USER", 2)
    both = Rule(("*",), (Selector(uid=PORTAL), Selector(uid=7)))
    async with desk(tmp_path, Policy((both,), owner=OWNER)) as here:
        await here.ask(here.session(Program(uid=OWNER)), "get", grant="app")
        monkeypatch.setattr(memories_of(here), "_most", 4)
        limited = Account(rate=5_000.0)
        sessions = [here.session(Program(), limited) for _ in range(3)]
        readers = [await asked(here, session) for session in sessions[:2]]
        assert await here.ask(sessions[2], "share", grant="app") == "limit"
        here.dispatcher.end(sessions[0])
        assert state(readers[0]) == CLOSED
        assert await here.ask(sessions[2], "share", grant="app") == "limit", "the closed one is still mapped"
        del readers[0]
        readers.append(await asked(here, sessions[2]))
        others = [here.session(Program(uid=7), Account(rate=5_000.0)) for _ in range(2)]
        readers += [await asked(here, session) for session in others]
        root = here.session(Program(uid=OWNER))
        assert await here.ask(root, "share", grant="app") == "limit", "all have too many together"
        monkeypatch.setattr(memories_of(here), "_most", 5)
        readers.append(await asked(here, root))
        monkeypatch.setattr(shared_tokens, "MOST_ON_CONNECTION", 0)
        assert await here.ask(root, "share", grant="app") == "limit"
        for session in [*sessions, *others, root]:
            here.dispatcher.end(session)


async def test_a_request_that_is_refused_looks_at_few_closed_ones(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user has closed all that it may have and holds them: what it asks for then costs no more than before."""
    looks, number = list[object](), 40
    is_held = SharedMemory.is_held

    def counted(memory: SharedMemory) -> bool:
        looks.append(memory)
        return is_held(memory)

    async with ready(tmp_path, ANYBODY) as here:
        monkeypatch.setattr(memories_of(here), "_most", number * token_memories.PART_OF_USER)
        session = here.session(Program(), Account(rate=5_000.0))
        readers = [await asked(here, session) for _ in range(number)]
        monkeypatch.setattr(SharedMemory, "is_held", counted)
        assert await here.ask(session, "share", grant="app") == "limit"
        assert len(looks) <= token_memories.AT_ONCE
        monkeypatch.setattr(memories_of(here), "_most", number)
        other = here.session(Program(uid=OWNER))
        looks.clear()
        assert await here.ask(other, "share", grant="app") == "limit"
        assert len(looks) <= token_memories.AT_ONCE
        readers.clear()
        assert state(await asked(here, other)) == TOKEN


async def test_a_user_gets_new_memories_slowly_in_the_end(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each could leave pages in a pipe, which nobody can find there."""
    monkeypatch.setattr(token_memories, "MADE_AT_ONCE", 5)
    async with ready(tmp_path, ANYBODY) as here:
        session = here.session(Program(), Account(rate=5_000.0))
        for _ in range(5):
            assert state(await asked(here, session)) == TOKEN
        assert await here.ask(session, "share", grant="app") == "limit"
        assert isinstance(await here.ask(session, "get", grant="app"), dict)
        root = here.session(Program(uid=OWNER))
        for _ in range(7):
            assert state(await asked(here, root)) == TOKEN, "another user, and an operator"
        await trio.sleep(token_memories.MADE_EACH + 0.1)
        assert state(await asked(here, session)) == TOKEN
        assert await here.ask(session, "share", grant="app") == "limit"


async def test_looks_at_many_programs_leave_others_their_turn(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, look_at = [0], shared_tokens.SharedTokens._look_at

    def counted(*arguments: Any) -> bool:
        looks[-1] += 1
        return look_at(*arguments)

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            looks.append(0)

    async with ready(tmp_path, BY_PROGRAM) as here:
        readers = [await asked(here, here.session(Program())) for _ in range(40)]
        monkeypatch.setattr(shared_tokens.SharedTokens, "_look_at", counted)
        trio.lowlevel.add_instrument(steps := Steps())
        await trio.sleep(0.1)
        trio.lowlevel.remove_instrument(steps)
        assert 0 < max(looks) <= shared_tokens.TURN
        assert {state(reader) for reader in readers} == {TOKEN}


async def test_a_daemon_without_descriptors_says_so(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with ready(tmp_path, ANYBODY) as here:

        def refuses(_: int) -> None:
            raise OSError(24, "Too many open files")

        cast(Any, memories_of(here))._new_memory = refuses
        session = here.session(Program())
        assert await here.ask(session, "share", grant="app") == "limit"
        assert isinstance(await here.ask(session, "get", grant="app"), dict)
