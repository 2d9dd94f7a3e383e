# What a new connection costs, on virtual time: the real Server at a real listener, and users who connect and close
# without end. Who is attested is counted: it is most of what a connection costs (law 9).
from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from brokerd_client.wire import pack_request
from trio.testing import MockClock, wait_all_tasks_blocked

from brokerd.core.access.admission import ARREARS, ARRIVAL, BURST, Account, Admission, Limits
from brokerd.edge.peer.peer import Peer, demand_credentials
from brokerd.server import server
from brokerd.server.listen_queue import LONG, SHORT
from brokerd.server.server import Server
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics
from tests.stress.load.test_fair_shares import Counting, answers

GREEDY, HONEST = 1_000, 1_001
RATE = 100.0
AT_ONCE = 250  # connections that wait to be accepted
GET = pack_request(1, "get", {"grant": "app"})


class NotedListener(socket.socket):
    def __init__(self, family: int) -> None:
        super().__init__(family)
        self.lengths: list[int] = []  # of its queue

    def listen(self, length: int = 0, /) -> None:
        self.lengths.append(length)
        super().listen(length)


class Door:
    """The listener, where this process is whichever user a test says."""

    def __init__(self, nursery: trio.Nursery, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.user = GREEDY
        self.attested: Counter[int] = Counter()
        self.path = str(path)
        self.methods = Counting()
        self.listener = NotedListener(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(2 * AT_ONCE)
        self.listener.setblocking(False)
        demand_credentials(self.listener)
        self.made = self.accepted = 0
        monkeypatch.setattr(server, "uid_of", self._uid_of)
        monkeypatch.setattr(server, "Peer", self._attest)
        self.admission = Admission(Limits(rate_per_user=RATE), 999)
        self.server = Server(nursery, cast(Any, self.methods), self.admission, EventLog(), Metrics())
        nursery.start_soon(self.server.accept, self.listener)

    def _uid_of(self, _sock: socket.socket) -> int:
        self.accepted += 1
        return self.user

    def _attest(self, sock: socket.socket) -> Peer:
        self.attested[self.user] += 1
        return Peer(sock)

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.path)
            self.made += 1
            sock.setblocking(False)
            yield sock

    async def flood(self, times: int) -> None:
        """Connect and close, as often as that, until each was accepted: who comes next may be another user."""
        self.user = GREEDY
        for _ in range(times // AT_ONCE):
            for _ in range(AT_ONCE):
                with self.connected():
                    pass
            await self.all_accepted()

    async def all_accepted(self) -> None:
        while self.accepted < self.made:
            await wait_all_tasks_blocked(0.001)


@pytest.fixture
def door(nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    made = Door(nursery, tmp_path / "sock", monkeypatch)
    yield made
    made.listener.close()


async def test_who_connects_and_closes_without_end_is_soon_turned_away_unseen(
    autojump_clock: MockClock, door: Door
) -> None:
    start = trio.current_time()
    await door.flood(2_000)
    passed = trio.current_time() - start
    most = (BURST + RATE * (ARREARS + passed)) / ARRIVAL + 1
    assert BURST / ARRIVAL <= door.attested[GREEDY] <= most
    assert door.attested[GREEDY] < 500


async def test_another_users_connection_is_served_at_once_all_the_while(
    autojump_clock: MockClock, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[Account] = []
    turn = door.server.turn

    async def noted(account: Account) -> None:
        waited.append(account)
        await turn(account)

    monkeypatch.setattr(door.server, "turn", noted)
    await door.flood(1_000)
    for _ in range(20):
        await door.flood(AT_ONCE)
        door.user = HONEST
        with door.connected() as sock:
            sock.send(GET)
            await answers(sock, 1)
    assert door.attested[HONEST] == 20
    accounts = {uid: door.admission.account(uid, trio.current_time()) for uid in (GREEDY, HONEST)}
    assert accounts[GREEDY] in waited
    assert accounts[HONEST] not in waited  # no time is measured: the clock jumps while a real socket is waited for


async def test_a_client_that_is_connected_is_answered_in_the_midst_of_a_flood(
    autojump_clock: MockClock, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted: list[int] = []  # when a get was answered
    answer = door.methods.answer

    def noted(*request: Any) -> object:
        accepted.append(door.accepted)
        return answer(*request)

    monkeypatch.setattr(door.methods, "answer", noted)
    door.user = HONEST
    with door.connected() as kept:
        kept.send(GET)
        await answers(kept, 1)
        for _ in range(20):
            await door.flood(1_000)
            with contextlib.ExitStack() as stack:
                for _ in range(AT_ONCE):
                    stack.enter_context(door.connected())
                kept.send(GET)
                before = door.accepted
                await answers(kept, 1)
                await door.all_accepted()
            assert accepted.pop() - before <= server.BATCH


async def test_the_queue_of_connections_is_short_while_it_is_flooded_and_long_for_a_crowd_that_is_welcome(
    autojump_clock: MockClock, door: Door
) -> None:
    await door.flood(1_000)
    lengths = door.listener.lengths
    assert SHORT in lengths
    assert lengths[-1] == LONG
    lengths.clear()
    door.user = HONEST
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(door.connected())
        await door.all_accepted()
    assert lengths == []


async def test_who_connects_somewhat_too_often_waits_and_is_not_turned_away(
    autojump_clock: MockClock, door: Door
) -> None:
    """A script that runs brokerctl in a loop: one connection after the other, each with one get."""
    start, times = trio.current_time(), 300
    for _ in range(times):
        with door.connected() as sock:
            sock.send(GET)
            await answers(sock, 1)
    assert door.methods.answered == ["app"] * times
    assert trio.current_time() - start == pytest.approx((times * (ARRIVAL + 1) - BURST) / RATE, abs=0.2)


async def test_who_is_turned_away_hears_why_and_when_to_come_again(autojump_clock: MockClock, door: Door) -> None:
    await door.flood(1_000)
    with door.connected() as sock:
        await trio.lowlevel.wait_readable(sock)
        said = sock.recv(4_096)
        assert b"limit" in said
        assert b"max_rate_per_user" in said
        assert sock.recv(1) == b""
    await trio.sleep(ARREARS + 1.0)
    with door.connected() as sock:
        sock.send(GET)
        await answers(sock, 1)
