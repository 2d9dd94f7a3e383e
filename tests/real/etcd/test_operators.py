# What an operator sees of a real fleet, and what the commands of docs/fleet.md do: brokerctl fleet, status, readiness,
# metrics, log; etcd that is away, full, or restored from a snapshot.
from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from brokerd_client.errors import BrokerError

from brokerd import __version__
from brokerd.core.fleet.etcd import Put
from brokerd.core.fleet.layout import SCHEMA
from brokerd.edge.etcd.client import EtcdClient
from brokerd.edge.store import key_file
from brokerd.edge.system.clock import SystemClock
from tests import forked
from tests.real.etcd.cluster import Cluster, running
from tests.real.etcd.hosts import Hosts, hosts
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import OAuth2, oauth2

pytestmark = pytest.mark.real
WITHIN = 30.0  # seconds
TICK = 0.05


@pytest.fixture
async def fleet(etcd_cluster: Cluster, nursery: trio.Nursery) -> AsyncIterator[Hosts]:
    provider = await Serving(nursery)(OAuth2(oauth2.Settings(access_lifetime=3600)))
    async with hosts(etcd_cluster, provider, nursery) as made:
        yield made
    await etcd_cluster.repair()


async def brokerctl(host: Brokerd, *words: str) -> subprocess.CompletedProcess[str]:
    return await trio.to_thread.run_sync(partial(forked.brokerctl, "--socket", str(host.socket), *words))


async def until(look: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool]) -> Any:
    found: Any = None
    with trio.move_on_after(WITHIN):
        while not holds(found := await look()):
            await trio.sleep(TICK)
        return found
    raise AssertionError(f"it never came to it: {found}")


async def view(host: Brokerd) -> dict[str, Any]:
    return dict(await host.call("fleet"))


async def etcd_of(host: Brokerd) -> dict[str, Any]:
    return dict((await host.call("status"))["daemon"]["fleet"])


async def metrics(host: Brokerd) -> dict[str, float]:
    lines = (await host.call("metrics"))["text"].splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


async def checks(host: Brokerd) -> dict[str, str | None]:
    """The checks of readiness that fail."""
    return {each["name"]: each["reason"] for each in (await host.call("ready"))["checks"] if not each["ok"]}


async def test_every_host_shows_all_hosts_and_which_one_renews_a_grant(fleet: Hosts) -> None:
    one, two = await fleet.started(2)
    await fleet.all_serve(await fleet.log_in(one))
    for host in (one, two):
        found = await until(partial(view, host), lambda found: len(found["members"]) == 2)
        assert (found["fleet"], found["host"]) == (fleet.fleet, host.folder.name)
        assert [(each["host"], each["is_self"]) for each in found["members"]] == [
            ("host-0", host is one),
            ("host-1", host is two),
        ]
        assert {(each["release"], each["schema"]) for each in found["members"]} == {(__version__, SCHEMA)}
        assert (found["claims"], found["open_exchanges"]) == ([], [])
        etcd = found["etcd"]
        assert (etcd["reachable"], etcd["adopted"], etcd["full"], etcd["trouble"]) == (True, True, False, None)
        assert etcd["endpoint"] in fleet.cluster.urls
    renewers = {(await host.status("app"))["renewer"] for host in (one, two)}
    assert len(renewers) == 1
    assert renewers <= {"host-0", "host-1"}
    done = await brokerctl(two, "fleet")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"fleet {fleet.fleet}, 2 hosts; this host is host-1" in done.stdout
    assert "renewed by  host-" in (await brokerctl(one, "status", "app")).stdout


async def test_an_exchange_that_is_under_way_is_shown_with_its_host(fleet: Hosts) -> None:
    one, two = await fleet.started(2)
    await fleet.all_serve(await fleet.log_in(one))
    with fleet.provider.hold("refresh") as gate:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(one.call, "refresh", grant="app", wait=30))
            await gate.reached()
            found = await until(partial(view, two), lambda found: bool(found["claims"]))
            assert [(each["grant"], each["host"]) for each in found["claims"]] == [("app", "host-0")]
            assert [each["claimed"] for each in found["open_exchanges"]] == [True]
            assert (await metrics(one))["brokerd_fleet_claims"] == 1
            assert "Exchanges under way" in (await brokerctl(two, "fleet")).stdout
            gate.release()
    await until(partial(view, two), lambda found: not found["claims"])


