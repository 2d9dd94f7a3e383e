# How a life of a fleet ends: everything works again, people do what only they can, and then all hosts serve the same
# newest token, and leave the provider alone.
from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

import trio

from brokerd.core.errors import Failure
from brokerd.core.grant.record import Record
from brokerd.core.grant.state import State
from brokerd.core.secret import Secret
from tests.stress.simulation.fleet.pauses import HOST
from tests.stress.simulation.fleet.schedule import RENEWED
from tests.stress.simulation.fleet.witness import ANSWER_TIMEOUT, SAME

if TYPE_CHECKING:
    from tests.stress.simulation.fleet.host import Process
    from tests.stress.simulation.fleet.world import World

AGAIN = 5.0  # seconds between two tries of an operator
CALM = 40.0  # seconds until everybody is there again
SENDING = 60.0  # seconds for everything before an answer is waited for
TRIES = 3
CALMLY = 8  # requests for one grant in a life of its token are enough, from all hosts together


async def adopt_until_done(world: World, name: str) -> None:
    """An operator on that host, or on any other, until somebody has adopted what etcd has."""
    while world.witness.restored < inf:
        process = world.hosts[name].there or next((host.there for host in world.hosts.values() if host.there), None)
        if process is not None and await _in(process, process.adopt):
            world.say(process.host.name, "was told to adopt what etcd has")
            world.witness.restored = inf
        await trio.sleep(AGAIN)


async def _in(process: Process, act: object) -> bool:
    """Whether it worked, as a task of that process."""
    worked = [False]
    done = trio.Event()

    async def acting() -> None:
        HOST.set(process.host.name)
        try:
            worked[0] = bool(await act())  # type: ignore[operator]
        except Failure as failure:
            process.world.say(process.host.name, str(failure))
        finally:
            done.set()

    process.callers.start_soon(acting)
    with trio.move_on_after(60.0):
        await done.wait()
    return worked[0]


async def heal(world: World) -> None:
    """Whatever was wrong is mended."""
    world.say("event", "everything works again")
    for provider in world.providers.values():
        provider.faults.clear()
    cluster = world.cluster
    cluster.faults.clear()
    cluster.down = cluster.server.full = False
    cluster.server.rate = 1.0
    for host in world.hosts.values():
        host.armed.clear()
        host.down = 0.1
        host.wake.set()
        world.pauses.go_on(host.name)
        cluster.link(host.name).delay = 0.0
        cluster.heal(host.name)
    for host in world.hosts.values():
        world.disturbed(host)
    if world.witness.restored < inf:
        world.adopt(next(iter(world.hosts)))
    await trio.sleep(CALM)
    await _until_settled(world)
    for grant in RENEWED:  # a refresh token that died is found out now
        if (process := next((host.there for host in world.hosts.values() if host.there), None)) is not None:
            await _in(process, partial(_refreshed, world, [process], grant))
    await _until_settled(world)
    await trio.sleep(CALM)


async def _until_settled(world: World) -> None:
    with trio.move_on_after(ANSWER_TIMEOUT + SENDING + 2 * world.schedule.setup.longest):
        while world.witness.restored < inf or not _is_settled(world):
            await trio.sleep(AGAIN)


def _is_settled(world: World) -> bool:
    """Whether no outcome is unknown any more."""
    if any(b"/journal/" in key for key in world.cluster.server.pairs):
        return False
    processes = [host.there for host in world.hosts.values()]
    grants = [grant for process in processes if process is not None for grant in process.broker.grants.values()]
    return all(processes) and not any(grant.unstored or _is_in_doubt(grant.record) for grant in grants)


def _is_in_doubt(record: Record) -> bool:
    refresh = record.refresh_token
    return record.uncertain is not None or (refresh is not None and refresh.rejected is not None)


async def last_check(world: World) -> None:
    processes = [host.there for host in world.hosts.values()]
    world.witness.hold(SAME, all(processes), f"not all hosts are there: {processes}")
    for grant in RENEWED:
        process = world.random.choice([each for each in processes if each is not None])
        state = process.broker.grants[grant].record.state
        if state in (State.NEEDS_LOGIN, State.REVOKED):
            world.say(process.host.name, f"{grant} is {state}: a person logs in")
            world.witness.explains(grant, lost=state is State.NEEDS_LOGIN)
            world.witness.importing(grant)
            token = Secret(world.provider_of(grant).login(grant))
            await _in(
                process, lambda process=process, grant=grant, token=token: process.broker.import_token(grant, token)
            )
    await trio.sleep(CALM)
    await _all_serve_the_same(world, [each for each in processes if each is not None], renews=True)
    begun = {grant: len(world.witness.all_asked[grant]) for grant in world.grants}
    await trio.sleep(world.schedule.setup.longest)
    for grant in world.grants:
        asked = len(world.witness.all_asked[grant]) - begun[grant]
        lives = world.schedule.setup.longest / world.provider_of(grant).setup.lifetime
        world.witness.hold(SAME, asked <= CALMLY * lives, f"{grant}: {asked} requests though nothing is wrong")
    await _all_serve_the_same(world, [each for each in processes if each is not None], renews=False)


async def _all_serve_the_same(world: World, processes: list[Process], *, renews: bool) -> None:
    """`renews`: a person asks for a new token first. Which one is the newest is known only if none was lost."""
    for grant in world.grants:
        if renews:
            await _in(world.random.choice(processes), lambda grant=grant: _refreshed(world, processes, grant))
            await trio.sleep(5.0)
        got = dict[str, str]()
        for _ in range(TRIES):  # a host hears of a renewal a moment later, and one may be under way
            got.clear()
            for process in processes:
                await _in(process, partial(_get, process, grant, got))
            if len(set(got.values())) == 1 and (renews or world.witness.newest.get(grant) in got.values()):
                break
            await trio.sleep(AGAIN)
        newest = world.witness.newest.get(grant)
        words = f"{grant}: {got}, the newest is {newest}"
        is_newest = renews or {newest} == set(got.values())
        world.witness.hold(SAME, is_newest and len(set(got.values())) == 1 and len(got) == len(processes), words)


async def _refreshed(world: World, processes: list[Process], grant: str) -> bool:
    process = world.random.choice(processes)
    world.witness.seen[grant].by_hand += 1
    await process.broker.refresh(grant, wait=30.0)
    return True


async def _get(process: Process, grant: str, got: dict[str, str]) -> bool:
    token = await process.broker.get(grant, wait=30.0)
    got[process.host.name] = token.value.reveal()
    process.world.witness.served(process, grant, token.value.reveal())
    return True
