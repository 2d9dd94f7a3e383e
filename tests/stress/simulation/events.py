# What each event of a schedule does to the world and to the life that is there: callers come, people act, providers,
# disk, clocks and files change.
from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from math import inf
from typing import TYPE_CHECKING

import trio

from brokerd.core.errors import Failure
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from brokerd.core.ports import StoreError
from brokerd.core.secret import Secret, sha256_of
from brokerd.core.validation import ConfigError
from tests.stress.simulation.crash import Steps
from tests.stress.simulation.laws import EPSILON
from tests.stress.simulation.providers import Fault

if TYPE_CHECKING:
    from tests.stress.simulation.life import Life
    from tests.stress.simulation.schedule import Event
    from tests.stress.simulation.world import World

PERSON = 1000  # the uid of who logs in
Act = Callable[["World", "Life", str], Awaitable[None]]


def happen(world: World, event: Event) -> None:
    """Let it happen."""
    HAPPENS[event.what](world, event)


# -- callers


def _get(world: World, event: Event) -> None:
    if (life := world.there) is not None:
        for _ in range(int(_number(event, "callers", 1))):
            life.callers.start_soon(_caller, world, life, event)


async def _caller(world: World, life: Life, event: Event) -> None:
    values, laws = event.values, world.laws
    grant, wait = str(values["grant"]), _number(event, "wait")
    if life.dead or life.broker.locked or grant not in life.broker.grants:
        return
    min_ttl = _number(event, "min_ttl", 0.0) * world.provider_of(grant).setup.lifetime
    wanted = Target((str(values["scope"]),)) if "scope" in values else None
    had = life.broker.cached(grant, target=wanted)
    refused = had.value.reveal() if had is not None and values.get("refused") else None
    digest = None if refused is None else sha256_of(refused)
    at_once = had is not None and not min_ttl and refused is None
    begun = trio.current_time()
    with trio.move_on_after(_number(event, "leaves", inf)):
        try:
            token = None if wanted or refused else life.short_way(grant, min_ttl)
            if token is None:
                token = await life.broker.get(grant, min_ttl=min_ttl, wait=wait, refused=digest, target=wanted)
                if not (wanted or refused):
                    life.remember(grant, min_ttl, token)
        except Failure as failure:
            laws.said(str(failure))
            laws.hold("law 5: a living token is served", not at_once, f"{grant}: {failure}")
        else:
            if not life.dead:
                laws.served(life, grant, token, min_ttl, wanted)
                fresh = refused is None or token.value.reveal() != refused
                laws.hold("law 5: a refused token is not served again", fresh, grant)
        took, most = trio.current_time() - begun, 0.0 if at_once else wait
        laws.hold("law 13: a get ends in its time", took <= most + EPSILON, f"{grant}: {took:.2f} of {wait} s")


# -- people


def _by_hand(act: Act) -> Callable[[World, Event], None]:
    def happens(world: World, event: Event) -> None:
        async def acting(life: Life) -> None:
            if life.dead or grant not in life.broker.grants:
                return
            with trio.move_on_after(_number(event, "leaves", inf)):
                try:
                    await act(world, life, grant)
                except Failure as failure:
                    world.laws.said(str(failure))
                finally:
                    if not life.dead:
                        world.laws.by_hand(grant)  # what it overrode, it overrode at its end

        grant = str(event.values["grant"])
        if (life := world.there) is not None and grant in life.broker.grants:
            life.callers.start_soon(acting, life)

    return happens


async def _refreshing(world: World, life: Life, grant: str) -> None:
    laws = world.laws
    laws.by_hand(grant)
    before = life.broker.grants[grant].record.access_token
    token = await life.broker.refresh(grant)
    laws.served(life, grant, token)
    same = before is not None and before.value == token.value
    laws.hold("law 5: a refresh by hand brings a new token", not same, grant)


