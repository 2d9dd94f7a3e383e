# What each event of a schedule does to the hosts of a fleet, to its etcd and to its providers.
from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from brokerd.core.errors import Failure
from brokerd.core.secret import Secret, sha256_of
from tests.stress.simulation.fleet.model_etcd import Fault as EtcdFault
from tests.stress.simulation.fleet.pauses import HOST
from tests.stress.simulation.providers import Fault

if TYPE_CHECKING:
    from tests.stress.simulation.fleet.host import Host, Process
    from tests.stress.simulation.fleet.world import World
    from tests.stress.simulation.schedule import Event

Act = Callable[["World", "Process", str, "Event"], Awaitable[None]]


def happen(world: World, event: Event) -> None:
    """Let it happen."""
    HAPPENS[event.what](world, event)


def _number(event: Event, name: str, default: float = 0.0) -> float:
    return float(str(event.values.get(name, default)))


def _hosts(world: World, event: Event) -> list[Host]:
    name = str(event.values["host"])
    return list(world.hosts.values()) if name == "all" else [world.hosts[name]] if name in world.hosts else []


def _later(world: World, seconds: float, act: Callable[[], None]) -> None:
    async def wait() -> None:
        await trio.sleep(seconds)
        act()

    world.outside(wait)


def _strike(world: World, event: Event, act: Callable[[Host], None]) -> None:
    """Now, or when the host is next at that place."""
    where = str(event.values["where"])
    for host in _hosts(world, event):
        if where == "now":
            act(host)
        else:
            host.armed[where] = lambda host=host: act(host)


# -- callers and people


def _by(act: Act) -> Callable[[World, Event], None]:
    def happens(world: World, event: Event) -> None:
        for host in _hosts(world, event):
            process = host.there

            async def acting(process: Process | None = process, host: Host = host) -> None:
                HOST.set(host.name)
                assert process is not None
                try:
                    process.check()
                    await act(world, process, str(event.values["grant"]), event)
                except Failure as failure:
                    world.say(host.name, f"{event.what} {event.values['grant']}: {failure}")

            if process is not None:
                process.callers.start_soon(acting)

    return happens


async def _get(world: World, process: Process, grant: str, event: Event) -> None:
    min_ttl = _number(event, "min_ttl") * world.provider_of(grant).setup.lifetime
    had = process.broker.cached(grant)
    refused = sha256_of(had.value.reveal()) if had is not None and event.values.get("refused") else None
    token = await process.broker.get(grant, min_ttl=min_ttl, wait=_number(event, "wait"), refused=refused)
    process.check()
    world.witness.served(process, grant, token.value.reveal())


async def _refresh(world: World, process: Process, grant: str, event: Event) -> None:
    world.witness.seen[grant].by_hand += 1
    token = await process.broker.refresh(grant, wait=30.0)
    process.check()
    world.witness.served(process, grant, token.value.reveal())


async def _revoke(world: World, process: Process, grant: str, event: Event) -> None:
    imports = world.witness.seen[grant].imports
    done = await process.broker.revoke(grant)
    process.check()
    world.say(process.host.name, f"revoked {grant}, stored: {done.stored}")
    if done.stored:
        world.witness.revoked(grant, imports)


async def _import(world: World, process: Process, grant: str, event: Event) -> None:
    token = world.provider_of(grant).login(grant)
    world.witness.importing(grant)
    await process.broker.import_token(grant, Secret(token))


def _fault(world: World, event: Event) -> None:
    seconds = event.values.get("seconds")
    fault = Fault(
        str(event.values["kind"]), _number(event, "requests"), seconds=None if seconds is None else float(str(seconds))
    )
    world.providers[str(event.values["provider"])].faults.append(fault)


# -- hosts


def _crash(world: World, event: Event) -> None:
    def crash(host: Host) -> None:
        if host.process is not None:
            world.say(host.name, "crashes")
            host.down, host.reboots = _number(event, "down"), bool(event.values["reboots"]) and not host.clock.stepped
            world.crashes += 1
            world.pauses.go_on(host.name)
            host.process.crash()

    _strike(world, event, crash)


def _pause(world: World, event: Event) -> None:
    def stop(host: Host) -> None:
        if host.there is not None:
            world.say(host.name, f"is stopped for {event.values['seconds']} s")
            world.pauses.stop(host.name)
            world.disturbed(host, ends=False)
            _later(world, _number(event, "seconds"), lambda: go_on(host))

    def go_on(host: Host) -> None:
        world.say(host.name, "goes on")
        world.pauses.go_on(host.name)
        world.disturbed(host)

    _strike(world, event, stop)


