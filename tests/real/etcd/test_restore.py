# A real etcd that is restored from a snapshot, by the very commands of docs/fleet.md (law 15): the refresh token in the
# snapshot was replaced since, and nobody sends it.
from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.real.etcd.cluster import SIZE, Cluster, running
from tests.real.etcd.hosts import Hosts, hosts
from tests.real.etcd.test_operators import brokerctl, checks, etcd_of, metrics, until
from tests.scenario.daemon.harness import ROOT, Brokerd, Serving
from tests.servers import OAuth2, oauth2

pytestmark = pytest.mark.real


def documented(command: str, words: dict[str, str]) -> list[str]:
    """What follows `etcdctl` in the one such command of docs/fleet.md, with those words for its placeholders."""
    lines = (ROOT / "docs" / "fleet.md").read_text().replace("\\\n", " ").splitlines()
    (found,) = (line for line in lines if line.startswith("    ") and line.split()[:3] == command.split())
    return [words.get(each, each) for each in shlex.split(found)[1:]]


async def saved(cluster: Cluster, file: Path) -> None:
    done = await cluster.etcdctl(*documented("etcdctl snapshot save", {"FILE": str(file)}), server=0)
    assert done.returncode == 0, done.stderr


async def restored(cluster: Cluster, file: Path) -> None:
    """At the same addresses, into new data folders."""
    for number in range(SIZE):
        cluster.kill(number)
        cluster.data(number).rename(cluster.data(number).with_suffix(".before"))
        about = {"FILE": str(file), "DATA": str(cluster.data(number)), "NAME": cluster.name(number)}
        about |= {"PEER": cluster.peer_url(number), "TOKEN": "restored"}
        about |= {"NAME1=PEER1,NAME2=PEER2,NAME3=PEER3": cluster.members}
        done = await cluster.etcdctl(*documented("etcdctl snapshot restore", about))
        assert done.returncode == 0, done.stderr
    await cluster.repair()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running(tmp_path / "etcd") as made:
        yield made


async def waits_for_an_operator(host: Brokerd) -> None:
    """And each place says what is to be done."""
    await until(partial(etcd_of, host), lambda found: not found["adopted"])
    assert "was restored from a snapshot" in str((await checks(host))["store-adopted"])
    assert (await metrics(host))["brokerd_store_adopted"] == 0
    await host.said("event=etcd_not_adopted")
    assert "brokerctl adopt" in (await host.error("refresh", grant="app", wait=1))["message"]
    for words in (("fleet",), ("status",), ("doctor", "--offline", "--config", str(host.config))):
        shown = (await brokerctl(host, *words)).stdout
        assert "was restored from a snapshot" in shown, shown
        assert re.search(r"brokerctl (--\S+ \S+ )*adopt", shown), shown
    assert "fault of brokerd" not in host.log


async def test_after_a_real_restore_nothing_is_sent_until_an_operator_adopts_it(
    cluster: Cluster, tmp_path: Path, nursery: trio.Nursery
) -> None:
    provider = await Serving(nursery)(OAuth2(oauth2.Settings(access_lifetime=3600)))
    async with hosts(cluster, provider, nursery) as fleet:
        await renewed_restored_and_adopted(fleet, tmp_path / "snapshot")
    assert provider.counts.reused == 0


async def renewed_restored_and_adopted(fleet: Hosts, snapshot: Path) -> None:
    one, two = await fleet.started(2)
    await fleet.all_serve(await fleet.log_in(one))
    await saved(fleet.cluster, snapshot)
    await one.call("refresh", grant="app")  # the refresh token in the snapshot is dead now
    await fleet.all_serve(token := await one.get("app"))
    await restored(fleet.cluster, snapshot)
    asked = fleet.provider.count()
    await two.stop()
    await two.start()
    for host in (one, two):
        await waits_for_an_operator(host)
        assert await host.get("app") == token
    assert fleet.provider.count() == asked, "nothing was sent"
    done = await brokerctl(two, "adopt")
    assert done.returncode == 0, done.stderr
    for host in (one, two):
        await until(partial(checks, host), lambda failed: not failed)
    assert (await brokerctl(one, "fleet", "--exit-code")).returncode == 0
    assert await one.get("app") == await two.get("app") == token
    await two.call("refresh", grant="app", wait=20)
    await fleet.all_serve(renewed := await two.get("app"))
    assert renewed != token
    assert fleet.provider.count() == asked + 1
