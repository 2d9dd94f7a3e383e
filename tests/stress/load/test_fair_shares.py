# Fair shares on virtual time: the real Server and its connections over real sockets, with methods that count. A client
# that asks too much, or does not read its answers, delays only itself (law 13).
from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
import trio
from brokerd_client.wire import Reader, pack_request
from trio.testing import wait_all_tasks_blocked

from brokerd.core.access.admission import BURST, Account, Admission, Limits
from brokerd.edge.peer.peer import Peer, demand_credentials
from brokerd.server.connection import STALLED, TURN
from brokerd.server.methods.method import AnswerLater
from brokerd.server.rpc import RpcConnection
from brokerd.server.server import NO_DESCRIPTORS, Server
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics

ANSWER = {"value": "x" * 250}
RATE = 100.0
EACH = 800  # requests of each connection of a flood


class Counting:
    """Methods of which each answers at once, but for `status`, whose answer is made later and large."""

    def __init__(self) -> None:
        self.answered: list[str] = []  # the grants that were asked for
        self.rules = "the same"
        self.events = EventLog()

    def answer(self, session: object, method: str, params: dict[str, Any]) -> object:
        if method == "status":
            return AnswerLater(self._status, is_large=True)
        self.answered.append(params["grant"])
        return ANSWER

    async def _status(self) -> object:
        self.answered.append("status")
        return {"value": "x" * 2**20}

    def end(self, session: object) -> None:
        pass

    def rights_of(self, session: object) -> object:
        return self.rules

    async def look_again(self, session: object) -> bool:
        return True


class World:
    def __init__(self, nursery: trio.Nursery) -> None:
        self.methods = Counting()
        self.nursery = nursery
        admission = Admission(Limits(), os.geteuid())
        self.server = Server(nursery, cast(Any, self.methods), admission, EventLog(), Metrics())

    @contextlib.contextmanager
    def connection(self, account: Account) -> Iterator[socket.socket]:
        """A client's end; the other is served."""
        ours, its = socket.socketpair()
        ours.setblocking(False)
        its.setblocking(False)
        with ours:
            self.nursery.start_soon(self._serve, RpcConnection(its, Peer(its), account, self.server))
            yield ours

    async def _serve(self, connection: RpcConnection) -> None:
        with contextlib.suppress(OSError):
            await connection.serve()
        connection.close()


@pytest.fixture
def world(nursery: trio.Nursery) -> World:
    return World(nursery)


def gets(grant: str, number: int) -> bytes:
    return pack_request(1, "get", {"grant": grant}) * number


async def send(sock: socket.socket, data: bytes) -> None:
    await trio.SocketStream(trio.socket.from_stdlib_socket(sock.dup())).send_all(data)


async def answers(sock: socket.socket, number: int) -> None:
    """Read so many."""
    reader, found = Reader(2**24), 0
    while found < number:
        await trio.lowlevel.wait_readable(sock)
        reader.feed(sock.recv(65_536))
        found += len(list(reader))