async def test_without_etcd_everything_says_so_and_tokens_are_served(fleet: Hosts) -> None:
    (one,) = await fleet.started(1)
    token = await fleet.log_in(one)
    await until(partial(view, one), lambda found: bool(found["members"]))
    assert (await metrics(one))["brokerd_fleet_etcd_up"] == 1
    for number in (0, 1):  # without a majority
        fleet.cluster.kill(number)
    await until(partial(etcd_of, one), lambda found: not found["reachable"])
    await one.said("event=etcd_away")
    assert await one.get("app") == token
    assert (await metrics(one))["brokerd_fleet_etcd_up"] == 0
    assert (await metrics(one))["brokerd_store_up"] == 1, "its own disk is well"
    assert await checks(one) == {}, "it serves"
    status = await brokerctl(one, "status", "--exit-code")
    assert status.returncode == 4
    assert f"fleet {fleet.fleet}: etcd cannot be reached for " in status.stdout
    assert "tokens that live are served, and no stored token is sent" in status.stdout
    assert "store:" not in status.stdout
    shown = await brokerctl(one, "fleet", "--exit-code")
    assert shown.returncode == 4
    assert "etcd cannot be reached for " in shown.stdout
    assert "host-0 (this one)" in shown.stdout, "as it was seen last"
    await fleet.cluster.repair()
    await until(partial(etcd_of, one), lambda found: found["reachable"])
    await one.said("event=etcd_back")
    assert (await brokerctl(one, "fleet", "--exit-code")).returncode == 0
    assert one.log.count("event=etcd_away") == one.log.count("event=etcd_back") == 1


async def test_after_offline_nothing_is_served_and_readiness_says_why(fleet: Hosts) -> None:
    one = fleet.add(offline="3s")
    await one.start()
    token = await fleet.log_in(one)
    for number in (0, 1):
        fleet.cluster.kill(number)
    found = await until(partial(etcd_of, one), lambda found: found["serves_until"] is not None)
    assert not found["reachable"]
    failed = await until(partial(checks, one), lambda failed: "fleet" in failed)
    assert "longer than [store] offline allows" in str(failed["fleet"])
    await until(partial(refused, one), lambda code: code == "unavailable")
    shown = await brokerctl(one, "fleet", "--exit-code")
    assert shown.returncode == 5
    assert "no token is served, because that is longer than [store] offline allows" in shown.stdout
    await fleet.cluster.repair()
    await until(partial(checks, one), lambda failed: not failed)
    await fleet.all_serve(token)


async def test_doctor_looks_at_the_servers_of_the_configuration(fleet: Hosts) -> None:
    one = fleet.add()
    await one.start()
    done = await trio.to_thread.run_sync(partial(forked.brokerctl, "doctor", "--config", str(one.config)))
    assert f"{fleet.cluster.urls[0]}: the keys below /brokerd/{fleet.fleet}/ may be read and written" in done.stdout
    assert "problem  etcd" not in done.stdout


async def test_a_host_brings_what_it_has_and_can_go_back_to_its_own_store(fleet: Hosts) -> None:
    one, two = fleet.add(), fleet.add()
    fleet.alone(one)
    await one.start()
    token = await fleet.log_in(one)
    await one.stop()
    fleet.configure(one)
    await two.start()  # it sees when the record comes, so it trusts its times even if its clock is not synchronised
    await one.start()
    assert await one.get("app") == token
    await fleet.all_serve(token)
    await two.call("refresh", grant="app")
    renewed = await two.get("app")
    await fleet.all_serve(renewed)
    await two.stop()
    await one.stop()
    fleet.alone(one)
    await one.start()
    assert await one.get("app") == renewed
    await one.call("refresh", grant="app")
    assert await one.get("app") != renewed
    assert fleet.provider.counts.reused == 0


async def test_a_backup_of_a_host_goes_on_elsewhere_without_the_fleet(fleet: Hosts, tmp_path: Path) -> None:
    (one,) = await fleet.started(1)
    token = await fleet.log_in(one)
    file = tmp_path / "backup"
    assert (await brokerctl(one, "backup", str(file))).returncode == 0
    await one.stop()
    other = fleet.add()
    fleet.alone(other)
    assert (await brokerctl(other, "restore", str(file), "--state-dir", str(other.state))).returncode == 0
    await other.start()
    assert await other.get("app") == token
    assert "brokerctl adopt" in (await other.error("refresh", grant="app", wait=1))["message"]
    assert (await brokerctl(other, "adopt")).returncode == 0
    await other.call("refresh", grant="app")
    assert await other.get("app") != token
    assert fleet.provider.counts.reused == 0


