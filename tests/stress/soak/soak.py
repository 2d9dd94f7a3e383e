# One soak: a restless part with restarts, then one long life of the daemon, quiet at its beginning and its end; and
# the verdict over what was counted.
from __future__ import annotations

import functools
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from brokerd_client import BrokerError, NeedsLogin, Unavailable

from tests.stress.soak import measure
from tests.stress.soak.clients import Clients
from tests.stress.soak.faults import Faults, until_stored
from tests.stress.soak.measure import Sample
from tests.stress.soak.plan import drawn
from tests.stress.soak.world import SECRET, Soaked, World, providers, small_disk

RESTLESS = 0.3  # the share of the time in which the daemon is restarted again and again
SETTLING = 90.0  # seconds for a grant to have a token, whatever has happened: a minute's spread of a start, and backoff
AT_ONCE = 32  # grants that are asked for at once when all are
SAMPLES_LEAST, SAMPLE_EVERY = 40, 5.0  # samples in a soak at least; seconds between them otherwise
REPORT_EVERY = 30.0  # seconds between two lines of progress
REQUESTS_MOST = 60.0  # a second at all providers together: ten times what comes; above it the soak is stopped
ENDING = 240.0  # seconds that start, settling and end may take together
RENEWED = 0.62  # of a lifetime: nothing is renewed sooner by itself (law 6: two thirds, on either side of a second)
ROTATIONS = 1.2  # exchanges for one renewal: a refresh token of its own is replaced ten times as seldom
SPARE = 4  # requests of a grant: its first token, and what is under way at the end


@dataclass
class Verdict:
    lines: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


async def soak(minutes: float, number: int, seed: int, say: Callable[[str], None]) -> Verdict:
    """Minutes without start and end. What is broken is in the verdict, and the daemon's log is kept then."""
    folder = Path(tempfile.mkdtemp(prefix="brokerd-soak-"))
    found = await _soak(folder, minutes * 60, number, seed, say)
    if found.broken:
        found.lines.append(f"the daemon's log is {folder / 'log'}")
    else:
        shutil.rmtree(folder)
    return found


async def _soak(folder: Path, seconds: float, number: int, seed: int, say: Callable[[str], None]) -> Verdict:
    grants = {grant.name: grant for grant in drawn(seed, number)}
    services = list({grant.service.name: grant.service for grant in grants.values()}.values())
    async with (
        providers(services) as asked,
        small_disk(folder / "state") as disk,
        _brokerd(folder) as brokerd,
    ):
        world = World(brokerd, asked, grants, random.Random(seed), scale=min(1.0, seconds / 300))
        watch = _Watch(world, seconds, say)
        with trio.move_on_after(seconds + ENDING) as bound:
            async with trio.open_nursery() as nursery:
                first, last = await _lives(world, watch, disk, seconds, nursery)
                nursery.cancel_scope.cancel()
        if bound.cancelled_caught or watch.stopped:
            world.breaks(watch.stopped or f"the soak did not end within {seconds + ENDING:.0f} s")
            return Verdict([], world.broken, dict(world.counts))
        lines = measure.judge(world, watch.samples, first, last)
        lines += await _requests(world)
        _secrets(world)
    world.broken += brokerd.faults
    return Verdict(lines, world.broken, dict(world.counts))


async def _lives(
    world: World, watch: _Watch, disk: Path | None, seconds: float, nursery: trio.Nursery
) -> tuple[Sample, Sample]:
    """The whole course; the idle daemon at the beginning and at the end of the longest life."""
    brokerd = world.brokerd
    world.configured = dict.fromkeys(world.grants, ())
    world.configure()
    await brokerd.start()
    nursery.start_soon(watch.run)
    for name in world.imported():
        await world.import_token(name)
    await _settle(world)
    await _trouble(world, disk, RESTLESS * seconds, restarts=True)
    await _settle(world)
    await brokerd.stop()
    await brokerd.start()
    watch.begin_life()
    await _settle(world)
    first = await measure.idle(brokerd, world.scale)
    await _trouble(world, disk, (1 - RESTLESS) * seconds, restarts=False)
    world.configured = dict.fromkeys(world.grants, ())
    world.configure()
    await brokerd.call("reload")
    for name in world.grants:
        world.extra[name] += 2
    await _settle(world)
    return first, await measure.idle(brokerd, world.scale)


async def _trouble(world: World, disk: Path | None, seconds: float, *, restarts: bool) -> None:
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Clients(world).run)
            nursery.start_soon(functools.partial(Faults(world, disk).run, restarts=restarts))


async def _settle(world: World) -> None:
    """Wait until every grant serves a token again; whoever has lost his login gets another one."""
    await until_stored(world)
    limit = trio.CapacityLimiter(AT_ONCE)
    async with trio.open_nursery() as nursery:
        for name in world.configured:
            nursery.start_soon(_recovered, world, name, limit)


