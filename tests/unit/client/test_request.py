# The gets that a program repeats: each is asked of the daemon, and whatever it answers counts at once. What is known of
# the last answer may only save work: a connection that knows nothing says the same.
from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from brokerd_client import (
    Broker,
    BrokerError,
    ProtocolError,
    Revoked,
    Token,
    Unavailable,
    blocking,
    on_asyncio,
    on_trio,
)
from brokerd_client.client_protocol import ClientProtocol
from brokerd_client.request import MOST_GETS, ClientRequest, Get, Gets
from brokerd_client.wire import MAX_ID, pack_error, pack_notification, pack_request, pack_result
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.daemon import Daemon

IX = {"grant": "ix", "value": "token", "token_type": "Bearer", "expires_at": 2e9}
OTHER = IX | {"value": "other", "fields": {"account": "7"}}
GONE = {"code": "revoked", "message": "over", "grant": "ix"}


class Numbered:
    """Answers with the token of the present generation."""

    def __init__(self) -> None:
        self.generation = 0

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"grant": params["grant"], "value": f"{params['grant']}.{self.generation}", "token_type": "Bearer"}


def generation(token: Token) -> int:
    grant, _, number = token.value.rpartition(".")
    assert grant == token.grant
    return int(number)


@pytest.mark.parametrize("msgid", [0, 1, 127, 128, 255, 256, 65_535, 65_536, MAX_ID])
def test_a_request_differs_from_its_last_only_by_its_id(msgid: int) -> None:
    request = ClientRequest("get", {"grant": "ix", "min_ttl": 60})
    assert request.with_id(msgid) == pack_request(msgid, "get", {"grant": "ix", "min_ttl": 60})


def test_the_same_answer_is_a_token_of_its_own_for_each_get(daemon: Daemon) -> None:
    daemon.answers["get"] = lambda params: OTHER
    with Broker(share=False) as broker:
        first = broker.get("ix")
        first.header["DPoP"] = first.fields["account"] = "changed"
        for _ in range(3):
            token = broker.get("ix")
            assert (token.value, token.expires_at, token.scope) == ("other", 2e9, None)
            assert (token.header, token.fields) == ({"Authorization": "Bearer other"}, {"account": "7"})
    assert len(daemon.calls) == 4


def test_what_has_changed_between_two_gets_is_seen_at_once(daemon: Daemon) -> None:
    def gone(_: object) -> Any:
        raise Revoked("over", grant="ix")

    with Broker(share=False) as broker:
        for answer in (IX, IX, OTHER, OTHER, IX, OTHER):
            daemon.answers["get"] = lambda _, answer=answer: answer
            assert broker.get("ix").value == answer["value"]
        daemon.answers["get"] = gone
        for _ in range(2):
            with pytest.raises(Revoked, match="over"):
                broker.get("ix")
        daemon.answers["get"] = lambda _: IX
        assert broker.get("ix").value == "token"
    assert (len(daemon.calls), daemon.connections) == (9, 1)


def test_each_get_is_asked_as_it_is_meant(daemon: Daemon) -> None:
    with Broker(share=False) as broker:
        for min_ttl, scope in ((0, None), (60, None), (60, ["a"]), (60, ["b"]), (60, ["b"]), (0, None)):
            broker.get("ix", min_ttl=min_ttl, scope=scope)
    plain, at_least = {"grant": "ix"}, {"grant": "ix", "min_ttl": 60}
    asked = [plain, at_least, at_least | {"scope": ["a"]}, at_least | {"scope": ["b"]}, at_least | {"scope": ["b"]}]
    assert [params for _, params in daemon.calls] == [*asked, plain]


def test_a_token_that_came_again_over_a_new_connection_after_a_restart_is_the_new_daemons(daemon: Daemon) -> None:
    daemon.answers["get"] = numbered = Numbered()
    with Broker(share=False) as broker:
        for numbered.generation in range(4):
            assert [generation(broker.get("ix")) for _ in range(3)] == [numbered.generation] * 3
            daemon.restart()
    assert daemon.connections == 4


