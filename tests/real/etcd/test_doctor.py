# brokerctl doctor at a real cluster: all is well, and each thing that is wrong in one place.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from brokerd.config.settings import Configuration, StoreSettings
from brokerd.core.secret import SecretSource
from brokerd.doctor import etcd
from brokerd.doctor.finding import Finding
from brokerd.edge.etcd.client import EtcdClient
from brokerd.edge.system.clock import SystemClock
from tests.real.etcd.cluster import SIZE, Cluster, running
from tests.unit.doctor.test_findings import FACTS

pytestmark = pytest.mark.real
USER, PASSWORD = "brokerd", "test-only-password"
ROOT = b"/brokerd/doctor/"


def settings(cluster: Cluster, **more: object) -> StoreSettings:
    about: dict[str, object] = {"fleet": "doctor", "name": "one", "ca_file": str(cluster.ca_file), **more}
    return StoreSettings(tuple(cluster.urls), **about)  # type: ignore[arg-type]


async def asked(store: StoreSettings) -> list[Finding]:
    found: list[Finding] = []
    facts = replace(FACTS, configuration=Configuration("/etc/x", store=store))
    await etcd.ask(store, facts, SystemClock(), found.append)
    return found


def troubles(found: list[Finding]) -> list[tuple[str, str]]:
    return [(each.check, str(each.level)) for each in found if each.level != "ok"]


async def test_a_cluster_that_is_well_and_nothing_is_written(etcd_cluster: Cluster) -> None:
    store = settings(etcd_cluster)
    found = await asked(store)
    assert troubles(found) == []
    assert [each.check for each in found] == ["tls", "etcd", "etcd"] * SIZE
    assert "is etcd 3." in found[1].found
    assert found[2].found == f"{etcd_cluster.urls[0]}: the keys below /brokerd/doctor/ may be read and written"
    client = EtcdClient(etcd_cluster.urls, etcd_cluster.settings, SystemClock())
    try:
        assert (await client.read_prefix(ROOT)).pairs == {}
    finally:
        await client.aclose()


async def test_a_server_that_is_down_is_named_and_the_others_are_well(etcd_cluster: Cluster) -> None:
    etcd_cluster.kill(1)
    try:
        found = await asked(settings(etcd_cluster))
    finally:
        await etcd_cluster.repair()
    assert troubles(found) == [("connection", "problem")]
    assert str(etcd_cluster.urls[1]).partition("://")[2] in next(e.found for e in found if e.level == "problem")


async def test_without_its_authority_the_certificates_are_refused(etcd_cluster: Cluster) -> None:
    found = await asked(settings(etcd_cluster, ca_file=None))
    assert troubles(found) == [("tls", "problem")] * SIZE


async def test_servers_of_two_clusters_are_told(etcd_cluster: Cluster, tmp_path: Path) -> None:
    with running(tmp_path / "other") as other:
        both = tmp_path / "both.pem"
        both.write_bytes(etcd_cluster.ca_file.read_bytes() + other.ca_file.read_bytes())
        store = replace(settings(etcd_cluster, ca_file=str(both)), etcd=(etcd_cluster.urls[0], other.urls[0]))
        found = await asked(store)
    assert troubles(found) == [("etcd", "problem")]
    assert "the servers are not of one cluster" in found[-1].found


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("guarded")) as cluster:
        yield cluster


async def test_a_user_needs_its_password_and_the_keys_of_the_fleet(guarded: Cluster, tmp_path: Path) -> None:
    await guarded.require_users(USER, PASSWORD, ROOT)
    file = tmp_path / "password"
    file.touch(0o600)
    file.write_text(PASSWORD)
    right = settings(guarded, user=USER, password=SecretSource(file=str(file)))
    assert troubles(await asked(right)) == []
    elsewhere = await asked(replace(right, fleet="elsewhere"))
    assert troubles(elsewhere) == [("etcd", "problem")] * SIZE
    told = next(each for each in elsewhere if each.level == "problem")
    assert "permission denied" in told.found
    assert "etcdctl role grant-permission ROLE readwrite --prefix=true /brokerd/elsewhere/" in str(told.remedy)
    without = await asked(settings(guarded))
    assert "user and password in [store]" in str(next(each.remedy for each in without if each.level == "problem"))
    file.write_text("test-only-wrong")
    wrong = await asked(right)
    assert troubles(wrong) == [("etcd", "problem")] * SIZE
    assert "authentication failed" in next(each.found for each in wrong if each.level == "problem")
    said = " ".join(f"{each.found} {each.remedy}" for each in (*elsewhere, *without, *wrong))
    assert "test-only-wrong" not in said
    assert PASSWORD not in said
    missing = await asked(replace(right, password=SecretSource(file=str(tmp_path / "gone"))))
    assert [each.found for each in missing if each.level == "warning"] == [
        "you may not read the password of [store], so it was not checked"
    ]
