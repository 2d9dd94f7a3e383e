# Connections in both protocols to a real server, whose short way is compared with the long way, and what can happen to
# them: for the tests of the short way.
from __future__ import annotations

import contextlib
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

import pytest
import trio
from brokerd_client.wire import Reader, Response, pack_request, pack_result, read_reply, read_request

from brokerd.core.access.admission import Account, Admission, Limits
from brokerd.core.access.policy import Caller, Policy, Rule, Selector
from brokerd.core.errors import Failure
from brokerd.core.secret import sha256_of
from brokerd.edge.audit.writer import AuditWriter
from brokerd.edge.http.requests import HttpReader
from brokerd.edge.peer.peer import Peer
from brokerd.server.connection import ClientConnection
from brokerd.server.http import messages
from brokerd.server.http.connection import HttpClientConnection
from brokerd.server.http.routes import route_of
from brokerd.server.rpc import RpcConnection
from brokerd.server.server import Server
from brokerd.server.session import CallerSession
from brokerd.server.short_way import RepeatedGets
from brokerd.telemetry.event_log import EventLog
from tests.scenario.access.methods import EVIL, PORTAL, RIGHT, Desk, Program, desk
from tests.scenario.laws.world import ISSUING

TWO = ISSUING.replace("[grants.app]", '[grants.app]\nscope = ["read", "write"]')
TWO += ISSUING[ISSUING.index("[grants.app]") :].replace("app", "other")
PORTAL_SELECTED = (Selector(uid=PORTAL),)
BY_UID = Policy((Rule(("app", "other"), PORTAL_SELECTED), Rule(("app",), PORTAL_SELECTED, scope=("read",))), owner=990)
BY_PROGRAM = Policy((Rule(("app", "other"), (Selector(uid=PORTAL, exe="/opt/portal"),)),), owner=990)
APP_ONLY = Policy((Rule(("app",), (Selector(uid=PORTAL),)),), owner=990)
NOTHING = Policy(owner=990)
POLICIES = {"by uid": BY_UID, "by program": BY_PROGRAM, "app only": APP_ONLY, "nothing": NOTHING}
TEXTS = {
    "two": TWO,
    "app alone": ISSUING,
    "another scope": TWO.replace('"read", "write"', '"read"'),
    "a setting of the provider": TWO.replace("[providers.idp]", "[providers.idp]\nreuse_grace = 5"),
}
PLAIN = {"grant": "app", "wait": 0.0}
ACCEPT = ("", "Accept: */*\r\n", "accept: application/json\r\n", "Accept: text/plain\r\nConnection: keep-alive\r\n")
TOKENS = ("test-only-access-1", "test-only-access-2")
IDS = (0, 1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1)


class ProgramThatLives(Program):
    """As edge/peer/process.py has it: the caller is the same object as long as it shows the same evidence."""

    _shown: Caller | None = None

    def _seen(self) -> Caller:
        if self._shown is None or self._shown.evidence != self.evidence:
            self._shown = super()._seen()
        elif self.ended:
            raise ProcessLookupError
        return self._shown

    def still_shows(self, needs: frozenset[str], seen: Caller, _batch: object) -> bool:
        return not self.ended and self.glance(needs) is seen

    def lives(self) -> bool:
        return not self.ended

    def close(self) -> None:
        pass


