# What the hosts of a fleet know of the health of providers (law 7): what a provider said to one host
# counts for all. That a host cannot reach it is that host's own matter.
from __future__ import annotations

import contextlib

from brokerd.core.fleet.etcd import LeaseGone
from brokerd.core.fleet.layout import BreakerValue
from brokerd.core.ports import StoreError
from brokerd.core.timing.breaker import Breaker
from brokerd.edge.fleet.shared import Shared


def known(shared: Shared) -> dict[str, Breaker]:
    """By provider, in this host's terms."""
    prefix, found = shared.keys.breaker(""), dict[str, Breaker]()
    for key in [key for key in list(shared.mirror.pairs) if key.startswith(prefix)]:
        if (value := shared.value(key, BreakerValue)) is not None:
            found[shared.keys.kind(key)[1][0]] = shared.in_our_terms(key, value, value.breaker)
    return found


async def write(shared: Shared, provider: str, breaker: Breaker) -> None:
    """Unless another host has seen something newer, or etcd is away."""
    key = shared.keys.breaker(provider)
    value = BreakerValue(failures=breaker.failures, shut_until=breaker.shut_until, **shared.signed())
    with contextlib.suppress(StoreError, LeaseGone):
        await shared.transact({key: shared.modified(key)}, {key: shared.put(key, value)}, lambda _: 0)
