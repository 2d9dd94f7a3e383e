# What is wrong between this host and the etcd of its fleet, for people: how bad it is, and what to do. brokerctl and
# the page agree on it. Pure functions over what the method `status` answers (docs/protocol.md).
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from brokerd.core.grant.condition import Tone

BY_ITSELF = "brokerd goes on by itself when etcd answers; to see which server does not: brokerctl doctor"
MAKE_SPACE = "compact and defragment etcd, then: etcdctl alarm disarm"
STOPPED = "tokens that live are served, and no stored token is sent"
OVER = "no token is served, because that is longer than [store] offline allows"
LOOK = "brokerctl doctor"


class FleetTrouble(NamedTuple):
    """`what` is wrong, `since` when (Unix seconds, if that is known), `why`, what comes `then`, and the `remedy`. ""
    where there is nothing to say."""

    tone: Tone
    what: str
    since: float | None
    why: str
    then: str
    remedy: str

    def sentence(self, when: str) -> str:
        """`when`: "for 4 min, since 19:11:40", or nothing."""
        why = f" ({self.why})" if self.why else ""
        then = f"; {self.then}" if self.then else ""
        return f"{self.what}{' ' if when else ''}{when}{why}{then}"


def troubles(etcd: Mapping[str, Any], now: float) -> Iterator[FleetTrouble]:
    """The worst first. That the store is not adopted is said of the store itself. What etcd's error says is to be done
    is the remedy."""
    since, (why, named) = etcd["since"], _remedied(etcd["trouble"] or "")
    if etcd["full"]:
        yield FleetTrouble(Tone.BAD, "etcd has no space", since, "", STOPPED, MAKE_SPACE)
    elif not etcd["reachable"]:
        ends = etcd["serves_until"]
        over = ends is not None and ends <= now
        tone, then = (Tone.BAD, OVER) if over else (Tone.WARN, STOPPED)
        yield FleetTrouble(tone, "etcd cannot be reached", since, why, then, named or BY_ITSELF)
    elif why:
        yield FleetTrouble(Tone.BAD, "this host cannot work with the fleet", None, why, STOPPED, named or LOOK)
    if number := etcd["unwritten"]:
        words = f"{number} record{' is' if number == 1 else 's are'} not in etcd yet"
        yield FleetTrouble(Tone.WARN, words, None, "", "brokerd tries again by itself", "")


def _remedied(trouble: str) -> tuple[str, str]:
    """The words, and what they say is to be done. Behind a semicolon there may be another server."""
    words, remedy, *_ = (*re.split(r"(?:;(?! etcd )|\.) (?=[a-zA-Z])", trouble, maxsplit=1), "")
    return words, remedy[:1].lower() + remedy[1:]
