# Which host of a fleet renews a grant by itself: the one whose name and the grant's give the highest hash among the
# hosts that are there (rendezvous hashing). A host that goes away moves only its own grants. The claim decides in any
# case.
from __future__ import annotations

import hashlib
from collections.abc import Iterable

STEP = 5.0  # seconds that each host after the first waits longer
MOST_STEPS = 6  # hosts that wait: whoever comes after them waits as long as the last


def rank(grant: str, host: str, hosts: Iterable[str]) -> int:
    """0: this host renews the grant by itself; 1: it does so if that one does not; and so on."""
    mine = _weight(grant, host)
    return sum(1 for each in set(hosts) if each != host and _weight(grant, each) > mine)


def renewer(grant: str, hosts: Iterable[str]) -> str | None:
    """The host that renews the grant."""
    return max(hosts, key=lambda host: _weight(grant, host), default=None)


def patience(grant: str, host: str, hosts: Iterable[str], left: float | None) -> float:
    """Seconds that the host leaves to those before it. `left`: how long the token lives; at most a third of that."""
    wait = STEP * min(rank(grant, host, hosts), MOST_STEPS)
    return wait if left is None else max(0.0, min(wait, left / 3))


def _weight(grant: str, host: str) -> tuple[bytes, str]:
    return hashlib.blake2b(f"{host}\0{grant}".encode(), digest_size=8).digest(), host
