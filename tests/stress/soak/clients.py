# Callers that come and go: the three clients, watches, and people who misbehave. What they are served is looked at by
# `Judge`; their errors are those that a fault of the moment explains.
from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable

import trio
from brokerd_client import BrokerError, Token, blocking, on_asyncio, on_trio
from brokerd_client.errors import BadRequest, Internal, ProtocolError, from_map
from brokerd_client.wire import pack_request

from tests.scenario.http.test_random_clients import one_client
from tests.stress.soak.world import World

PAUSE = 0.25  # seconds between two fetches of one client, on average
WAIT = 2.0  # seconds that they wait for a provider
WATCHED = 20  # grants of one watch
PIPELINED = 400  # answers that a slow reader leaves unread
CROWD = 40  # connections that do nothing
ROUNDING = 0.01  # seconds
ON_ITS_WAY = 1.0  # seconds that an event may take to be read
OURS = (Internal, ProtocolError, BadRequest)  # no fault around the daemon explains these


class Judge:
    """Looks at everything that is served."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def served(self, token: Token, asked_at: float) -> bool:
        """Whether the provider takes it as well, or has good reason not to."""
        world = self._world
        grant = world.grants[token.grant]
        service = grant.service.name
        world.counts["tokens served"] += 1
        if token.expires_at is not None and token.expires_at <= asked_at:
            world.breaks(f"{token.grant}: a token was served {asked_at - token.expires_at:.3f} s after its end")
        known = await world.providers.ask("token", service, value=token.value)
        if known is None or known["grant"] != token.grant:
            world.breaks(f"{token.grant}: what was served is no token of it")
        elif known["expires_at"] <= asked_at:
            world.breaks(f"{token.grant}: a token dead at the provider for {asked_at - known['expires_at']:.3f} s")
        elif token.expires_at is not None and token.expires_at > known["expires_at"] + ROUNDING:
            world.breaks(f"{token.grant}: expires_at is later than the provider's")
        elif known["revoked"]:
            if not world.dead_early[service]:
                world.breaks(f"{token.grant}: the provider had revoked what was served, and nobody knows why")
            world.counts["early 401s"] += 1
            return False
        return True

    def failed(self, error: BrokerError) -> None:
        self._world.counts[f"answered {error.code}"] += 1
        if isinstance(error, OURS):
            self._world.breaks(f"a client met {error.code}: {error}")


class Clients:
    """All of them; `stop` ends those in threads."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judge = Judge(world)
        self._stop = threading.Event()
        self._path = str(world.brokerd.socket)

    async def run(self, each: int = 1) -> None:
        """Until cancelled."""
        callers = (self._on_trio, self._watching, self._on_asyncio, self._blocking, self._over_http)
        rude = (self._slow_reader, self._aborting, self._bad_frames, self._crowd, self._rude_over_http)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_threads)
            for caller in (*callers * each, *rude):
                chance = random.Random(self._world.chance.random())
                nursery.start_soon(self._again_and_again, caller, chance)

    async def _stop_threads(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self._stop.set()

    async def _again_and_again(self, caller: Callable[[random.Random], Awaitable[None]], chance: random.Random) -> None:
        while True:
            try:
                await caller(chance)
            except BrokerError as error:
                self._judge.failed(error)
            except (OSError, EOFError, trio.BrokenResourceError):
                self._world.counts["connections lost"] += 1
            self._world.counts["clients"] += 1
            await trio.sleep(chance.uniform(0.1, 4.0) * self._world.scale)

    def _life(self, chance: random.Random) -> float:
        return time.monotonic() + chance.uniform(1.0, 30.0) * self._world.scale

    def _grant(self, chance: random.Random) -> str:
        return chance.choice(list(self._world.grants))  # also those that are not configured at the moment

    # -- with good manners

    async def _on_trio(self, chance: random.Random) -> None:
        until = self._life(chance)
        async with on_trio.Broker(self._path) as broker:
            while time.monotonic() < until:
                await self._fetch(broker, chance)
                await trio.sleep(chance.expovariate(1 / PAUSE))

    async def _fetch(self, broker: on_trio.Broker, chance: random.Random) -> None:
        """Mostly one token; now and then many, a longer life, an early renewal, a status."""
        asked_at, grant, draw = time.time(), self._grant(chance), chance.random()
        world = self._world
        try:
            if draw < 0.80:
                token = await broker.get(grant, wait=WAIT)
                if not await self._judge.served(token, asked_at):
                    world.extra[grant] += 1
                    await broker.get(grant, wait=WAIT, refused=token.value)
            elif draw < 0.90:
                names = chance.sample(list(world.grants), min(16, len(world.grants)))
                for found in (await broker.get_many(names, wait=WAIT)).values():
                    if isinstance(found, Token):
                        await self._judge.served(found, asked_at)
            elif draw < 0.94:
                world.extra[grant] += 1
                await broker.get(grant, wait=WAIT, min_ttl=0.5 * world.grants[grant].service.lifetime - 1.5)
            elif draw < 0.96:
                world.extra[grant] += 1
                await broker.call("refresh", grant=grant, wait=WAIT)
            else:
                shown = str(await broker.call("status"))
                if "test-only-" in shown or "eyJhbGciOi" in shown:
                    world.breaks("a secret is in the status")
        except BrokerError as error:
            self._judge.failed(error)

    async def _watching(self, chance: random.Random) -> None:
        names = chance.sample(list(self._world.configured), min(WATCHED, len(self._world.configured)))
        async with on_trio.Broker(self._path) as broker, broker.watch(*names) as watch:
            with trio.move_on_at(trio.current_time() + self._life(chance) - time.monotonic()):
                async for event in watch:
                    self._world.counts["events watched"] += 1
                    if isinstance(event, Token):
                        await self._judge.served(event, time.time() - ON_ITS_WAY)

    async def _over_http(self, chance: random.Random) -> None:
        until, answer = self._life(chance), b""
        async with await trio.open_unix_socket(str(self._world.brokerd.http_socket)) as stream:
            while time.monotonic() < until:
                asked_at, grant = time.time(), self._grant(chance)
                head = f"GET /v1/token/{grant}?wait={WAIT} HTTP/1.1\r\nHost: brokerd\r\n\r\n"
                await stream.send_all(head.encode())
                while not answer.endswith(b"}\n"):
                    answer += (data := await stream.receive_some())
                    if not data:
                        raise EOFError
                head, _, body = answer.decode().partition("\r\n\r\n")
                found, answer = json.loads(body), b""
                if "access_token" in found:
                    expires_at = found["expires_at"]
                    token = Token(found["access_token"], found["token_type"], expires_at, grant)
                    await self._judge.served(token, asked_at)
                else:
                    self._judge.failed(from_map({"code": found["error"], "message": found["message"]}))
                await trio.sleep(chance.expovariate(1 / PAUSE))

    async def _on_asyncio(self, chance: random.Random) -> None:
        await trio.to_thread.run_sync(lambda: asyncio.run(self._in_asyncio(chance)))

    async def _in_asyncio(self, chance: random.Random) -> None:
        until = self._life(chance)
        async with on_asyncio.Broker(self._path) as broker:
            while time.monotonic() < until and not self._stop.is_set():
                names = [self._grant(chance) for _ in range(3)]
                asked_at = time.time()
                got = await asyncio.gather(*(broker.get(name, wait=WAIT) for name in names), return_exceptions=True)
                for found in got:
                    self._take_in_thread(found, asked_at)
                await asyncio.sleep(chance.expovariate(1 / PAUSE))

    async def _blocking(self, chance: random.Random) -> None:
        await trio.to_thread.run_sync(self._in_thread, chance)

    def _in_thread(self, chance: random.Random) -> None:
        until = self._life(chance)
        with blocking.Broker(self._path) as broker:
            while time.monotonic() < until and not self._stop.is_set():
                asked_at = time.time()
                try:
                    found: object = broker.get(self._grant(chance), wait=WAIT)
                except BrokerError as error:
                    found = error
                self._take_in_thread(found, asked_at)
                time.sleep(chance.expovariate(1 / PAUSE))

    def _take_in_thread(self, found: object, asked_at: float) -> None:
        if isinstance(found, Token):
            trio.from_thread.run(self._judge.served, found, asked_at)
        elif isinstance(found, BrokerError):
            trio.from_thread.run_sync(self._judge.failed, found)
        elif isinstance(found, BaseException):
            raise found

    # -- without

    async def _slow_reader(self, chance: random.Random) -> None:
        """Asks for much and reads nothing, for longer than the daemon puts up with or not."""
        async with await trio.open_unix_socket(self._path) as stream:
            with trio.move_on_after(1.0):
                await stream.send_all(b"".join(pack_request(number, "status", {}) for number in range(PIPELINED)))
            await trio.sleep(chance.uniform(1.0, 40.0) * self._world.scale)

    async def _aborting(self, chance: random.Random) -> None:
        """Leaves while its request is under way, or in the middle of it, by a close or by a reset."""
        for _ in range(10):
            whole = pack_request(1, "get", {"grant": self._grant(chance), "wait": 30.0})
            async with await trio.open_unix_socket(self._path) as stream:
                if chance.random() < 0.5:
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                await stream.send_all(whole[: chance.randint(1, len(whole))])
                await trio.sleep(chance.uniform(0, 0.05))

    async def _bad_frames(self, chance: random.Random) -> None:
        """Sends what is no message, and reads why that ended the connection."""
        async with await trio.open_unix_socket(self._path) as stream:
            with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(15.0):
                await stream.send_all(chance.randbytes(chance.choice((1, 10, 1_000, 100_000))))
                while await stream.receive_some():
                    pass

    async def _rude_over_http(self, chance: random.Random) -> None:
        """What it sends, and leaves unread, is up to chance."""
        await one_client(str(self._world.brokerd.http_socket), chance)

    async def _crowd(self, chance: random.Random) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(CROWD):
                await stack.enter_async_context(await trio.open_unix_socket(self._path))
            await trio.sleep(chance.uniform(0.5, 10.0) * self._world.scale)
