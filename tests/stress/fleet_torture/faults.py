# The faults: what each does, to whom, for how long, and how it is healed. What is drawn comes from the seed alone.
from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio

from tests.stress.fleet_torture.cluster import NODES, Cluster
from tests.stress.fleet_torture.history import History
from tests.stress.fleet_torture.hosts import Host
from tests.stress.fleet_torture.network import DOWN, ISLAND, PEERS, STORE, UNPLUGGED, WEB, Network

Fault = Callable[["Faults", random.Random], Awaitable[None]]
LATE = 5.0  # seconds for which a host's requests are answered late
HEALING = (3.0, 9.0)  # seconds between two rounds
TWO = 0.7  # of the rounds have two faults


@dataclass
class Faults:
    network: Network
    cluster: Cluster | None
    hosts: list[Host]
    history: History
    read_again: Callable[[Host], None]
    ask_provider: Callable[..., Awaitable[object]]
    busy_nodes: set[str] = field(default_factory=set)

    async def run(self, minutes: float, chance: random.Random, say: Callable[[str], None]) -> None:
        """Rounds of one or two faults until the time is over; then everything is healed."""
        until = trio.current_time() + minutes * 60
        kinds = {name: each for name, each in FAULTS.items() if self.cluster is not None or name not in OF_THE_STORE}
        bag: list[str] = []
        while trio.current_time() < until:
            names = []
            for _ in range(1 + (chance.random() < TWO)):
                if not bag:
                    bag = list(kinds)
                    chance.shuffle(bag)
                names.append(bag.pop())
            say(f"{max(0.0, until - trio.current_time()):.0f} s left: {' and '.join(names)}")
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(self._one, name, kinds[name], random.Random(chance.random()))
            await trio.sleep(chance.uniform(*HEALING))

    async def _one(self, name: str, fault: Fault, chance: random.Random) -> None:
        await trio.sleep(chance.uniform(0.0, 3.0))
        self.history.say("fault", kind=name)
        await fault(self, chance)
        self.history.say("healed", kind=name)

    # -- who is hit

    def host(self, chance: random.Random) -> Host:
        """One that no other fault has; there are more hosts than faults at once."""
        found = chance.choice([each for each in self.hosts if not each.busy and each.runs])
        found.busy = True
        return found

    async def node(self, chance: random.Random, *, leader: bool = False) -> str | None:
        """One that no other fault has; None: the leader is asked for and has one, or there is none."""
        assert self.cluster is not None
        found = await self.cluster.leader() if leader else None
        free = [found] if leader else [each for each in NODES if each not in self.busy_nodes]
        node = chance.choice(free)
        if node is None or node in self.busy_nodes:
            return None
        self.busy_nodes.add(node)
        return node

    def say(self, what: str, machine: str, **more: object) -> None:
        self.history.say(what, **{"node" if machine in NODES else "host": machine}, **more)

    async def cut(
        self, machine: str, nets: tuple[str, ...], chance: random.Random, seconds: tuple[float, float]
    ) -> None:
        for net in nets:
            how = chance.choice((UNPLUGGED, DOWN))
            self.say("cut", machine, net=net, how=how)
            self.network.cut(machine, net, how)
        await trio.sleep(chance.uniform(*seconds))
        for net in nets:
            self.network.mend(machine, net)
            self.say("mended", machine, net=net)


# -- of a host


async def kill_broker(faults: Faults, chance: random.Random) -> None:
    host = faults.host(chance)
    host.kill()
    await trio.sleep(chance.choice((0.0, chance.uniform(0.5, 25.0))))
    await host.start()
    host.busy = False


async def kill_brokers(faults: Faults, chance: random.Random) -> None:
    """Each of them, one after the other, as an upgrade would."""
    for host in chance.sample(faults.hosts, len(faults.hosts)):
        if host.busy or not host.runs:
            continue
        host.busy = True
        host.kill()
        await host.start()
        host.busy = False


async def reboot_host(faults: Faults, chance: random.Random) -> None:
    host = faults.host(chance)
    host.kill()
    host.stop_reader()
    host.boot(chance)
    faults.history.say("rebooted", host=host.name)
    await trio.sleep(chance.uniform(1.0, 10.0))
    await host.start()
    faults.read_again(host)
    host.busy = False


async def pause_broker(faults: Faults, chance: random.Random) -> None:
    """Longer than the lease of a host."""
    host = faults.host(chance)
    host.pause()
    await trio.sleep(chance.uniform(16.0, 32.0))
    host.resume()
    host.busy = False


async def late_answers(faults: Faults, host: Host) -> None:
    """What this host asks in these seconds is answered when its lease may have ended."""
    await faults.ask_provider("/late", host=host.name, seconds=LATE)
    await trio.sleep(LATE)


async def pause_broker_that_waits(faults: Faults, chance: random.Random) -> None:
    host = faults.host(chance)
    await late_answers(faults, host)
    host.pause()
    await trio.sleep(chance.uniform(16.0, 32.0))
    host.resume()
    host.busy = False


async def cut_broker_that_waits_from_etcd(faults: Faults, chance: random.Random) -> None:
    host = faults.host(chance)
    await late_answers(faults, host)
    await faults.cut(host.name, (STORE,), chance, (16.0, 35.0))
    host.busy = False


async def kill_broker_that_waits(faults: Faults, chance: random.Random) -> None:
    """Its requests are carried out all the same, after the end of its lease."""
    host = faults.host(chance)
    await late_answers(faults, host)
    host.kill()
    await trio.sleep(chance.uniform(0.5, 25.0))
    await host.start()
    host.busy = False


