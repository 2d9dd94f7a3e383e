# The provider as a process: python -m tests.stress.fleet_torture.provider CONFIG. Its token endpoint (TLS) is for
# brokerd, and answers late, never or badly as drawn from the seed; over plain HTTP readers ask whether an access token
# lives, and the test logs in. Every request and what became of its answer is in the history.
from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import random
import ssl
import struct
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs

import h11
import trio

from tests.stress.fleet_torture.history import History
from tests.stress.fleet_torture.logins import Answer, Logins

HTTPS, HTTP = 8443, 8080
SLOW = (16.0, 25.0)  # seconds; longer than the lease of a host
LOOK = 0.01  # seconds between two looks whether an answer has arrived
ARRIVES_WITHIN = 90.0
Fault = Literal["late", "late answer", "lost request", "lost answer", "half an answer", "unavailable"]
# How often an answer is spoiled. "late": the tokens are replaced late; "late answer": at once, but the answer is late;
# "lost …": the connection ends without an answer.
CHANCES: dict[Fault, float] = {
    "late": 0.015,
    "late answer": 0.015,
    "lost request": 0.01,
    "lost answer": 0.006,
    "half an answer": 0.003,
    "unavailable": 0.015,
}


@dataclass
class Reply:
    status: int
    body: bytes
    cut: int | None = None  # send only so many bytes of it


class Provider:
    def __init__(self, logins: Logins, history: History, chance: random.Random, names: Mapping[str, str]) -> None:
        self.logins, self.history, self.chance, self.names = logins, history, chance, names
        self.faulty = False
        self.down_until = 0.0
        self.late_until: dict[str, float] = {}  # by host
        self._numbers = count()

    def _drawn(self, host: str) -> Fault | None:
        if time.monotonic() < self.down_until:
            return "unavailable"
        if time.monotonic() < self.late_until.get(host, 0.0):
            return self.chance.choice(("late", "late answer"))
        draw = self.chance.random()
        for fault, share in CHANCES.items() if self.faulty else ():
            if draw < share:
                return fault
            draw -= share
        return None

    # -- the token endpoint

    async def token(self, stream: trio.SSLStream[trio.SocketStream], body: bytes) -> bool:
        """Whether the connection can go on."""
        number, form = next(self._numbers), parse_qs(body.decode())
        kind = form["grant_type"][0]
        value = form.get("refresh_token", [""])[0]
        known = self.logins.refreshes.get(value)
        peer = stream.transport_stream.socket.getpeername()[0]
        host = self.names.get(peer, peer)
        fault = self._drawn(host)
        grant = known.login.grant if known else form.get("username", [""])[0]
        say = functools.partial(self.history.say, id=number)
        say(
            "request",
            host=host,
            grant=grant,
            refresh=known.id if known else None,
            kind=kind,
            fault=fault,
        )
        late = self.chance.uniform(*SLOW)
        if fault == "late":
            await self._hold(stream, late, say)
        if fault == "unavailable":
            say("outcome", outcome="unavailable")
            return await self._send(stream, Reply(503, b'{"error": "temporarily_unavailable"}'), say)
        if fault == "lost request":
            say("outcome", outcome="nothing")
            say("dropped")
            return False
        now = time.monotonic()
        if kind == "password":
            answer = self.logins.issue(grant, now) if grant in self.logins.life else Answer("unknown", grant)
        else:
            answer = self.logins.refresh(value, now)
        say("outcome", **described(answer))
        if fault == "late answer":
            await self._hold(stream, late, say)
        if fault == "lost answer":
            say("dropped")
            return False
        reply = rendered(answer, self.logins.life)
        if fault == "half an answer":
            reply.cut = 20
        return await self._send(stream, reply, say)

    async def _hold(self, stream: trio.SSLStream[trio.SocketStream], seconds: float, say: Any) -> None:
        """Wait, and notice when the other end goes away meanwhile."""
        with trio.move_on_after(seconds):
            try:
                while await stream.receive_some(1):
                    pass
            except trio.BrokenResourceError:
                pass
            say("gone")
            await trio.sleep_forever()

    async def _send(self, stream: trio.SSLStream[trio.SocketStream], reply: Reply, say: Any) -> bool:
        """Send it, and note when the other machine has all of it."""
        wire = head(reply) + reply.body
        if reply.cut is not None:
            wire = wire[: -reply.cut]
        try:
            await stream.send_all(wire)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            say("dropped")
            return False
        if reply.cut is not None:
            say("dropped")
            return False
        say("sent", status=reply.status)
        socket = stream.transport_stream.socket
        with trio.move_on_after(ARRIVES_WITHIN), contextlib.suppress(OSError):
            while struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]:
                await trio.sleep(LOOK)
            if not socket.getsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_ERROR):
                say("arrived")
        return True

    # -- what readers and the test ask

    def ask(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Any:
        if target == "/resource":
            now = time.monotonic()
            known, why, since = self.logins.look(headers.get("authorization", "").partition(" ")[2], now)
            found = {} if known is None else {"grant": known.login.grant, "access": known.id, "ends": known.ends}
            return {"alive": not why, "why": why, "since": since, **found}
        given = json.loads(body) if body else {}
        match target:
            case "/login":
                value, refresh = self.logins.log_in(given["grant"])
                login = refresh.login.number
                self.history.say("login", grant=given["grant"], refresh=refresh.id, login=login)
                return {"refresh_token": value}
            case "/lost":
                return self.logins.lost()
            case "/faults":
                self.faulty = given["faulty"]
                return {}
            case "/late":
                self.late_until[given["host"]] = time.monotonic() + given["seconds"]
                return {}
            case "/down":
                self.down_until = time.monotonic() + given["seconds"]
                return {}
        raise ValueError(target)


def described(answer: Answer) -> dict[str, object]:
    found: dict[str, object] = {"outcome": answer.outcome, "grant": answer.grant}
    if answer.access and answer.refresh:
        access, refresh = answer.access[1], answer.refresh[1]
        found |= {"access": access.id, "ends": access.ends, "next": refresh.id, "login": refresh.login.number}
    return found


def rendered(answer: Answer, lives: Mapping[str, int]) -> Reply:
    if answer.access is None or answer.refresh is None:
        words = {"error": "invalid_grant", "error_description": f"the refresh token: {answer.outcome}"}
        return Reply(400, json.dumps(words).encode())
    tokens = {"access_token": answer.access[0], "refresh_token": answer.refresh[0], "token_type": "Bearer"}
    return Reply(200, json.dumps({**tokens, "expires_in": lives[answer.grant]}).encode())


def head(reply: Reply) -> bytes:
    retry = "Retry-After: 2\r\n" if reply.status == 503 else ""
    lines = f"HTTP/1.1 {reply.status} X\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n{retry}"
    return f"{lines}Content-Length: {len(reply.body)}\r\n\r\n".encode()


async def serve_tls(provider: Provider, context: ssl.SSLContext, transport: trio.SocketStream) -> None:
    stream = trio.SSLStream(transport, context, server_side=True, https_compatible=True)
    try:
        with trio.fail_after(20):
            await stream.do_handshake()
        reading = h11.Connection(h11.SERVER)
        while (request := await receive(reading, stream)) is not None:
            if not await provider.token(stream, request[2]):
                break
            reading = h11.Connection(h11.SERVER)  # ours are written by hand
    except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, h11.RemoteProtocolError, OSError):
        pass
    finally:
        await trio.aclose_forcefully(stream)