async def _recovered(world: World, name: str, limit: trio.CapacityLimiter) -> None:
    async with limit:
        began, error = time.monotonic(), None
        while time.monotonic() < began + SETTLING:
            try:
                async with world.brokerd.caller() as caller:
                    await caller.call("get", grant=name, wait=30.0)
                return
            except NeedsLogin:
                if name not in world.imported():
                    error = "it needs a login"
                    break
                await world.import_token(name)
            except Unavailable as found:
                error = found
            except BrokerError as found:
                error = found
                break
        world.breaks(f"{name}: no token though all is well again: {error}")


# -- while it runs


class _Watch:
    """Takes samples, reports progress, and stops a soak that runs away."""

    def __init__(self, world: World, seconds: float, say: Callable[[str], None]) -> None:
        self.samples: list[Sample] = []
        self.stopped: str | None = None
        self._world = world
        self._every = min(SAMPLE_EVERY, seconds / SAMPLES_LEAST)
        self._say = say
        self._reported = -REPORT_EVERY

    def begin_life(self) -> None:
        self._reported = -REPORT_EVERY

    async def run(self) -> None:
        world = self._world
        while True:
            try:
                self.samples.append(await measure.look(world.brokerd))
            except (OSError, EOFError, AssertionError, trio.BrokenResourceError):
                world.counts["samples missed"] += 1  # it is being restarted
            elapsed = time.monotonic() - world.begun
            if elapsed - self._reported >= REPORT_EVERY and self.samples:
                self._reported = elapsed
                await self._report(elapsed)
            await trio.sleep(self._every)

    async def _report(self, elapsed: float) -> None:
        world, now = self._world, self.samples[-1]
        requests = 0
        for name in world.services:
            requests += await world.providers.ask("total", name)
        if requests > REQUESTS_MOST * (elapsed + REPORT_EVERY):
            self.stopped = f"{requests} requests in {elapsed:.0f} s: stopped"
            raise RuntimeError(self.stopped)
        self._say(
            f"{elapsed:6.0f} s  {len(world.configured)} grants  {world.counts['tokens served']} tokens served  "
            f"{requests} requests  {world.counts['faults']} faults  {world.counts['reloads']} reloads  "
            f"RSS {now.rss:.1f} MB  {now.fds} fds  "
            f"{now.connections} connections  {now.threads} threads  {now.tasks} tasks  "
            f"{world.counts['violations'] + len(world.brokerd.faults)} violations"
        )


@asynccontextmanager
async def _brokerd(folder: Path) -> AsyncIterator[Soaked]:
    """The daemon's installation; whatever happens it is ended."""
    async with trio.open_nursery() as nursery:
        made = Soaked(folder, nursery)
        try:
            yield made
        finally:
            with trio.CancelScope(shield=True):
                await made.close()
        nursery.cancel_scope.cancel()


# -- afterwards


async def _requests(world: World) -> list[str]:
    """What the providers counted, against what lifetimes and faults justify."""
    good = bad = reuses = excused = 0
    fullest = (0.0, "")
    elapsed = time.monotonic() - world.begun
    for name, service in world.services.items():
        found = await world.providers.ask("report", name, kills=world.kills)
        good, bad = good + sum(found["good"].values()), bad + sum(found["bad"].values())
        reuses, excused = reuses + len(found["reuses"]), excused + found["excused"]
        for each in found["reuses"]:
            world.breaks(f"{name}: {each}")
        if found["wrong_credentials"]:
            world.breaks(f"{name}: {found['wrong_credentials']} times the wrong credentials")
        shortest = service.lifetime - 1 if service.dialect == "ix-api" else service.lifetime
        for grant in (*service.grants, "nobody"):
            most = ROTATIONS * elapsed / (RENEWED * shortest) + world.extra[grant] + SPARE
            came = found["good"].get(grant, 0)
            fullest = max(fullest, (came / most, f"{grant}: {came} of {most:.0f}"))
            if came > most or (grant == "nobody" and came):
                world.breaks(f"{name}: {came} exchanges of {grant}, expected {most:.0f} at most")
            most_bad = world.allowed_bad[name] + world.extra[grant] + SPARE
            came_bad = found["bad"].get(grant, 0)
            if came_bad > most_bad:
                world.breaks(f"{name}: {came_bad} requests of {grant} failed, expected {most_bad} at most")
    return [
        f"requests at the providers: {good} answered, {bad} failed ({(good + bad) / elapsed:.1f} a second); "
        f"nearest to its bound: {fullest[1]}",
        f"refresh tokens that came again: {reuses}; after an answer that was lost: {excused}",
    ]


def _secrets(world: World) -> None:
    """Nothing that was written holds a secret, the store's files included."""
    for name, content in world.brokerd.bytes_of_state().items():
        if any(each in content for each in SECRET[:2]):
            world.breaks(f"a secret is in {name}")