async def cut_broker_from_etcd(faults: Faults, chance: random.Random) -> None:
    host = faults.host(chance)
    await faults.cut(host.name, (STORE,), chance, (3.0, 35.0))
    host.busy = False


async def cut_broker_from_provider(faults: Faults, chance: random.Random) -> None:
    host = faults.host(chance)
    await faults.cut(host.name, (WEB,), chance, (3.0, 25.0))
    host.busy = False


async def cut_broker_from_all(faults: Faults, chance: random.Random) -> None:
    host = faults.host(chance)
    await faults.cut(host.name, (STORE, WEB), chance, (3.0, 25.0))
    host.busy = False


async def flapping_link(faults: Faults, chance: random.Random) -> None:
    host = faults.host(chance)
    for _ in range(chance.randint(3, 6)):
        await faults.cut(host.name, (chance.choice((STORE, WEB)),), chance, (0.3, 3.0))
        await trio.sleep(chance.uniform(0.3, 3.0))
    host.busy = False


# -- of etcd


async def kill_node(faults: Faults, chance: random.Random) -> None:
    await _kill(faults, await faults.node(chance), chance)


async def kill_leader(faults: Faults, chance: random.Random) -> None:
    await _kill(faults, await faults.node(chance, leader=True), chance)


async def _kill(faults: Faults, node: str | None, chance: random.Random) -> None:
    if node is None:
        return
    assert faults.cluster is not None
    faults.say("killed", node)
    faults.cluster.kill(node)
    await trio.sleep(chance.uniform(1.0, 20.0))
    faults.cluster.launch(node)
    faults.say("started", node)
    faults.busy_nodes.discard(node)


async def pause_node(faults: Faults, chance: random.Random) -> None:
    node = await faults.node(chance, leader=chance.random() < 0.5)
    if node is None:
        return
    assert faults.cluster is not None
    faults.say("paused", node)
    faults.cluster.signal(node, signal.SIGSTOP)
    await trio.sleep(chance.uniform(3.0, 25.0))
    faults.cluster.signal(node, signal.SIGCONT)
    faults.say("resumed", node)
    faults.busy_nodes.discard(node)


async def cut_node(faults: Faults, chance: random.Random) -> None:
    """A minority: one node that nobody reaches."""
    await _cut(faults, await faults.node(chance), (PEERS, STORE), chance)


async def cut_leader(faults: Faults, chance: random.Random) -> None:
    await _cut(faults, await faults.node(chance, leader=True), (PEERS, STORE), chance)


async def cut_leader_from_nodes(faults: Faults, chance: random.Random) -> None:
    """Hosts still reach it, and it believes for a while that it leads."""
    await _cut(faults, await faults.node(chance, leader=True), (PEERS,), chance)


async def _cut(faults: Faults, node: str | None, nets: tuple[str, ...], chance: random.Random) -> None:
    if node is not None:
        await faults.cut(node, nets, chance, (5.0, 30.0))
        faults.busy_nodes.discard(node)


async def minority_with_host(faults: Faults, chance: random.Random) -> None:
    """One node and one host on an island of their own: the host reaches only a node that has no majority."""
    node, host = await faults.node(chance, leader=chance.random() < 0.5), faults.host(chance)
    if node is not None:
        for machine, net in ((node, STORE), (host.name, STORE)):
            faults.say("cut", machine, net=net, how="island")
            faults.network.move(machine, net, ISLAND)
        await faults.cut(node, (PEERS,), chance, (5.0, 35.0))
        for machine, net in ((node, STORE), (host.name, STORE)):
            faults.network.mend(machine, net)
            faults.say("mended", machine, net=net)
        faults.busy_nodes.discard(node)
    host.busy = False


# -- of the provider


async def provider_down(faults: Faults, chance: random.Random) -> None:
    seconds = chance.uniform(5.0, 25.0)
    await faults.ask_provider("/down", seconds=seconds)
    await trio.sleep(seconds)


FAULTS: dict[str, Fault] = {
    "kill -9 of a broker": kill_broker,
    "kill -9 of a broker again": kill_broker,
    "kill -9 of each broker": kill_brokers,
    "reboot of a host": reboot_host,
    "SIGSTOP of a broker": pause_broker,
    "SIGSTOP of a broker again": pause_broker,
    "SIGSTOP of a broker that waits for late answers": pause_broker_that_waits,
    "host cut from etcd": cut_broker_from_etcd,
    "host cut from etcd while it waits for late answers": cut_broker_that_waits_from_etcd,
    "kill -9 of a broker that waits for late answers": kill_broker_that_waits,
    "host cut from the provider": cut_broker_from_provider,
    "host cut from both": cut_broker_from_all,
    "flapping link": flapping_link,
    "kill -9 of a node": kill_node,
    "kill -9 of the leader": kill_leader,
    "SIGSTOP of a node": pause_node,
    "node cut from all": cut_node,
    "leader cut from all": cut_leader,
    "leader cut from the nodes": cut_leader_from_nodes,
    "host and node on an island": minority_with_host,
    "provider down": provider_down,
}
OF_THE_STORE = (
    "host cut from etcd while it waits for late answers",
    *("host cut from etcd", "kill -9 of a node", "kill -9 of the leader", "SIGSTOP of a node", "node cut from all"),
    *("leader cut from all", "leader cut from the nodes", "host and node on an island"),
)