async def test_who_pipelines_has_his_turn_and_the_others_have_theirs(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """Each time that the other is answered, the greedy have been answered no more than a turn each."""
    greedy = 5
    with contextlib.ExitStack() as stack:
        for _ in range(greedy):
            sock = stack.enter_context(world.connection(Account()))
            sock.send(gets("greedy", 1_500))
        other = stack.enter_context(world.connection(Account()))
        seen = []
        for _ in range(10):
            before = len(world.methods.answered)
            other.send(gets("other", 1))
            await answers(other, 1)
            seen.append(len(world.methods.answered) - before)
        rounds = 4  # of the event loop, from the request's coming to the answer's reading
        assert max(seen) > greedy, "nobody was greedy; nothing was shown"
        assert max(seen) <= rounds * greedy * TURN + 1


async def test_answers_that_nobody_takes_are_few_and_after_a_while_the_connection_ends(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    start = trio.current_time()
    with world.connection(Account()) as sock:
        sock.send(gets("greedy", 5_000)[:100_000])
        await wait_all_tasks_blocked()
        (task,) = (each for each in world.nursery.child_tasks if "_serve" in each.name)
        connection = task.coro.cr_frame.f_locals["connection"]  # type: ignore[attr-defined]
        assert 0 < len(connection._outbox) <= TURN * 300
        while world.nursery.child_tasks & {task}:
            await trio.sleep(1)
        assert STALLED <= trio.current_time() - start < STALLED + 5
        assert len(world.methods.answered) < 2_000


@pytest.mark.parametrize("rules", ["the same", "others"])
async def test_what_a_client_has_not_taken_when_the_rules_change_is_not_sent_any_more(
    world: World, autojump_clock: trio.testing.MockClock, rules: str
) -> None:
    with world.connection(Account()) as sock:
        sock.send(gets("app", 5_000)[:100_000])
        await wait_all_tasks_blocked()
        made = len(world.methods.answered)
        world.methods.rules = rules
        reader, taken = Reader(2**24), 0
        with trio.move_on_after(1), contextlib.suppress(ConnectionResetError):
            while True:
                await trio.lowlevel.wait_readable(sock)
                if not (data := sock.recv(4_096)):
                    break
                reader.feed(data)
                taken += len(list(reader))
        if rules == "others":
            assert 0 < taken < made == len(world.methods.answered)
        else:
            assert taken == len(world.methods.answered) > made


async def test_a_large_answer_is_made_when_the_one_before_it_was_taken(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """One for each user, not for each connection of his."""
    account = Account(most_connections=2)
    with world.connection(account) as first, world.connection(account) as second:
        for sock in (first, second):
            sock.send(pack_request(1, "status", {}) * 50)
        await wait_all_tasks_blocked()
        assert world.methods.answered == ["status"]
        with world.connection(Account()) as other:
            other.send(pack_request(1, "status", {}))
            await answers(other, 1)
        async with trio.open_nursery() as nursery:
            for sock in (first, second):
                nursery.start_soon(answers, sock, 50)
        assert len(world.methods.answered) == 101


async def test_a_users_connections_share_his_rate_and_nobody_elses(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    account = Account(rate=RATE)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            sock = stack.enter_context(world.connection(account))
            sock.send(gets("flood", EACH))
            world.nursery.start_soon(_forget_answers, sock)
        start = trio.current_time()
        await trio.sleep(10)
        passed = trio.current_time() - start
        chunk = 4096 // len(gets("flood", 1)) + 1  # what was read at once may exceed it, on each connection at first
        assert BURST + RATE * passed - chunk <= len(world.methods.answered) <= BURST + RATE * passed + 20 * chunk
        with world.connection(Account(rate=RATE)) as other:
            began = trio.current_time()
            other.send(gets("other", 1))
            await answers(other, 1)
            assert trio.current_time() - began < 1 / RATE
        await trio.sleep(20 * EACH / RATE)
        assert world.methods.answered.count("flood") == 20 * EACH


async def _forget_answers(sock: socket.socket) -> None:
    with contextlib.suppress(trio.ClosedResourceError, OSError):
        await answers(sock, EACH)


class Exhausted:
    """A listener somebody connects to, in a process that has no descriptor left until `left` says so."""

    def __init__(self, pending: socket.socket) -> None:
        self._pending = pending
        self.attempts = 0
        self.left: list[socket.socket] = []

    def fileno(self) -> int:
        return self._pending.fileno()

    def listen(self, length: int) -> None:
        pass

    def _accept(self) -> tuple[int, None]:
        self._pending.recv(1, socket.MSG_PEEK)
        self.attempts += 1
        assert self.attempts < 1_000, "it does not rest"
        if not self.left:
            raise OSError(errno.EMFILE, "Too many open files")
        self._pending.recv(1)
        return self.left.pop().detach(), None


async def test_without_descriptors_accepting_rests_and_goes_on_as_soon_as_a_connection_ends(
    world: World, autojump_clock: trio.testing.MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    doorbell, pending = socket.socketpair()
    client, connection = socket.socketpair()
    living, served = socket.socketpair()
    for sock in (served, pending):
        sock.setblocking(False)
    demand_credentials(connection)  # as its listener hands it down
    with doorbell, pending, client, living:
        listener = Exhausted(pending)
        peer, account = Peer(served), Account(connections=1)
        alive = RpcConnection(served, peer, account, world.server)
        world.server.begin(alive, peer, account)
        living.send(gets("before", 1))
        doorbell.send(b"!")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.server.accept, listener)
            await trio.sleep(30)
            assert 1 < listener.attempts <= 30 / NO_DESCRIPTORS + 1
            assert capfd.readouterr().out.count("connections_not_accepted") == 1
            listener.left.append(connection)
            client.send(gets("after", 1))
            now = trio.current_time()
            living.close()
            await wait_all_tasks_blocked()
            assert trio.current_time() == now
            assert world.methods.answered == ["before", "after"]
            nursery.cancel_scope.cancel()


async def test_a_listener_that_always_fails_leaves_others_their_turns(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    doorbell, pending = socket.socketpair()
    with doorbell, pending:
        listener, attempts = Exhausted(pending), 0

        def fail() -> tuple[int, None]:
            nonlocal attempts
            attempts += 1
            raise OSError(errno.ECONNABORTED, "Software caused connection abort")

        monkeypatch.setattr(listener, "_accept", fail)
        doorbell.send(b"!")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.server.accept, listener)
            while attempts < 10:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