async def test_a_restored_backup_on_a_host_of_a_fleet_brings_no_old_token_back(fleet: Hosts, tmp_path: Path) -> None:
    one, two = await fleet.started(2)
    await fleet.all_serve(await fleet.log_in(one))
    file = tmp_path / "backup"
    assert (await brokerctl(one, "backup", str(file))).returncode == 0
    await two.call("refresh", grant="app")
    await fleet.all_serve(renewed := await two.get("app"))
    await one.stop()
    assert (await brokerctl(one, "restore", str(file), "--state-dir", str(one.state), "--force")).returncode == 0
    await one.start()
    assert (await brokerctl(one, "adopt")).returncode == 0
    await until(partial(checks, one), lambda failed: not failed)
    await one.call("refresh", grant="app")
    await fleet.all_serve(await one.get("app"))
    assert await one.get("app") != renewed
    assert fleet.provider.counts.reused == 0


async def test_a_grant_that_spends_nothing_is_renewed_without_etcd(fleet: Hosts) -> None:
    one = fleet.add()
    one.configure({"app": FIVE["oauth2"]}, {"oauth2": at(fleet.provider)}, store=fleet.table(one))
    await one.start()
    token = await one.get("app")
    for number in (0, 1):
        fleet.cluster.kill(number)
    await until(partial(etcd_of, one), lambda found: not found["reachable"])
    await one.call("refresh", grant="app", wait=20)
    renewed = await one.get("app")
    assert renewed != token
    assert (await etcd_of(one))["unwritten"] == 1
    shown = (await brokerctl(one, "fleet")).stdout
    assert "1 record is not in etcd yet" in shown
    await fleet.cluster.repair()
    await until(partial(etcd_of, one), lambda found: not found["unwritten"])
    assert await one.get("app") == renewed


async def test_hosts_change_their_key_one_after_the_other_and_may_start_meanwhile(fleet: Hosts, tmp_path: Path) -> None:
    one, two = await fleet.started(2)
    await fleet.all_serve(await fleet.log_in(one))
    key_file.create(tmp_path / "new")
    for host in (one, two):  # as docs/fleet.md says
        previous = host.write(host.key.read_text(), "previous")
        host.write((tmp_path / "new").read_text(), "key")
        table = f'[daemon]\nprevious_key = {{ file = "{previous}" }}\n'
        host.write(host.config.read_text().replace("[daemon]\n", table))
        await host.stop()
        await host.start()
    await one.call("rotate_key")
    await one.call("refresh", grant="app")
    await fleet.all_serve(renewed := await one.get("app"))
    await two.stop()
    await two.start()
    await two.call("rotate_key")
    await two.call("refresh", grant="app")
    await fleet.all_serve(await two.get("app"))
    assert await two.get("app") != renewed
    for host in (one, two):
        (host.etc / "previous").unlink()
        host.write("\n".join(line for line in host.config.read_text().splitlines() if "previous_key" not in line))
        await host.stop()
        await host.start()
    await one.call("refresh", grant="app")
    await fleet.all_serve(await one.get("app"))
    assert fleet.provider.counts.reused == 0


async def test_a_host_with_another_key_does_not_start_and_says_what_to_do(fleet: Hosts) -> None:
    (one,) = await fleet.started(1)
    two = fleet.add()
    two.key.unlink()
    key_file.create(two.key)
    await two.refuses_to_start()
    assert "give every host of the fleet the same [daemon] key" in two.log
    assert "Traceback" not in two.log
    assert len((await view(one))["members"]) == 1