class Compared(RepeatedGets):
    """Asks the long way at the same moment. `given`: how many answers the short way gave."""

    here: Desk
    audit: AuditWriter
    given = 0

    def answer(self, session: CallerSession, data: bytes, batch: object) -> bytes | None:
        return self._compared(super().answer, self._long_way, session, data, batch)

    def answer_http(self, session: CallerSession, data: bytes, batch: object) -> bytes | None:
        return self._compared(super().answer_http, self._long_way_of_http, session, data, batch)

    def _compared(
        self,
        short: Callable[..., bytes | None],
        long: Callable[..., bytes],
        session: CallerSession,
        data: bytes,
        batch: object,
    ) -> bytes | None:
        before = self.fetches()
        answer = short(session, data, batch)
        if answer is not None:
            self.given += 1
            assert self.fetches() == before + 1, "a fetch counts once"
            assert answer == long(session, data)
        return answer

    def fetches(self) -> int:
        """As the audit log has them."""
        return sum(1 + counted.again for counted in self.audit._deduplication._counted.values())

    def _long_way(self, session: CallerSession, data: bytes) -> bytes:
        reader = Reader()
        reader.feed(data)
        (message,) = reader
        number, method, params = read_request(message)
        return pack_result(number, self.here.dispatcher.answer(session, method, params))

    def _long_way_of_http(self, session: CallerSession, data: bytes) -> bytes:
        reader = HttpReader(short=False)
        reader.feed(data)
        (request,) = reader
        route, params = route_of(request)
        written: Any = route.write(self.here.dispatcher.answer(session, route.call, params))
        answer, again = reader.answer(written.status, written.content_type, written.body, **written.headers)
        assert again, "the connection goes on"
        return answer


@dataclass
class Output:
    level: str = "info"


