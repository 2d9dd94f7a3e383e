# What goes wrong, when and for how long: all drawn from the soak's seed. Each fault notes what it may be blamed for, so
# that the count at the end excuses no more than that.
from __future__ import annotations

import contextlib
import errno
import math
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from tests.stress.soak.plan import IMPORTED, Service
from tests.stress.soak.world import World

LANES = 2  # services that are in trouble at once
GAP = 6.0  # seconds between two faults in a lane, on average
LONGEST = 25.0  # seconds of one fault
HELD = 8.0  # seconds that an answer is held back; providers.BEFORE must be longer
SCOPES = ((), ("read",), ("read", "write"))
UNCHANGED = 0.01  # seconds between looks at whether something has come to pass
PATIENCE = 60.0  # seconds for what has to come to pass
FILLED = 64 * 1024  # bytes of one write that fills the disk


class Faults:
    """`disk`: the state directory, where it may be filled."""

    def __init__(self, world: World, disk: Path | None) -> None:
        self._world = world
        self._disk = disk

    async def run(self, *, restarts: bool) -> None:
        """Until cancelled; then everything is well again, but for what only time heals."""
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(LANES):
                    nursery.start_soon(self._lane, self._provider_fault)
                nursery.start_soon(self._lane, self._restart if restarts else self._operator)
        finally:
            with trio.CancelScope(shield=True):
                self._free()
                for name in self._world.services:
                    await self._world.providers.ask("fault", name, verb="clear_faults")

    async def _lane(self, fault: Callable[[], Awaitable[None]]) -> None:
        while True:
            await trio.sleep(self._world.chance.expovariate(1 / GAP) * self._world.scale)
            await fault()
            self._world.counts["faults"] += 1

    # -- of providers

    async def _provider_fault(self) -> None:
        """One kind of trouble at one service, for a while."""
        world, chance = self._world, self._world.chance
        service = chance.choice(list(world.services.values()))
        lasts = chance.uniform(0.5, LONGEST) * world.scale
        kinds = (
            self._errors,
            self._busy,
            self._portal,
            self._resets,
            self._lost_answers,
            self._slow,
            self._down,
            self._garbage,
            self._killed,
            self._forgotten,
        )
        kind = chance.choice(kinds)
        world.counts[f"fault {kind.__name__[1:].replace('_', ' ')}"] += 1
        world.allowed_bad[service.name] += 3 + math.ceil(math.log2(1 + lasts))  # the backoff doubles
        await kind(service, lasts)

    async def _while(self, service: Service, lasts: float, verb: str, **arguments: object) -> None:
        await self._world.providers.ask("fault", service.name, verb=verb, **arguments)
        await trio.sleep(lasts)
        await self._world.providers.ask("fault", service.name, verb="clear_faults")

    async def _errors(self, service: Service, lasts: float) -> None:
        await self._while(service, lasts, "fail_with", status=self._world.chance.choice((500, 503)), times=None)

    async def _busy(self, service: Service, lasts: float) -> None:
        after = {"Retry-After": str(math.ceil(lasts / 2))}
        await self._while(service, lasts, "fail_with", status=429, headers=after, times=None)

    async def _portal(self, service: Service, lasts: float) -> None:
        await self._while(service, lasts, "garbage", kind="html", times=None)

    async def _resets(self, service: Service, lasts: float) -> None:
        await self._while(service, lasts, "drop", reset=True, times=None)

    async def _lost_answers(self, service: Service, lasts: float) -> None:
        """The worst: the refresh token is used up, and its successor lost. Reuse detection will strike."""
        self._world.dead_early[service.name] += 1
        for grant in service.grants:
            self._world.extra[grant] += 2
        await self._while(service, lasts, "drop_after_request", times=self._world.chance.randint(1, 3))

    async def _slow(self, service: Service, lasts: float) -> None:
        await self._world.providers.ask("hold", service.name)
        await trio.sleep(min(lasts, HELD))
        await self._world.providers.ask("fault", service.name, verb="release")

    async def _down(self, service: Service, lasts: float) -> None:
        self._world.dead_early[service.name] += 1  # an answer may be on its way
        await self._world.providers.ask("down", service.name)
        await trio.sleep(lasts)
        await self._world.providers.ask("fault", service.name, verb="clear_faults")

    async def _garbage(self, service: Service, lasts: float) -> None:
        kind = self._world.chance.choice(("not_json", "no_token", "wrong_types", "truncated", "not_http", "oversized"))
        await self._while(service, lasts, "garbage", kind=kind, times=2)

    async def _killed(self, service: Service, lasts: float) -> None:
        """The provider throws a grant out. Where nothing is configured to begin anew with, a person logs in again."""
        world = self._world
        name = world.chance.choice(service.grants)
        world.dead_early[service.name] += 1
        world.extra[name] += 2
        await world.providers.ask("kill", service.name, grant=name)
        await trio.sleep(lasts)
        if world.grants[name].kind == IMPORTED and name in world.configured:
            with contextlib.suppress(Exception):  # the daemon may be away just now; there is a last login at the end
                await world.import_token(name)

    async def _forgotten(self, service: Service, lasts: float) -> None:
        """All living tokens of a service die, and who holds one learns it by an early 401."""
        self._world.dead_early[service.name] += 1
        await self._world.providers.ask("fault", service.name, verb="forget_access_tokens")

    # -- of the machine and its operator

    async def _restart(self) -> None:
        """An end, polite or not, and a new start."""
        world, brokerd = self._world, self._world.brokerd
        with trio.CancelScope(shield=True):
            if world.chance.random() < 0.5:
                world.counts["restarts by SIGTERM"] += 1
                await brokerd.stop()
            else:
                world.counts["restarts by SIGKILL"] += 1
                for name, service in world.services.items():
                    world.dead_early[name] += 1
                    world.allowed_bad[name] += 1
                    for grant in service.grants:
                        world.extra[grant] += 1
                await brokerd.kill()
                world.kills.append(time.time())
            await trio.sleep(world.chance.uniform(0, 3.0) * world.scale)
            await brokerd.start()

    async def _operator(self) -> None:
        kinds = [self._reload, self._reload, self._bad_reload]
        await self._world.chance.choice([*kinds, self._full_disk] if self._disk else kinds)()

    async def _reload(self) -> None:
        """Some grants go, some come back, some get another scope."""
        world, chance = self._world, self._world.chance
        missing = [name for name in world.grants if name not in world.configured]
        for name in chance.sample(missing, len(missing) // 2):
            world.configured[name] = ()
            world.extra[name] += 1
        for name in chance.sample(list(world.configured), max(1, len(world.configured) // 30)):
            del world.configured[name]
        for name in chance.sample(list(world.configured), max(1, len(world.configured) // 30)):
            world.configured[name] = chance.choice(SCOPES)
            world.extra[name] += 2
        await self._send_reload("event=reloaded")

    async def _bad_reload(self) -> None:
        text = self._world.brokerd.config.read_text()
        self._world.brokerd.write(text + self._world.chance.choice(("\n[grants.x]\n", "\n[[allow", "\nno = such\n")))
        await self._send_reload("was not reloaded", configure=False)
        self._world.brokerd.write(text)

    async def _send_reload(self, says: str, *, configure: bool = True) -> None:
        brokerd = self._world.brokerd
        if configure:
            self._world.configure()
        self._world.counts["reloads"] += 1
        mark = brokerd.log[-200:]
        brokerd.signal(signal.SIGHUP)
        await until_within(lambda: says in brokerd.log.rpartition(mark)[2])

    async def _full_disk(self) -> None:
        """Nothing can be written for a while; afterwards everything is stored."""
        world = self._world
        world.counts["disk full"] += 1
        self._fill()
        for name in world.services:
            world.allowed_bad[name] += 2
        await trio.sleep(world.chance.uniform(1.0, LONGEST) * world.scale)
        self._free()
        await until_stored(world)

    @property
    def _ballast(self) -> Path | None:
        return self._disk / "ballast" if self._disk else None

    def _fill(self) -> None:
        assert self._ballast is not None
        with self._ballast.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * FILLED)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def _free(self) -> None:
        if self._ballast is not None:
            self._ballast.unlink(missing_ok=True)


async def until_within(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not holds():
            await trio.sleep(UNCHANGED)


async def until_stored(world: World) -> None:
    """Wait until nothing is in the daemon's memory only."""
    with trio.fail_after(PATIENCE):
        async with world.brokerd.caller() as caller:
            while any(grant["unstored"] for grant in (await caller.call("status"))["grants"]):
                await trio.sleep(10 * UNCHANGED)
