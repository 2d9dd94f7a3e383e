# The Etcd port over the JSON gateway: which request does what. asking.py decides which server is asked, and which error
# a failure is; core/fleet/gateway_json.py reads and writes the JSON.
from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

from brokerd.core.fleet import gateway_json
from brokerd.core.fleet.etcd import Changes, Compacted, EtcdAway, EtcdRefused, Found, LeaseGone, Pair, Put, Transacted
from brokerd.core.ports import Clock
from brokerd.edge.etcd.asking import Asking, Effect, PageTooLarge, name_of
from brokerd.edge.etcd.login import EtcdUser
from brokerd.edge.etcd.watching import watching
from brokerd.edge.http.connection import HttpSettings

PAGE = 500  # keys
ALL = 1 << 30  # bytes of all that is read together
EACH = 300  # bytes that a pair costs besides
READ, TRANSACT, GRANT = "/v3/kv/range", "/v3/kv/txn", "/v3/lease/grant"
KEEP_ALIVE, REVOKE = "/v3/lease/keepalive", "/v3/lease/revoke"


class EtcdClient:
    """`urls`: the servers of one cluster, as https://host:port. The timeouts of `settings` do not count."""

    def __init__(self, urls: Sequence[str], settings: HttpSettings, clock: Clock, user: EtcdUser | None = None) -> None:
        self._asking = Asking(urls, settings, user, clock)

    @property
    def server(self) -> str:
        """Which server is asked now."""
        return self._asking.servers.current

    async def aclose(self) -> None:
        await self._asking.aclose()

    async def read(self, keys: Iterable[bytes]) -> Found:
        wanted = tuple(dict.fromkeys(keys))
        return await self._once_more(partial(self._read, wanted))

    async def read_prefix(self, prefix: bytes) -> Found:
        return await self._once_more(partial(self._pages, prefix))

    async def transact(self, expected: Mapping[bytes, int], changes: Mapping[bytes, Put | None]) -> Transacted:
        body, keys = gateway_json.transaction(expected, changes), tuple(expected)
        return await self._asking.ask(TRANSACT, body, partial(gateway_json.transacted, expected=keys), Effect.ONCE)

    async def grant_lease(self, seconds: int) -> tuple[int, float]:
        body = gateway_json.lease_request(seconds)
        return await self._asking.ask(GRANT, body, gateway_json.lease, Effect.ONCE, urgent=True)

    async def keep_alive(self, lease: int) -> float:
        body = gateway_json.of_lease(lease)
        left = await self._asking.ask(KEEP_ALIVE, body, gateway_json.seconds_left, Effect.SAME_TWICE, urgent=True)
        if not left:
            raise LeaseGone(f"etcd {name_of(self.server)}: the lease has ended")
        return left

    async def end_lease(self, lease: int) -> None:
        try:
            await self._asking.ask(REVOKE, gateway_json.of_lease(lease), gateway_json.revoked, Effect.SAME_TWICE)
        except LeaseGone:
            return  # it has ended already

    def watch(self, prefix: bytes, since: int) -> AbstractAsyncContextManager[AsyncIterator[Changes]]:
        return watching(self._asking, prefix, since)

    async def _once_more(self, read: Callable[[], Awaitable[Found]]) -> Found:
        """If a compaction comes between two of its parts, reading begins again."""
        for _ in range(2):
            with contextlib.suppress(Compacted):
                return await read()
        words = "twice a compaction came while everything was read; let etcd compact less often"
        raise EtcdAway(f"etcd {name_of(self.server)}: {words}")

    async def _read(self, keys: Sequence[bytes]) -> Found:
        pairs: dict[bytes, Pair] = {}
        revision = cluster = 0
        for begin in range(0, len(keys) or 1, gateway_json.OPERATIONS):
            body = gateway_json.read_request(keys[begin : begin + gateway_json.OPERATIONS], revision)
            wanted = frozenset(keys[begin : begin + gateway_json.OPERATIONS])
            part = await self._asking.ask(TRANSACT, body, partial(gateway_json.found, wanted=wanted))
            pairs.update(part.pairs)
            revision, cluster = revision or part.revision, part.cluster
        return Found(pairs, revision, cluster)

    async def _pages(self, prefix: bytes) -> Found:
        pairs: dict[bytes, Pair] = {}
        begin, end, limit, revision, size = prefix, gateway_json.end_of(prefix), PAGE, 0, 0
        while True:
            body = gateway_json.page_request(begin, end, limit, revision)
            read = partial(gateway_json.page, begin=begin, prefix=prefix)
            try:
                part, is_more = await self._asking.ask(READ, body, read)
            except PageTooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 8)
                continue
            pairs.update(part.pairs)
            size += sum(EACH + len(key) + len(pair.value) for key, pair in part.pairs.items())
            if size > ALL:
                raise EtcdRefused(f"there is more than {ALL >> 20} MiB below {prefix.decode(errors='replace')} in etcd")
            revision = revision or part.revision
            if not is_more:
                return Found(pairs, revision, part.cluster)
            begin = max(part.pairs) + b"\x00"
