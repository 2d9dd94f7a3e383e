# The end of a simulation: all faults stop. After a time of peace every grant serves a token or says why not.
from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import trio

from brokerd.core.errors import Code, Failure
from brokerd.core.grant.repeated_request import DOUBTED
from brokerd.core.grant.state import State
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.timing.backoff import HOUR, SPREAD
from tests.stress.simulation.crash import Crashed
from tests.stress.simulation.disk import Disk
from tests.stress.simulation.laws import AHEAD, UNDATED
from tests.stress.simulation.providers import LATEST
from tests.stress.simulation.schedule import GRANTS, NEEDS_A_PERSON

if TYPE_CHECKING:
    from tests.stress.simulation.life import Life
    from tests.stress.simulation.world import World

Status = dict[str, object]
UP = 1_000.0  # seconds until brokerd is there again, whatever happened to it
QUIET = 450.0  # seconds of peace: the longest backoff and Retry-After with their jitter have passed


async def heal(world: World) -> None:
    """Everything is well again, and an operator has looked after what only he can mend."""
    world.armed, world.disk, world.without, world.restoring = None, Disk(), set(), False
    if world.life is not None:
        world.life.disarm()
    if world.clock.off:
        world.clock.step(0.0, noticed=True)
    world.clock.synchronised = True
    for provider in world.providers.values():
        provider.faults.clear()
        provider.limit = None
    world.write_password(world.providers["two"].password)
    world.down = 0.1
    await _until_up(world)
    await trio.sleep(LATEST + 10.0)  # requests that never get an answer have ended
    life = await _until_up(world)
    with contextlib.suppress(Failure):
        await life.key_manager.unlock()
    with contextlib.suppress(Failure):
        await life.broker.adopt()
    await life.reload()
    for grant, held in life.broker.grants.items():
        if held.record.state is State.MISCONFIGURED or held.record.doubt is not None:
            world.laws.by_hand(grant)
            with contextlib.suppress(Failure):
                await life.broker.refresh(grant)
    longest = max(each.lifetime for each in world.schedule.setup.providers.values())
    await trio.sleep(QUIET + 1.5 * longest)


async def last_look(world: World) -> None:
    life = await _until_up(world)
    life.look()
    for grant in world.schedule.setup.grants:
        seen, status = world.laws.seen[grant], life.broker.status(grant)
        world.laws.said(str(status))
        try:
            token = await life.broker.get(grant, wait=60.0)
        except Failure as failure:
            world.laws.said(str(failure))
            _excused(world, life, grant, failure, status)
        else:
            world.laws.served(life, grant, token)
            _good(world, life, grant, token, status)
        if seen.to_be_dead() and world.provider_of(grant).setup.revocation:
            _told_in_the_end(world, grant, status)


async def _until_up(world: World) -> Life:
    with trio.move_on_after(UP):
        while (life := world.there) is None:
            await trio.sleep(0.5)
        return life
    world.laws.hold("final: brokerd is up", False, f"life {world.lives} has not begun, or not ended")
    raise Crashed


def _good(world: World, life: Life, grant: str, token: AccessToken, status: Status) -> None:
    """A grant that serves in the end had its token before anybody asked, and says nothing bad of itself."""
    if _waits_for_its_password(world, grant, status):
        return
    there = status["issued_at"] is not None or _on_its_way(world, grant, status)
    world.laws.hold(AHEAD, there, f"{grant}: {status}")
    longer = token.lifetime is None or token.lifetime > world.provider_of(grant).setup.lifetime
    if longer or life.broker.grants[grant].record.rotation_retry is not None:
        return  # it goes on without what failed, and the failure is still to be seen
    refresh = life.broker.grants[grant].record.refresh_token
    rejected = status["state"] == State.NEEDS_LOGIN or (refresh is not None and refresh.rejected is not None)
    if rejected and _ended(world, grant):
        return  # its refresh token was the first to die, and the last access token lives on
    well = status["state"] in ("ready", "renewing") and not status["unstored"]
    world.laws.hold("final: each grant is ready", well, f"{grant}: {status}")
    world.laws.hold("final: a good grant says no error", status["last_error"] is None, f"{grant}: {status}")


def _waits_for_its_password(world: World, grant: str, status: Status) -> bool:
    """Whether its password may have been refused, and must not be sent again so soon. brokerd sends it in the end."""
    if status["last_error"] != DOUBTED:
        return False
    at = status["next_renewal_at"]
    soon = isinstance(at, float) and at - world.clock.server_wall() <= HOUR * (1 + SPREAD) + 1.0
    world.laws.hold("law 7: a password that may have been refused is sent again", soon, f"{grant}: {status}")
    return True


def _on_its_way(world: World, grant: str, status: Status) -> bool:
    """Whether it is being renewed over ways that may take longer than the quarter of a lifetime that is left then."""
    setup = world.provider_of(grant).setup
    slowest = 2 * (setup.latency + world.schedule.setup.disk_latency)
    return status["state"] == State.RENEWING and slowest > setup.lifetime / 4


def _ended(world: World, grant: str) -> bool:
    """Whether nothing lives any more that it could get a token with."""
    provider = world.provider_of(grant)
    return GRANTS[grant] in NEEDS_A_PERSON and not any(provider.valid(token) for token in world.laws.seen[grant].known)


def _excused(world: World, life: Life, grant: str, failure: Failure, status: Status) -> None:
    """A grant that serves nothing in the end is one that nobody can mend, and says so."""
    laws, seen, provider = world.laws, world.laws.seen[grant], world.provider_of(grant)
    if failure.code is Code.REVOKED:
        laws.hold("final: each grant is ready", bool(seen.revoked), f"{grant}: {failure}")
        return
    if _waits_for_its_password(world, grant, status):
        return
    dead_end = failure.code is Code.UNAVAILABLE and status["next_renewal_at"] is None
    laws.hold("final: a dead end says that it needs a login", not dead_end, f"{grant}: {failure} {status}")
    ended = failure.code is Code.NEEDS_LOGIN and _ended(world, grant)
    undated = not ended and _undated(life, grant)  # a token that its own boot saw expire has ended all the same
    laws.hold(UNDATED, not undated, f"{grant}: {failure} {status}")
    laws.hold("final: each grant is ready", ended, f"{grant}: {failure} {status} {seen.known}")
    if seen.unheard and not provider.killed:
        said = "interrupted" in str(status["last_error"]) or status["interrupted"] is not None
        laws.hold("final: an interruption is the reason that is said", said, f"{grant}: {status}")


def _undated(life: Life, grant: str) -> bool:
    """Whether something that an untrusted clock dated in another boot may hold the grant back."""
    record, boot = life.broker.grants[grant].record, life.clock.now().boot_id
    issued = record.refresh_token.issued if record.refresh_token else None
    dated = (issued, record.retry, record.rotation_retry)
    return any(each is not None and not each.trusted and each.boot_id != boot for each in dated)


def _told_in_the_end(world: World, grant: str, status: Status) -> None:
    """Every token that was held at a revocation is dead at the provider (law 10)."""
    seen, provider = world.laws.seen[grant], world.provider_of(grant)
    living = [
        value
        for value in seen.to_be_dead()
        if provider.valid(value)
        or (
            value in provider.access
            and value not in provider.revoked
            and provider.access[value].expires > world.clock.true()
        )
    ]
    world.laws.hold("law 10: the provider is told in the end", not living, f"{grant}: {living} {status}")
