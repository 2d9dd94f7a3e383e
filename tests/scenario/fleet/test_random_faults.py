# Three hosts, one login, and faults by chance: no refresh token is sent twice while its answer may come or has come, no
# dead token is served, and afterwards all hosts have the same.
from __future__ import annotations

from random import Random

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.errors import Failure
from brokerd.core.exchange.steps import Request, Response
from tests.scenario.fleet.machines import Fleet, Host, Line, Loss, until
from tests.scenario.laws.world import LIFETIME

STEPS = 40


class Watched:
    """What was sent, and what came of it. `answered`: refresh tokens whose answer a host got."""

    def __init__(self, machines: Fleet) -> None:
        self.machines = machines
        self.under_way: dict[str, Host] = {}
        self.answered: set[str] = set()
        self.faults: list[str] = []
        self.born: dict[str, float] = {}

    def on(self, host: Host) -> None:
        """Its present process is watched."""
        line, send = host.line, Line.send

        async def watched(request: Request) -> Response:
            token = request.body.decode().partition("refresh_token=")[2].partition("&")[0]
            before = self.under_way.get(token)
            if token in self.answered:
                self.faults.append(f"{trio.current_time():.2f} {host.name} sent {token}, whose answer had come")
            if before is not None and before is not host and before.lives:
                self.faults.append(f"{trio.current_time():.2f} {host.name} sent {token} while {before.name} waited")
            sent = line.sent
            try:
                answer = await send(line, request)
            finally:
                if self.under_way.get(token) is host and not host.dead.is_set():
                    del self.under_way[token]
            assert sent < line.sent
            if answer.status == 200:
                self.answered.add(token)
            return answer

        line.send = watched  # type: ignore[method-assign]

    def look(self) -> None:
        """Who serves what."""
        now = trio.current_time()
        for host in self.machines.hosts:
            if (
                host.lives
                and (token := host.served()) is not None
                and now - self.born.setdefault(token, now) > LIFETIME
            ):
                self.faults.append(f"{now:.2f} {host.name} serves {token}, which is dead")


async def faults_by_chance(machines: Fleet, seed: int) -> None:
    random = Random(seed)
    hosts = await machines.started(3)
    watched = Watched(machines)
    for host in hosts:
        watched.on(host)
    await hosts[0].log_in()
    cluster, provider = machines.cluster, machines.provider
    for _ in range(STEPS):
        provider.takes = random.choice((0.0, 0.1, 2.0, 7.0, 20.0))
        host = random.choice(hosts)
        what = random.choice(
            ("renew", "renew", "renew", "cut", "heal", "lose", "leader", "compact", "late", "die", "stop")
        )
        if what == "renew":
            machines.nursery.start_soon(renew, host)
        elif what == "cut":
            host.cut()
        elif what == "heal":
            host.heal()
        elif what == "lose":
            kind = random.choice(("lost-after", "lost-before", "later", "refused"))
            host.losses.append(Loss(random.choice(("claim", "outcome", "record")), kind, random.choice((1, 2, 9)), 4.0))
        elif what == "leader":
            cluster.change_leader()
        elif what == "compact":
            cluster.server.compact()
        elif what == "late":
            cluster.link(host.way).delay = random.choice((0.0, 0.5, 3.0))
        elif what == "stop" or host.grant.running is None:  # a kill in the middle of an exchange may cost the login
            await ended(host, kills=what == "die")
            await host.start()
            watched.on(host)
        for _ in range(random.choice((1, 3, 20, 60))):
            watched.look()
            await trio.sleep(0.5)
    for host in hosts:
        host.losses.clear()
        host.heal()
        cluster.link(host.way).delay = 0.0
    provider.takes = 0.0
    await trio.sleep(60)
    assert watched.faults == []
    assert provider.reused == 0
    await until(lambda: all(host.grant.running is None and not host.grant.unstored for host in hosts))
    await until(lambda: len({host.served() for host in hosts}) == 1 and hosts[0].served(), 2_000)
    token = await hosts[2].renewed()
    await until(lambda: all(host.served() == token for host in hosts))
    await until(lambda: machines.rows("claim") == machines.rows("journal") == [])
    await until(lambda: all(host.store.etcd_state().unwritten == 0 for host in hosts))


async def renew(host: Host) -> None:
    broker = host.broker
    if host.lives:
        try:
            await host.renewed()
        except Failure:
            return
        except RuntimeError:  # its process has ended
            assert broker is not host.broker or not host.lives


async def ended(host: Host, *, kills: bool) -> None:
    if kills:
        await host.kill()
    else:
        await host.stop()


@pytest.mark.parametrize("seed", range(8))
async def test_faults_by_chance(autojump_clock: MockClock, machines: Fleet, seed: int) -> None:
    await faults_by_chance(machines, seed)