async def serve_plain(provider: Provider, stream: trio.SocketStream) -> None:
    try:
        while (request := await receive(reading := h11.Connection(h11.SERVER), stream)) is not None:
            del reading
            target, headers, body = request
            reply = Reply(200, json.dumps(provider.ask("", target, headers, body)).encode())
            await stream.send_all(head(reply) + reply.body)
    except (trio.BrokenResourceError, h11.RemoteProtocolError, OSError):
        pass
    finally:
        await trio.aclose_forcefully(stream)


async def receive(reading: h11.Connection, stream: trio.abc.Stream) -> tuple[str, dict[str, str], bytes] | None:
    target, headers, body = "", dict[str, str](), b""
    while True:
        match reading.next_event():
            case h11.NEED_DATA:
                reading.receive_data(bytes(await stream.receive_some()))
            case h11.Request() as found:
                target = found.target.decode()
                headers = {name.decode(): value.decode() for name, value in found.headers}
            case h11.Data(data=data):
                body += bytes(data)
            case h11.EndOfMessage():
                return target, headers, body
            case _:
                return None


async def run(config: dict[str, Any]) -> None:
    logins = Logins(config["lives"], config["graces"])
    history = History(Path(config["history"]))
    provider = Provider(logins, history, random.Random(config["seed"]), config["names"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config["certificate"], config["key"])
    async with trio.open_nursery() as nursery:
        await nursery.start(
            functools.partial(
                trio.serve_tcp, functools.partial(serve_tls, provider, context), HTTPS, host=config["address"]
            )
        )
        await nursery.start(
            functools.partial(trio.serve_tcp, functools.partial(serve_plain, provider), HTTP, host=config["address"])
        )
        history.say("ready")


if __name__ == "__main__":
    trio.run(run, json.loads(Path(sys.argv[1]).read_text()))
