# What is wrong between this host and the etcd of its fleet, for people: how bad it is, and what to do. brokerctl and
# the page agree on it. Pure functions over what the method `status` answers (docs/protocol.md).
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from brokerd.core.grant.condition import Tone

BY_ITSELF = "brokerd goes on by itself when etcd answers; to see which server does not: brokerctl doctor"
MAKE_SPACE = "compact and defragment etcd, then: etcdctl alarm disarm"
PERMIT = "look at user, password and role in etcd: brokerctl doctor"


class FleetTrouble(NamedTuple):
    """`since`: in Unix seconds, if it is known. `remedy`: None: nothing is to be done."""

    tone: Tone
    words: str
    since: float | None
    remedy: str | None


def troubles(etcd: Mapping[str, Any], now: float) -> Iterator[FleetTrouble]:
    """The worst first. That the store is not adopted is said of the store itself."""
    why = f": {etcd['trouble']}" if etcd["trouble"] else ""
    if etcd["full"]:
        words = f"etcd has no space, so nothing is stored there and no stored token is sent{why}"
        yield FleetTrouble(Tone.BAD, words, etcd["since"], MAKE_SPACE)
    elif not etcd["reachable"]:
        ends = etcd["serves_until"]
        if ends is not None and ends <= now:
            words = "etcd has been away for longer than [store] offline allows, so no token is served"
            yield FleetTrouble(Tone.BAD, f"{words}{why}", etcd["since"], BY_ITSELF)
        else:
            words = f"etcd cannot be reached; tokens that live are served, and no stored token is sent{why}"
            yield FleetTrouble(Tone.WARN, words, etcd["since"], BY_ITSELF)
    elif etcd["trouble"]:
        yield FleetTrouble(Tone.BAD, f"etcd refuses what brokerd asks{why}", etcd["since"], PERMIT)
    if number := etcd["unwritten"]:
        words = f"{number} record{'' if number == 1 else 's'} not in etcd yet; brokerd tries again by itself"
        yield FleetTrouble(Tone.WARN, words, None, None)