def test_threads_that_repeat_the_same_gets_never_find_an_older_token_than_there_was_when_they_asked(
    daemon: Daemon,
) -> None:
    daemon.answers["get"] = numbered = Numbered()
    found: list[tuple[int, int]] = []
    over = threading.Event()

    def repeat(broker: Broker) -> None:
        while not over.is_set():
            for grant in ("ix", "reports"):
                before = numbered.generation
                found.append((before, generation(broker.get(grant))))

    with Broker(share=False) as broker:
        threads = [threading.Thread(target=repeat, args=(broker,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for number in range(1, 40):
            daemon.wait_for_calls(20 * number)
            numbered.generation = number
        over.set()
        for thread in threads:
            thread.join()
    assert len(found) > 700
    assert all(before <= got <= 39 for before, got in found)


def test_a_child_that_was_forked_while_another_thread_repeats_a_get_gets_its_own_answers(daemon: Daemon) -> None:
    program = """if True:
        import os, threading
        from brokerd_client import Broker
        broker, over = Broker(share=False), threading.Event()
        def repeat(grant):
            assert broker.get(grant).value == "token-of-" + grant
        def repeat_until_over():
            while not over.is_set():
                repeat("thread")
        [repeat("ix") for _ in range(3)]
        thread = threading.Thread(target=repeat_until_over)
        thread.start()
        children = []
        for _ in range(10):
            repeat("ix")
            child = os.fork()
            if child == 0:
                try:
                    [repeat(grant) for grant in ("ix", "thread", "ix", "thread")]
                    os._exit(0)
                finally:
                    os._exit(1)
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 10
        over.set()
        thread.join()
        repeat("ix")
        broker.close()
    """
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=60, env=dict(os.environ))
    assert daemon.connections >= 11


def test_a_get_that_was_answered_often_still_has_an_end(daemon: Daemon) -> None:
    over = threading.Event()
    with Broker(timeout=30, share=False) as broker:
        for _ in range(3):
            broker.get("ix", wait=0)
        daemon.answers["get"] = lambda params: over.wait(10) and OTHER
        broker._timeout = 0.05
        with pytest.raises(Unavailable, match=r"within 0\.05 s"):
            broker.get("ix", wait=0)
        broker._timeout = 30
        daemon.answers["get"] = daemon.token
        over.set()
        assert broker.get("ix", wait=0).value == "token-of-ix"
    assert daemon.connections == 2


def test_the_answer_to_another_request_is_not_taken_although_its_other_bytes_are_the_same(tmp_path: Path) -> None:
    path, ids = str(tmp_path / "s"), (0, 1, 1, 0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def answer(ids: Iterable[int]) -> None:
            connection, _ = listener.accept()
            with connection:
                for msgid in ids:
                    connection.recv(100)
                    connection.sendall(pack_result(msgid, IX))

        thread = threading.Thread(target=lambda: (answer(ids[:3]), answer(ids[3:])))
        thread.start()
        with Broker(path, share=False) as broker:
            assert [broker.get("ix").value for _ in range(2)] == ["token"] * 2
            with pytest.raises(ProtocolError, match="found one to 1, which was never asked"):
                broker.get("ix")
            assert broker.get("ix").value == "token"
        thread.join()


def test_a_repeated_get_makes_no_call_for_its_deadline(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[float | None] = []

    class Counting(socket.socket):
        def settimeout(self, value: float | None) -> None:
            set_to.append(value)
            super().settimeout(value)

    monkeypatch.setattr(socket, "socket", Counting)
    with Broker(daemon.path, share=False) as broker:
        for wait in (10, 10, 3, 3, 10):
            broker.get("ix", wait=wait)
    assert set_to == [None]


def test_a_socket_that_waits_in_its_own_way_gets_a_timeout_once(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of gevent do."""
    set_to: list[float | None] = []

    class Counting(socket.socket):
        def settimeout(self, value: float | None) -> None:
            set_to.append(value)
            super().settimeout(value)

        def recv(self, *args: int) -> bytes:
            return super().recv(*args)

    monkeypatch.setattr(socket, "socket", Counting)
    monkeypatch.setattr(blocking, "monotonic", lambda: 100.0)
    with Broker(daemon.path, share=False) as broker:
        for wait in (10, 10, 3, 3, 10):
            broker.get("ix", wait=wait)
    assert set_to == pytest.approx([15, 8, 15], abs=0.02)
    assert all(value is not None and value >= least for value, least in zip(set_to, (15, 8, 15), strict=True))


def test_an_answer_that_comes_later_than_most_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()

    class Waiting(socket.socket):
        def settimeout(self, value: float | None) -> None:
            super().settimeout(value)
            if value:  # the kernel has waited in vain
                waits.set()

    monkeypatch.setattr(socket, "socket", Waiting)
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                for msgid in (0, 1):
                    connection.recv(100)
                    assert waits.wait(10)
                    waits.clear()
                    connection.sendall(pack_result(msgid, IX))

        thread = threading.Thread(target=answer)
        thread.start()
        with Broker(path, share=False) as broker:
            assert [broker.get("ix").value for _ in range(2)] == ["token"] * 2
        thread.join()


def test_a_closed_broker_keeps_no_token(daemon: Daemon) -> None:
    broker = Broker(share=False)
    broker.get("ix")
    known = broker._known
    assert known._gets
    broker.close()
    assert not known._gets


async def test_nor_does_one_of_trio(daemon: Daemon) -> None:
    async with on_trio.Broker(share=False) as broker:
        await broker.get("ix")
        assert broker._known._gets
    assert not broker._known._gets


def test_nor_does_one_of_asyncio(daemon: Daemon) -> None:
    async def main() -> None:
        broker = on_asyncio.Broker(share=False)
        await broker.get("ix")
        assert broker._known._gets
        broker.close()
        assert not broker._known._gets

    asyncio.run(main())


def test_only_so_many_grants_are_remembered() -> None:
    gets = Gets()
    for number in range(3 * MOST_GETS):
        gets.find({"grant": f"g{number}"})
        assert len(gets._gets) <= MOST_GETS
    assert gets.find({"grant": "g0"}) is gets.find({"grant": "g0"})


class Session:
    """One connection of a client, and what its gets found."""

    def __init__(self, request: ClientRequest | None) -> None:
        self.request, self.protocol = request, ClientProtocol()
        self.found: list[object] = []

    def ask(self) -> None:
        self.protocol.request(self.request or Get({"grant": "ix"}))

    def receive(self, data: bytes) -> None:
        if data:
            self.found.extend((found.error, found.result) for _, found in self.protocol.receive(data))

    def events(self) -> list[str]:
        return [event.grant for event in iter(self.protocol.next_event, None)]


ANSWERS = {
    "token": lambda msgid: pack_result(msgid, IX),
    "other": lambda msgid: pack_result(msgid, OTHER),
    "error": lambda msgid: pack_error(msgid, GONE),
    "another id": lambda msgid: pack_result(msgid + 1, IX),
    "no id": lambda msgid: pack_error(None, GONE),
    "id in more bytes": lambda msgid: b"\x94\x01\xcd" + msgid.to_bytes(2, "big") + pack_result(0, IX)[3:],
    "after an event": lambda msgid: pack_notification("gone", GONE) + pack_result(msgid, IX),
    "before an event": lambda msgid: pack_result(msgid, IX) + pack_notification("gone", GONE),
    "before half an event": lambda msgid: pack_result(msgid, IX) + pack_notification("gone", GONE)[:9],
    "after the rest of one": lambda msgid: pack_notification("gone", GONE)[9:] + pack_result(msgid, IX),
    "nonsense": lambda msgid: b"\xc1" + pack_result(msgid, IX),
}


@given(st.lists(st.tuples(st.sampled_from([*ANSWERS]), st.lists(st.integers(0, 200), max_size=2)), max_size=12))
def test_a_connection_that_remembers_says_what_one_says_that_does_not(answers: list[tuple[str, list[int]]]) -> None:
    """Whole answers and pieces of them, changed ones, and what a daemon must not send."""
    sessions = Session(Get({"grant": "ix"})), Session(None)
    for msgid, (kind, cuts) in enumerate(answers):
        data, failures = ANSWERS[kind](msgid), []
        edges = [0, *sorted(cuts), len(data)]
        for session in sessions:
            session.ask()
            try:
                for begin, end in pairwise(edges):
                    session.receive(data[begin:end])
                failures.append("")
            except BrokerError as error:
                failures.append(repr(error))
        remembering, other = sessions
        assert (failures[0], remembering.found) == (failures[1], other.found)
        assert remembering.events() == other.events()
        if failures[0]:
            return


EVENT = pack_notification("gone", GONE | {"message": "\u0114\x01\x00"})
END_OF_EVENT = EVENT[EVENT.index(b"\x94\x01\x00") :]


@pytest.mark.parametrize(
    ("before", "answer"),
    [
        (EVENT[: -len(END_OF_EVENT)], END_OF_EVENT + pack_result(0, IX)),
        (b"", b"\x94\x01\xcd\x00\x00" + pack_result(0, IX)[3:]),
    ],
)
def test_only_what_begins_as_an_answer_is_remembered_as_one(before: bytes, answer: bytes) -> None:
    """The end of an event looks like the beginning of an answer; an id is in more bytes than it needs."""
    protocol, get = ClientProtocol(), Get({"grant": "ix"})
    protocol.request(get)
    assert len([each for data in (before, answer) if data for each in protocol.receive(data)]) == 1
    protocol.request(get)
    with pytest.raises(ProtocolError):
        [*protocol.receive(b"\x94\x01\x01" + answer[3:])]
