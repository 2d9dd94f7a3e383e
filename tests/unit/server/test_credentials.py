# How long a unit waits for its token, on the clock of the test; and a credential that is too large for systemd.
from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from brokerd.core.access.admission import Account
from brokerd.core.access.policy import Caller, Evidence
from brokerd.core.errors import Code, Failure
from brokerd.core.events import Event
from brokerd.server.credentials import AGAIN, WAIT, CredentialConnection
from brokerd.server.server import UNREAD

CALLER = Caller(7, 0, frozenset({0}), "root", evidence=Evidence(unit="portal.service"))
AWAY = Failure(Code.UNAVAILABLE, "ix is away", "ix", retry_after=1.0)


class World:
    """A connection of systemd's, and a brokerd whose get has these answers, the last one for ever."""

    def __init__(self, *answers: Any, name: bytes = b"ix") -> None:
        self.answers = list(answers)
        self.asked: list[float] = []
        self.said: list[tuple[str, dict[str, Any]]] = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind("")  # the kernel chooses an abstract address
        listener.listen()
        self.client = socket.socket(socket.AF_UNIX)
        self.client.bind(b"\0%x/unit/portal.service/" % os.getpid() + name)
        self.client.connect(listener.getsockname())
        self.sock, _ = listener.accept()
        listener.close()
        self.sock.setblocking(False)
        self.pidfd = os.pidfd_open(os.getpid())
        process = SimpleNamespace(caller=CALLER, pidfd=self.pidfd, glance=lambda _needs: CALLER)
        peer = SimpleNamespace(process=process, receive=self.sock.recv, lives=lambda: True, close=lambda: None)
        events = SimpleNamespace(say=lambda what, **details: self.said.append((what, details)))
        dispatcher = SimpleNamespace(answer=self.answer, events=events, end=lambda _session: None)
        server: Any = SimpleNamespace(dispatcher=dispatcher)
        self.connection = CredentialConnection(self.sock, peer, Account(), server)  # type: ignore[arg-type]

    def answer(self, _session: object, method: str, params: dict[str, Any]) -> Any:
        assert (method, params["grant"]) == ("get", "ix")
        self.asked.append(trio.current_time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Failure):
            raise answer
        return answer

    async def served(self) -> bytes:
        """What systemd gets."""
        await self.connection.serve()
        self.connection.close()
        data = b""
        while piece := self.client.recv(65_536):
            data += piece
        return data

    def close(self) -> None:
        self.client.close()
        self.sock.close()
        os.close(self.pidfd)


@pytest.fixture
def worlds() -> Iterator[list[World]]:
    made: list[World] = []
    yield made
    for each in made:
        each.close()


def token(value: str) -> dict[str, Any]:
    return {"grant": "ix", "value": value, "token_type": "Bearer", "expires_at": None}


async def test_a_unit_gets_its_token_within_seconds_of_the_providers_answer(
    worlds: list[World], autojump_clock: trio.testing.MockClock
) -> None:
    locked = Failure(Code.LOCKED, "brokerd is locked")
    worlds.append(here := World(*[AWAY] * 3, locked, token("secret")))
    assert await here.served() == b"secret"
    assert here.asked == [0, 1, 2, 3, 3 + AGAIN]
    assert [what for what, _ in here.said] == [Event.CREDENTIAL_AWAITED]


async def test_a_unit_waits_ten_minutes_and_the_log_says_for_what(
    worlds: list[World], autojump_clock: trio.testing.MockClock
) -> None:
    worlds.append(here := World(AWAY))
    assert await here.served() == b""
    assert WAIT <= here.asked[-1] <= WAIT + AGAIN
    what, details = here.said[-1]
    assert what is Event.CREDENTIAL_NOT_GIVEN
    assert details == {"unit": "portal.service", "credential": "ix", "reason": "ix is away"}


@pytest.mark.parametrize("code", [Code.REVOKED, Code.UNKNOWN_GRANT, Code.LIMIT, Code.BAD_REQUEST])
async def test_what_no_wait_ends_is_not_waited_for(
    worlds: list[World], code: Code, autojump_clock: trio.testing.MockClock
) -> None:
    worlds.append(here := World(Failure(code, "no")))
    assert await here.served() == b""
    assert (here.asked, [what for what, _ in here.said]) == ([0], [Event.CREDENTIAL_NOT_GIVEN])


async def test_a_credential_that_systemd_would_refuse_is_not_sent(worlds: list[World]) -> None:
    worlds.append(here := World({**token("x" * 600_000), "present": "{access_token}"}, name=b"ix.json"))
    assert await here.served() == b""
    assert "systemd takes 1048576 for all credentials of a unit together" in here.said[-1][1]["reason"]


async def test_a_large_token_is_in_the_hands_of_the_kernel_before_anybody_reads(worlds: list[World]) -> None:
    worlds.append(here := World(token("x" * 256 * 1024)))
    here.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)
    with trio.fail_after(5):
        assert len(await here.served()) == 256 * 1024


async def test_further_values_are_in_the_json_alone(worlds: list[World]) -> None:
    found = {**token("secret"), "fields": {"instance_url": "https://ix.example"}}
    worlds += [plain := World(found), whole := World(found, name=b"ix.json")]
    assert await plain.served() == b"secret"
    assert json.loads(await whole.served())["fields"] == {"instance_url": "https://ix.example"}