async def _revoking(world: World, life: Life, grant: str) -> None:
    seen, held = world.laws.seen[grant], life.broker.grants[grant]
    generation = held.record.generation
    world.laws.revoking(grant, held.record)
    epoch, asked = seen.epoch, seen.asked
    try:
        done = await life.broker.revoke(grant)
        if life.audit_writer is not None:
            await life.audit.settled()
            world.laws.answered_revocations[grant] += not life.dead
    except trio.Cancelled:  # who leaves while another change is written has revoked nothing
        is_done = held.record.state is State.REVOKED and held.record.generation != generation
        if not life.dead and not is_done:
            world.laws.left(grant, asked, epoch)
        raise
    if done.stored and epoch == seen.epoch:
        seen.revoked = "stored"


async def _importing(world: World, life: Life, grant: str) -> None:
    token = world.provider_of(grant).login(grant)
    seen, held = world.laws.seen[grant], life.broker.grants[grant]
    before = seen.epoch, seen.revoked, seen.asked
    world.laws.importing(grant, token)
    epoch = seen.epoch
    try:
        await life.broker.import_token(grant, Secret(token))
    except trio.Cancelled:  # who leaves while another change is written has imported nothing
        if epoch == seen.epoch and not life.dead:
            seen.epoch, seen.revoked, seen.asked = before
        raise
    if epoch == seen.epoch:
        world.laws.imported(grant, token, held)


def _adopt(world: World, event: Event) -> None:
    async def adopting(life: Life) -> None:
        with contextlib.suppress(Failure):
            await life.broker.adopt()

    if (life := world.there) is not None:
        life.callers.start_soon(adopting, life)


def _login(world: World, event: Event) -> None:
    """A person logs in with a code that a device shows, unless they leave or never confirm it."""
    grant, approves = str(event.values["grant"]), event.values["approves"]

    async def logging_in(life: Life) -> None:
        if life.dead or life.broker.locked or grant not in life.broker.grants:
            return
        held = life.broker.grants[grant]
        world.laws.login_begun(grant, held.record)
        login = life.broker.logins.begin(held, PERSON, names_account=False)
        try:
            with trio.move_on_after(_number(event, "leaves", inf)):
                await login.wait_past(0, 60.0)
                if approves is not None and login.prompt is not None:
                    code = str(login.prompt.shown["user_code"])
                    await trio.sleep(float(str(approves)))
                    world.provider_of(grant).approve(code)
                while not login.has_ended:
                    await login.wait_past(login.step, 60.0)
        except Failure as failure:
            world.laws.said(str(failure))
        finally:
            life.broker.logins.forget(login.id)

    if (life := world.there) is not None:
        life.callers.start_soon(logging_in, life)


def _lock(world: World, event: Event) -> None:
    async def locking(life: Life) -> None:
        with contextlib.suppress(Failure), trio.move_on_after(_number(event, "leaves", inf)):
            await life.key_manager.lock()
        await life.pause(_number(event, "unlocked"))
        with contextlib.suppress(Failure):
            await life.key_manager.unlock()

    if (life := world.there) is not None:
        life.callers.start_soon(locking, life)


def _rotate(world: World, event: Event) -> None:
    async def rotating(life: Life) -> None:
        if life.broker.locked:
            return
        if life.store.is_in_use(world.keys.present):
            world.keys.replace()
        before = world.keys.previous
        with contextlib.suppress(Failure):
            done = await life.key_manager.rotate(None, full=bool(event.values["full"]))
            world.laws.rotated(life, before, done)

    if (life := world.there) is not None:
        life.callers.start_soon(rotating, life)


def _backup(world: World, event: Event) -> None:
    async def copying(life: Life) -> None:
        with contextlib.suppress(Failure):
            world.backup = world.copied[await life.key_manager.backup()]

    if (life := world.there) is not None:
        life.callers.start_soon(copying, life)