def _step(world: World, event: Event) -> None:
    for host in _hosts(world, event):
        if host.clock.boots == 1:  # of what was before a boot, only the wall clock says how long ago it was
            host.clock.off, host.clock.stepped = _number(event, "off"), True


# -- etcd


def _cut(world: World, event: Event) -> None:
    def cut(host: Host) -> None:
        world.say(host.name, f"is cut off for {event.values['lasts']} s")
        world.cluster.cut(host.name)
        world.disturbed(host, ends=False)
        _later(world, _number(event, "lasts"), lambda: heal(host))

    def heal(host: Host) -> None:
        world.cluster.heal(host.name)
        world.disturbed(host)

    _strike(world, event, cut)


def _etcd_fault(world: World, event: Event) -> None:
    host, values = event.values["host"], event.values
    name = None if host is None else str(host)
    fault = EtcdFault(
        str(values["kind"]),
        name,
        int(_number(event, "requests")),
        _number(event, "seconds"),
        bool(values["transactions"]),
    )
    world.cluster.faults.append(fault)


def _delay(world: World, event: Event) -> None:
    def end(host: Host) -> None:
        world.cluster.link(host.name).delay = 0.0
        world.disturbed(host)

    for host in _hosts(world, event):
        world.cluster.link(host.name).delay = _number(event, "seconds")
        world.disturbed(host, ends=False)
        _later(world, _number(event, "lasts"), lambda host=host: end(host))


def _end_lease(world: World, event: Event) -> None:
    """etcd ends the lease of a host early: all claims are on it."""

    def end(host: Host) -> None:
        server, key = world.cluster.server, f"/member/{host.name}".encode()
        for lease in {pair.lease for name, pair in server.pairs.items() if name.endswith(key)} - {0}:
            world.say("etcd", f"ends the lease of {host.name}")
            server.end_lease(lease)

    _strike(world, event, end)


def _compact(world: World, event: Event) -> None:
    loses = event.values["loses"]
    world.cluster.server.compact()
    if loses is not None:
        world.cluster.lose_watches(None if loses == "all" else str(loses))
        world.all_disturbed()


def _full(world: World, event: Event) -> None:
    def end() -> None:
        server.full = False

    server = world.cluster.server
    server.full = True
    _later(world, _number(event, "lasts"), end)


def _no_leader(world: World, event: Event) -> None:
    def end() -> None:
        world.cluster.down = False
        world.cluster.change_leader()
        world.all_disturbed()

    world.cluster.down = True
    world.all_disturbed(ends=False)
    _later(world, _number(event, "lasts"), end)


def _leader(world: World, event: Event) -> None:
    world.cluster.change_leader()
    world.all_disturbed()


def _rate(world: World, event: Event) -> None:
    def end() -> None:
        server.rate = 1.0

    server = world.cluster.server
    server.rate = _number(event, "rate")
    _later(world, _number(event, "lasts"), end)


def _snapshot(world: World, event: Event) -> None:
    world.snapshot = world.cluster.server.copy(trio.current_time)


def _restore(world: World, event: Event) -> None:
    cluster, taken, is_new = world.cluster, world.snapshot, bool(event.values["new"])
    if taken is None or (not is_new and taken.revision == cluster.server.revision):
        return
    world.say("etcd", f"is restored: revision {taken.revision} after {cluster.server.revision}, new cluster: {is_new}")
    world.witness.restore(taken.revision)
    cluster.restore(taken, new_cluster=is_new)
    world.snapshot = None
    world.all_disturbed()
    _later(world, _number(event, "adopted"), lambda: world.adopt(str(event.values["host"])))


HAPPENS: dict[str, Callable[[World, Event], None]] = {
    "get": _by(_get),
    "refresh": _by(_refresh),
    "revoke": _by(_revoke),
    "import": _by(_import),
    "fault": _fault,
    "crash": _crash,
    "pause": _pause,
    "step": _step,
    "cut": _cut,
    "etcd-fault": _etcd_fault,
    "delay": _delay,
    "end-lease": _end_lease,
    "compact": _compact,
    "full": _full,
    "no-leader": _no_leader,
    "leader": _leader,
    "rate": _rate,
    "snapshot": _snapshot,
    "restore": _restore,
}