async def test_another_etcd_with_the_same_content_is_not_used_before_an_operator_adopts_it(
    fleet: Hosts, tmp_path: Path
) -> None:
    (one,) = await fleet.started(1)
    token = await fleet.log_in(one)
    with running(tmp_path / "restored") as other:
        await copied(fleet.cluster, other, f"/brokerd/{fleet.fleet}/".encode())
        await one.stop()
        two = fleet.add()
        for host in (one, two):
            fleet.configure(host, urls=other.urls, ca_file=str(other.ca_file))
            await host.start()
        assert await one.get("app") == token
        for host in (one, two):
            assert "was restored from a snapshot" in str((await checks(host))["store-adopted"])
            assert (await metrics(host))["brokerd_store_adopted"] == 0
            await host.said("event=etcd_not_adopted")
            assert "brokerctl adopt" in (await host.error("refresh", grant="app", wait=1))["message"]
        shown = await brokerctl(two, "fleet", "--exit-code")
        assert (shown.returncode, "then: brokerctl" in shown.stdout) == (5, True)
        assert (await brokerctl(one, "adopt")).returncode == 0
        await until(partial(checks, two), lambda failed: not failed)
        await two.call("refresh", grant="app")
        await fleet.all_serve(await two.get("app"))
        for host in (one, two):
            await host.stop()
    assert fleet.provider.counts.reused == 0


async def copied(cluster: Cluster, other: Cluster, root: bytes) -> None:
    """What a fleet has in its etcd, without what belongs to leases."""
    here = EtcdClient(cluster.urls, cluster.settings, SystemClock())
    there = EtcdClient(other.urls, other.settings, SystemClock())
    try:
        for key, pair in (await here.read_prefix(root)).pairs.items():
            if not pair.lease:
                await there.transact({}, {key: Put(pair.value)})
    finally:
        await here.aclose()
        await there.aclose()


@pytest.mark.slow
async def test_a_wrong_password_is_told_without_it_and_a_right_one_is_taken_without_a_restart(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    provider = await Serving(nursery)(OAuth2(oauth2.Settings(access_lifetime=3600)))
    with running(tmp_path / "guarded") as cluster:
        async with hosts(cluster, provider, nursery) as fleet:
            await cluster.require_users("brokerd", "test-only-right", f"/brokerd/{fleet.fleet}/".encode())
            one = fleet.add()
            password = one.write("test-only-wrong", "password")
            fleet.configure(one, user="brokerd", password={"file": password})
            await one.start()
            shown = await brokerctl(one, "fleet", "--exit-code")
            assert (shown.returncode, "check user and password in [store]" in shown.stdout) == (4, True), shown.stdout
            one.write("test-only-right", "password")
            await until(partial(view, one), lambda found: bool(found["members"]))
            await fleet.bring_login(one)
            await until(partial(refreshed, one), lambda done: done)
            said = shown.stdout + one.log + str(await view(one)) + (await one.call("metrics"))["text"]
            assert "test-only-wrong" not in said
            assert "test-only-right" not in said


@pytest.fixture
def small_cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path / "small", flags=("--quota-backend-bytes=4000000",)) as cluster:
        yield cluster


async def test_no_space_is_said_and_the_documented_commands_end_it(
    small_cluster: Cluster, nursery: trio.Nursery
) -> None:
    provider = await Serving(nursery)(OAuth2(oauth2.Settings(access_lifetime=3600)))
    async with hosts(small_cluster, provider, nursery) as fleet:
        (one,) = await fleet.started(1)
        token = await fleet.log_in(one)
        for _ in range(30):
            done = await small_cluster.etcdctl("put", "x", stdin=b"x" * 500_000)
            if b"space exceeded" in done.stderr:
                break
        assert "space" in (await one.error("refresh", grant="app", wait=5))["message"]
        await until(partial(etcd_of, one), lambda found: found["full"])
        assert await one.get("app") == token
        assert (await metrics(one))["brokerd_fleet_etcd_full"] == 1
        shown = await brokerctl(one, "fleet", "--exit-code")
        assert (shown.returncode, "etcdctl alarm disarm" in shown.stdout) == (5, True)
        said = json.loads((await small_cluster.etcdctl("endpoint", "status", "-w", "json")).stdout)
        revision = said[0]["Status"]["header"]["revision"]
        for words in (("compact", str(revision)), ("defrag",), ("alarm", "disarm")):
            assert (await small_cluster.etcdctl(*words)).returncode == 0
        await until(partial(refreshed, one), lambda done: done)
        await until(partial(etcd_of, one), lambda found: not found["full"])
        assert await one.get("app") != token


async def refused(host: Brokerd) -> str | None:
    """The code of the error, if a get has one."""
    try:
        await host.get("app", wait=0)
    except BrokerError as error:
        return error.code
    return None


async def refreshed(host: Brokerd) -> bool:
    try:
        await host.call("refresh", grant="app", wait=5)
    except BrokerError:
        return False
    return True