def _restore(world: World, event: Event) -> None:
    """brokerd is stopped, and the backup put back; until it was adopted it spends nothing."""
    if (life := world.there) is not None and world.backup is not None:
        world.down, world.restoring = _number(event, "down"), True
        life.stop()


# -- providers


def _fault(world: World, event: Event) -> None:
    values, seconds = event.values, event.values.get("seconds")
    fault = Fault(
        str(values["kind"]),
        _number(event, "requests", inf),
        world.clock.true() + _number(event, "lasts", inf),
        None if seconds is None else float(str(seconds)),
        bool(values.get("date")),
    )
    world.providers[str(values["provider"])].faults.append(fault)


def _kill(world: World, event: Event) -> None:
    grant = str(event.values["grant"])
    world.provider_of(grant).kill(grant)


def _password(world: World, event: Event) -> None:
    provider = world.provider_of("user")
    provider.password += "x"
    if event.values["kill"]:
        provider.kill("user")
    if event.values["told"]:
        world.write_password(provider.password)


# -- the machine


def _disk(world: World, event: Event) -> None:
    disk, now = world.disk, world.clock.true()
    match event.values["kind"]:
        case "full":
            disk.full = now + _number(event, "lasts")
        case "slow":
            disk.slow = now + _number(event, "lasts")
        case _:
            disk.skip, disk.failing = int(_number(event, "after")), int(_number(event, "writes"))


def _crash(world: World, event: Event) -> None:
    world.down = _number(event, "down")
    where, count = str(event.values["where"]), int(_number(event, "count", 1))
    life = world.there
    if where == "now":
        if world.life is not None:
            world.life.crash()
    elif where != "step":
        world.armed = (where, count)
    elif life is not None and life.steps is None:
        life.steps = Steps(life, count)
        trio.lowlevel.add_instrument(life.steps)


def _stop(world: World, event: Event) -> None:
    world.down = _number(event, "down")
    if (life := world.there) is not None:
        life.stop()
        if event.values["copied"]:
            world.machine += "x"


def _suspend(world: World, event: Event) -> None:
    world.clock.suspended += _number(event, "seconds")


def _step(world: World, event: Event) -> None:
    world.clock.step(_number(event, "seconds"), noticed=bool(event.values["noticed"]))


def _reboot(world: World, event: Event) -> None:
    world.down = _number(event, "down")
    if world.life is not None:
        world.life.crash(power=True)
    world.clock.reboot(_number(event, "off"))
    world.laws.rebooted()


def _reload(world: World, event: Event) -> None:
    async def reloading(life: Life) -> None:
        with contextlib.suppress(ConfigError, StoreError, Failure):
            await life.reload(half=values["kind"] == "bad")
        if "back" in values:
            await life.pause(_number(event, "back"))
            world.without.discard(grant)
            with contextlib.suppress(ConfigError, StoreError, Failure):
                await life.reload()

    values, grant = event.values, str(event.values.get("grant"))
    match values["kind"]:
        case "scope":
            world.scoped ^= {grant}
        case "without":
            world.without.add(grant)
        case "back":
            world.without.clear()
    if (life := world.there) is not None:
        life.callers.start_soon(reloading, life)


def _number(event: Event, name: str, default: float | None = None) -> float:
    value = event.values.get(name, default)
    return float(str(value))


HAPPENS: dict[str, Callable[[World, Event], None]] = {
    "get": _get,
    "refresh": _by_hand(_refreshing),
    "revoke": _by_hand(_revoking),
    "import": _by_hand(_importing),
    "fault": _fault,
    "kill": _kill,
    "password": _password,
    "disk": _disk,
    "crash": _crash,
    "stop": _stop,
    "adopt": _adopt,
    "suspend": _suspend,
    "step": _step,
    "reboot": _reboot,
    "reload": _reload,
    "login": _login,
    "lock": _lock,
    "rotate": _rotate,
    "backup": _backup,
    "restore": _restore,
}
