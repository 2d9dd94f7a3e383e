# One cluster for all tests of this folder that a process runs. Who breaks something in it repairs it.
from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count

import pytest

from brokerd.edge.etcd.client import EtcdClient
from brokerd.edge.system.clock import SystemClock
from tests.real.etcd.cluster import Cluster, running
from tests.real.etcd.conformance import Subject

_numbers = count()


@pytest.fixture(scope="session")
def etcd_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster


def prefix() -> bytes:
    """One that no other test has."""
    return b"/brokerd/test-%d/" % next(_numbers)


@pytest.fixture
async def subject(etcd_cluster: Cluster) -> AsyncIterator[Subject]:
    urls, settings = etcd_cluster.urls, etcd_cluster.settings
    one = EtcdClient(urls, settings, SystemClock())
    other = EtcdClient(urls[1:] + urls[:1], settings, SystemClock())
    yield Subject(one, other, etcd_cluster.compact, prefix())
    await one.aclose()
    await other.aclose()
