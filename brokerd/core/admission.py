# Who is let in, and how much one user may ask for, so that he costs nobody but himself (law 13). Pure: users are ids,
# times are arguments. Root and the daemon's own user are never refused or slowed: an operator has to get in.
from __future__ import annotations

import math
from dataclasses import dataclass

from brokerd.core.failure import Code, Failure

BURST = 1_000  # requests that a user may send at once before his rate counts: some 30 ms of ours
DENIAL = 20.0  # requests as which one counts that the rules refuse: it is logged, and nobody honest sends many
LOOK = 0.35  # requests as which each grant of a status counts, and each name that is looked up
RULE = 0.15  # and each description of callers, in rules, that is compared with one
ARRIVAL = 8.0  # requests as which a new connection counts: its process is pinned and attested
SIZE = 1024  # bytes of one request: what comes at once counts as one for each, but as one at least
HASHED = 100_000  # bytes of an executable that are hashed count as one: an executable may have 256 MiB
ARREARS = 1.0  # seconds; who would have to be heard later than that makes no new connection
RETRY_AFTER = 1.0  # seconds
WARN_AGAIN = 60.0  # seconds between two lines in the log about the same user
KNOWN = 1_000  # users who are remembered whether or not they have or owe anything
SPARE_LEAST, SPARE_PART = 64, 8  # descriptors kept for providers, store and secrets: at least, and one in so many
EACH = 2  # descriptors of a connection: the socket, and the process at its other end
FOR_OPERATORS = 16  # connections beyond everybody's, so that `brokerctl status` works however many there are


@dataclass(frozen=True, slots=True)
class Limits:
    """What everybody may have together, and one user of it (None: half); `rate`: requests a second on average."""

    connections: int = 4_096
    connections_per_user: int | None = None
    waiting_per_user: int = 4_096
    rate_per_user: float = 5_000.0

    def within(self, descriptors: int) -> Limits:
        """The limits of a process that may have so many descriptors."""
        room = (descriptors - max(SPARE_LEAST, descriptors // SPARE_PART)) // EACH - FOR_OPERATORS
        connections = max(1, min(self.connections, room))
        per_user = self.connections_per_user or max(1, connections // 2)
        return Limits(connections, min(per_user, connections), self.waiting_per_user, self.rate_per_user)


@dataclass(eq=False, slots=True, weakref_slot=True)
class Account:
    """What one user has and owes. Without limits, and for one connection alone, an operator's."""

    most_connections: float = math.inf
    most_waiting: float = math.inf
    rate: float = math.inf
    connections: int = 0
    waiting: int = 0
    _paid_until: float = -math.inf  # when his requests would have come, at his rate
    _warned_at: float = -math.inf

    def charge(self, requests: float, now: float) -> None:
        self._paid_until = max(self._paid_until, now) + requests / self.rate

    def delay(self, now: float) -> float:
        """Seconds before he may be heard again; 0: now."""
        return max(0.0, self._paid_until - now - BURST / self.rate)

    def wait(self, requests: int) -> None:
        """So many more of his requests wait; each is given back with `answered`. Raises Failure."""
        if self.waiting + requests > self.most_waiting:
            words = f"expected at most {self.most_waiting} waiting requests of a user, found {self.waiting}"
            raise _refused(words, "max_waiting_per_user")
        self.waiting += requests

    def answered(self, requests: int) -> None:
        self.waiting -= requests

    def worth_a_word(self, now: float) -> bool:
        """Whether the log should say that he was refused: he must not fill the disk."""
        if now - self._warned_at < WARN_AGAIN:
            return False
        self._warned_at = now
        return True


class Admission:
    """Counts connections. Whoever enters leaves."""

    def __init__(self, limits: Limits, own_uid: int) -> None:
        self._limits = limits
        self._operators = frozenset((0, own_uid))
        self._accounts: dict[int, Account] = {}
        self._connections = 0

    def account(self, uid: int, now: float) -> Account:
        """The user's account: one for all his connections; an operator's, one for each."""
        if uid in self._operators:
            return Account()
        if (known := self._accounts.get(uid)) is not None:
            return known
        if len(self._accounts) >= KNOWN:
            accounts = self._accounts.items()
            self._accounts = {uid: each for uid, each in accounts if each.connections or each.delay(now)}
        limits = self._limits
        most = limits.connections_per_user or limits.connections
        made = self._accounts[uid] = Account(most, limits.waiting_per_user, limits.rate_per_user)
        return made

    def enter(self, account: Account, now: float) -> None:
        """One more connection, which its user is charged for. Raises Failure."""
        if account.delay(now) >= ARREARS:
            raise _refused("this user asks and connects more often than it may", "max_rate_per_user")
        if account.connections >= account.most_connections:
            words = f"expected at most {account.most_connections} connections of a user"
            raise _refused(words, "max_connections_per_user")
        if self._connections >= self._limits.connections and account.most_connections < math.inf:
            words = f"all {self._limits.connections} connections are taken"
            raise _refused(words, "max_connections")
        account.charge(ARRIVAL, now)
        account.connections += 1
        self._connections += 1

    def leave(self, account: Account) -> None:
        account.connections -= 1
        self._connections -= 1


def _refused(words: str, key: str) -> Failure:
    return Failure(Code.LIMIT, f"{words}; close some, or raise [daemon] {key}", retry_after=RETRY_AFTER)
