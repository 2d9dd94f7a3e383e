# Which host of a fleet renews a grant by itself. Each host has points on a ring, and a grant belongs to the host whose
# point comes next (consistent hashing). A host that goes away moves only its own grants. The claim decides in any case.
from __future__ import annotations

import hashlib
from bisect import bisect
from collections.abc import Iterable, Iterator

STEP = 5.0  # seconds that each host after the first waits longer
MOST_STEPS = 6  # hosts that wait: whoever comes after them waits as long as the last
POINTS = 32  # of each host: so many give everybody a fair share


class Renewers:
    """Of these hosts."""

    def __init__(self, hosts: Iterable[str]) -> None:
        ring = sorted((_hash(f"{host}\0{number}"), host) for host in set(hosts) for number in range(POINTS))
        self._places = [place for place, _ in ring]
        self._hosts = [host for _, host in ring]

    def first(self, grant: str) -> str | None:
        """The host that renews the grant; None: there is no host."""
        return next(self._in_turn(grant), None)

    def rank(self, grant: str, host: str) -> int:
        """0: this host renews the grant by itself; 1: it does so if that one does not; and so on, up to MOST_STEPS."""
        before = 0
        for each in self._in_turn(grant):
            if each == host or before == MOST_STEPS:
                break
            before += 1
        return before

    def patience(self, grant: str, host: str, left: float | None) -> float:
        """Seconds that the host leaves to those before it. `left`: how long the token lives; at most a third of
        that."""
        wait = STEP * self.rank(grant, host)
        return wait if left is None else max(0.0, min(wait, left / 3))

    def _in_turn(self, grant: str) -> Iterator[str]:
        """The hosts in the order in which they come for the grant."""
        start, seen = bisect(self._places, _hash(grant)), set[str]()
        for number in range(len(self._hosts)):
            host = self._hosts[(start + number) % len(self._hosts)]
            if host not in seen:
                seen.add(host)
                yield host


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