class Client:
    """One connection to a real server; the process at its end is a model."""

    kind: type[ClientConnection] = RpcConnection

    def __init__(self, here: Desk, nursery: trio.Nursery, way: RepeatedGets | None, account: Account) -> None:
        self.process = ProgramThatLives()
        self._ours, its = socket.socketpair()
        for each in (self._ours, its):
            each.setblocking(False)
        log = here.dispatcher.events
        self.server = Server(
            nursery, here.dispatcher, Admission(Limits(), 0), log, here.dispatcher.rights._metrics, way
        )
        peer = Peer(its)
        peer.process.close()
        peer.process = cast(Any, self.process)
        peer._check = lambda *_: None  # type: ignore[method-assign]
        self.connection = self.kind(its, peer, account, self.server)
        nursery.start_soon(self._serve)
        self._reader = Reader()

    async def _serve(self) -> None:
        try:
            with contextlib.suppress(OSError):
                await self.connection.serve()
        finally:
            self.connection.close()

    def close(self) -> None:
        self._ours.close()

    @property
    def session(self) -> CallerSession:
        assert self.connection._session is not None
        return self.connection._session

    def send(self, data: bytes) -> None:
        self._ours.send(data)

    def request(self, number: int, params: dict[str, Any]) -> bytes:
        return pack_request(number, "get", params)

    async def replies(self, number: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < number:
            await trio.lowlevel.wait_readable(self._ours)
            if not (data := self._ours.recv(65_536)):
                break
            found += self._read(data)
        return found

    def _read(self, data: bytes) -> list[Any]:
        self._reader.feed(data)
        return [read_reply(each) for each in self._reader]

    async def get(self, number: int = 1, **params: object) -> Any:
        self.send(self.request(number, params or PLAIN))
        replies = await self.replies(1)
        assert replies, "the server hung up"
        assert replies[0].id in (None, number)
        return replies[0]


class HttpClient(Client):
    """The number of a request chooses one of its headers. `last`: the bytes of the last answer."""

    kind = HttpClientConnection
    _left = last = b""

    def request(self, number: int, params: dict[str, Any]) -> bytes:
        query = dict(params)
        grant, said, token = query.pop("grant"), query.pop("request_id", None), query.pop("refused_sha256", None)
        if "scope" in query:
            query["scope"] = " ".join(query["scope"])
        lines = f"Host: brokerd\r\n{ACCEPT[number % len(ACCEPT)]}" + (f"X-Request-ID: {said}\r\n" if said else "")
        if token is None:
            return f"GET /v1/token/{grant}?{urlencode(query)} HTTP/1.1\r\n{lines}\r\n".encode()
        body = next(each for each in TOKENS if sha256_of(each).hex() == token)
        lines += f"Content-Length: {len(body)}\r\n"
        return f"POST /v1/refused/{grant}?{urlencode(query)} HTTP/1.1\r\n{lines}\r\n{body}".encode()

    def _read(self, data: bytes) -> list[Any]:
        found: list[Any] = []
        self._left += data
        while (end := self._left.find(b"\r\n\r\n")) >= 0:
            head, rest = self._left[:end], self._left[end + 4 :]
            length = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
            if len(rest) < length:
                break
            body, self._left = json.loads(rest[:length]), rest[length:]
            self.last = head + b"\r\n\r\n" + rest[:length]
            fine = head.startswith(b"HTTP/1.1 200 ")
            said = {**body, "value": body["access_token"]} if fine else {**body, "code": body["error"]}
            if "scope" in body:
                said["scope"] = body["scope"].split()
            found.append(Response(None, None if fine else said, said if fine else None))  # type: ignore[arg-type]
        return found


class History:
    """What has happened so far, and what can happen."""

    def __init__(self, here: Desk, client: Client, way: Compared, audit: AuditWriter, output: Output) -> None:
        self.here, self.client, self.way, self.audit, self.output = here, client, way, audit, output
        self.clock = here.made.clock

    async def get(self, params: dict[str, object], number: int, times: int) -> None:
        for _ in range(times):
            await self.client.get(number, **params)

    async def pipelined(self, params: dict[str, object], number: int, times: int) -> None:
        self.client.send(self.client.request(number, params) * times)
        assert len(await self.client.replies(times)) == times

    async def in_pieces(self, params: dict[str, object], number: int, at: int) -> None:
        data = self.client.request(number, params)
        self.client.send(data[:at])
        await trio.testing.wait_all_tasks_blocked()
        self.client.send(data[at:])
        assert len(await self.client.replies(1)) == 1

    async def refresh(self, grant: str) -> None:
        with contextlib.suppress(Failure):
            await self.here.broker.refresh(grant)

    async def revoke(self, grant: str) -> None:
        with contextlib.suppress(Failure):
            await self.here.broker.revoke(grant, wait=0.0)

    async def rules(self, name: str) -> None:
        self.here.dispatcher.rights.policy = replace(POLICIES[name])

    async def reload(self, name: str) -> None:
        if not self.here.broker.locked:
            self.here.made.configure(TEXTS[name])
            self.here.dispatcher.rights.policy = replace(self.here.dispatcher.rights.policy)

    async def lock(self) -> None:
        if not self.here.broker.locked:
            await self.here.broker.lock()

    async def begin_to_lock(self) -> None:
        """As at the beginning of `lock`, while exchanges end."""
        self.here.broker.locked = True

    async def unlock(self) -> None:
        if self.here.broker.locked:
            self.here.broker.unlocked()
            self.here.made.apply()

    async def time(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def step(self, seconds: float) -> None:
        self.clock.wall_off += seconds

    async def distrust(self) -> None:
        self.clock.trusted = not self.clock.trusted

    async def execute(self, evil: bool) -> None:
        self.client.process.evidence = EVIL if evil else RIGHT

    async def level(self, level: str) -> None:
        self.output.level = level

    async def disk(self, trouble: str | None) -> None:
        self.audit.trouble = trouble

    async def minute(self) -> None:
        self.audit._end_minutes(float("inf"))


@contextlib.asynccontextmanager
async def history(
    policy: Policy = BY_UID, account: Account | None = None, kind: type[Client] = Client
) -> AsyncIterator[History]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        output, quiet = Output(), cast(Any, Quiet())
        audit = AuditWriter(Path(folder), None, 1 << 20, cast(Any, None))
        log = EventLog(quiet, audit, required=True, output=output)
        async with desk(Path(folder), policy, TWO, log) as here, trio.open_nursery() as nursery:
            rights = here.dispatcher.rights
            way = Compared(here.broker, rights, log, rights._metrics)
            way.here, way.audit = here, audit
            patch.setattr(messages, "time", SimpleNamespace(time=lambda: here.made.clock.now().wall))
            client = kind(here, nursery, way, account or Account())
            with contextlib.suppress(Failure):
                for grant in ("app", "other"):
                    await here.broker.refresh(grant)
            await trio.sleep(0.3)  # HTTP says how many whole seconds are left: they do not end at once
            try:
                yield History(here, client, way, audit, output)
            finally:
                client.close()
            nursery.cancel_scope.cancel()


class Quiet:
    def __getattr__(self, _name: str) -> Any:
        return lambda *_, **__: self
