# A cluster that wants client certificates and users: logging in, and again when the token counts no longer; what people
# configure wrongly. No error shows the password.
from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest
import trio

from brokerd.core.fleet.etcd import EtcdAway, EtcdRefused, Put
from brokerd.core.secret import Secret
from brokerd.edge.etcd.client import EtcdClient
from brokerd.edge.etcd.login import EtcdUser
from brokerd.edge.system.clock import SystemClock
from tests.real.etcd.cluster import Cluster, running

pytestmark = pytest.mark.real
PREFIX, KEY = b"/brokerd/fleet/", b"/brokerd/fleet/a"


@dataclass
class Password:
    """What a file would hold."""

    text: str
    reads: int = 0

    async def __call__(self) -> Secret:
        self.reads += 1
        return Secret(self.text)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("users"), mutual=True) as cluster:
        trio.run(cluster.require_users, "brokerd", "hunter2", PREFIX)
        yield cluster


@asynccontextmanager
async def client(cluster: Cluster, password: Password | None, **more: object) -> AsyncIterator[EtcdClient]:
    user = None if password is None else EtcdUser("brokerd", password)
    made = EtcdClient(cluster.urls, replace(cluster.settings, **more), SystemClock(), user)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.aclose()


async def refusal(etcd: EtcdClient, key: bytes = KEY) -> str:
    with pytest.raises(EtcdRefused) as caught:
        await etcd.transact({}, {key: Put(b"1")})
    error = caught.value
    assert error.__context__ is None
    assert "hunter" not in str(error)
    return str(error)


async def test_a_user_may_do_what_its_role_allows(guarded: Cluster) -> None:
    async with client(guarded, password := Password("hunter2")) as etcd:
        done = await etcd.transact({}, {KEY: Put(b"1")})
        assert (await etcd.read_prefix(PREFIX)).pairs[KEY].modified == done.revision
        async with etcd.watch(PREFIX, done.revision) as changes:
            assert (await anext(changes)).revision == done.revision
        assert "permission denied. Set user and password in [store], and give" in await refusal(etcd, b"/elsewhere")
        with pytest.raises(EtcdRefused, match="permission denied"):
            async with etcd.watch(b"/elsewhere", 1):
                pass
    assert password.reads <= 3  # once more for each watch that was not permitted


async def test_many_requests_log_in_once(guarded: Cluster) -> None:
    async with client(guarded, password := Password("hunter2")) as etcd, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(etcd.read, [KEY])
    assert password.reads == 1


async def test_without_a_user_it_says_what_to_set(guarded: Cluster) -> None:
    async with client(guarded, None) as etcd:
        assert "Set user and password in [store]" in await refusal(etcd)


async def test_a_wrong_password_is_refused_until_it_changes(guarded: Cluster) -> None:
    async with client(guarded, password := Password("hunter3")) as etcd:
        for _ in range(2):
            assert "Check user and password in [store]" in await refusal(etcd)
        password.text = "hunter2"
        assert (await etcd.transact({}, {KEY: Put(b"1")})).done


async def test_a_new_password_is_read_when_the_old_token_counts_no_longer(guarded: Cluster) -> None:
    async with client(guarded, password := Password("hunter2")) as etcd:
        since = (await etcd.transact({}, {KEY: Put(b"1")})).revision
        new = {"name": "brokerd", "password": "hunter4"}
        await guarded.admin("/v3/auth/user/changepw", new, await guarded.root())
        try:
            assert "Check user and password in [store]" in await refusal(etcd)
            password.text = "hunter4"
            async with etcd.watch(PREFIX, since) as changes:
                assert (await anext(changes)).revision == since
        finally:
            await guarded.admin("/v3/auth/user/changepw", {**new, "password": "hunter2"}, await guarded.root())


@pytest.mark.parametrize("asks_first", ["watch", "read", "transact"])
async def test_nobody_notices_that_a_token_counts_no_longer(guarded: Cluster, asks_first: str) -> None:
    async with client(guarded, password := Password("hunter2")) as etcd:
        since = (await etcd.transact({}, {KEY: Put(b"1")})).revision
        server = etcd.server
        same = {"name": "brokerd", "password": "hunter2"}
        await guarded.admin("/v3/auth/user/changepw", same, await guarded.root())  # which ends its tokens
        match asks_first:
            case "read":
                assert (await etcd.read([KEY])).pairs
            case "transact":
                assert (await etcd.transact({KEY: since}, {KEY: Put(b"2")})).done
        async with etcd.watch(PREFIX, since) as changes:
            assert (await anext(changes)).revision == since
        assert etcd.server == server
    assert password.reads == 2


async def test_a_client_without_a_certificate_is_told_which_one_to_name(guarded: Cluster) -> None:
    async with client(guarded, Password("hunter2"), cert_file=None, key_file=None) as etcd:
        with pytest.raises(EtcdAway, match="certificate"):
            await etcd.read([KEY])


async def test_a_certificate_with_a_common_name_is_refused_with_a_remedy(guarded: Cluster) -> None:
    cert_file, key_file = guarded.certified("named", "named.test", common_name="brokerd")
    async with client(guarded, Password("hunter2"), cert_file=cert_file, key_file=key_file) as etcd:
        assert "CommonName" in await refusal(etcd)
