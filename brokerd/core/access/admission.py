# How many connections and requests one user may have, so that no user slows down the others (law 13). Pure: users are
# ids, times are arguments. Root and the daemon's own user have no limits: an operator must always get in.
from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from brokerd.core.errors import Code, Failure

BURST = 1_000  # requests that a user may send at once before the rate counts: they take brokerd about 30 ms
# How many requests something counts as:
DENIAL = 20.0  # a request that the rules refuse: it is logged, and an honest program sends few
GLANCE = 0.1  # each look at a caller that takes microseconds
LOOK = 0.4  # each grant of a status, and each name that is looked up
DRAWN = 10.0  # each grant that is drawn on the page
RULE = 0.15  # each description of callers in the rules that is compared with a caller
ARRIVAL = 8.0  # a new connection: its process is pinned and attested
SIZE = 1024  # so many bytes of a message count as one request, and a message as one at least
ANSWERED = 16 * 1024  # so many bytes that are sent at once count as one request more
HASHED = 100_000  # so many hashed bytes of an executable count as one request; an executable may have 256 MiB
ARREARS = 1.0  # seconds; a user whose next request must wait longer gets no new connection
RETRY_AFTER = 1.0  # seconds
WARN_AGAIN = 60.0  # seconds between two lines in the log about the same user
KNOWN = 1_000  # accounts that are kept also without connections and without delay
SPARE_LEAST, SPARE_PART = 64, 8  # descriptors kept for providers, store and secrets: at least 64, or an eighth
EACH = 2  # descriptors of a connection: the socket, and the process at its other end
SHARED_PART = 2  # the part of what connections leave that shared tokens may have: a half; each has two at most as well
UNREAD_MOST = 64 * 1024 * 1024  # bytes of answers that a user may leave unread, over all connections
FOR_OPERATORS = 16  # further connections, so that `brokerctl status` always works


@dataclass(frozen=True, slots=True)
class Limits:
    """What all users may have together, and one user (None: half of it). The rate is in requests a second on
    average. `shared_tokens`: of all users together."""

    connections: int = 4_096
    connections_per_user: int | None = None
    waiting_per_user: int = 4_096
    rate_per_user: float = 5_000.0
    shared_tokens: int = 1_024

    def within(self, descriptors: int) -> Limits:
        """The limits of a process that may have `descriptors` open files."""
        room = (descriptors - max(SPARE_LEAST, descriptors // SPARE_PART)) // EACH - FOR_OPERATORS
        connections = max(1, min(self.connections, room))
        per_user = self.connections_per_user or max(1, connections // 2)
        left = descriptors - EACH * (connections + FOR_OPERATORS)
        shared = max(1, min(self.shared_tokens, left // SHARED_PART // EACH))
        return Limits(connections, min(per_user, connections), self.waiting_per_user, self.rate_per_user, shared)


@dataclass(eq=False, slots=True, weakref_slot=True)
class Account:
    """What one user has and may have. An operator has one for each connection, without limits."""

    most_connections: float = math.inf
    most_waiting: float = math.inf
    rate: float = math.inf
    most_unread: float = math.inf
    connections: int = 0
    waiting: int = 0
    unread: int = 0  # bytes of answers that its clients have not read
    _paid_until: float = -math.inf  # when the requests so far would have come, at the user's rate
    _warned_at: float = -math.inf

    def charge(self, requests: float, now: float) -> None:
        self._paid_until = max(self._paid_until, now) + requests / self.rate

    def delay(self, now: float) -> float:
        """Seconds until brokerd reads the user's next request."""
        return max(0.0, self._paid_until - now - BURST / self.rate)

    def wait(self, requests: int) -> None:
        """More requests of the user wait, until `answered` is called for them. Raises Failure."""
        if self.waiting + requests > self.most_waiting:
            words = f"expected at most {self.most_waiting} waiting requests of a user, found {self.waiting}"
            raise _refused(words, "max_waiting_per_user")
        self.waiting += requests

    def answered(self, requests: int) -> None:
        self.waiting -= requests

    def is_worth_logging(self, now: float) -> bool:
        """Whether to log that the user was refused; not each time, or the log would fill the disk."""
        if now - self._warned_at < WARN_AGAIN:
            return False
        self._warned_at = now
        return True


class Admission:
    """Counts connections. `leave` must follow each `enter` that returned None."""

    def __init__(self, limits: Limits, own_uid: int) -> None:
        self._limits = limits
        self._operators = frozenset((0, own_uid))
        self._accounts: dict[int, Account] = {}
        self._connections = 0

    def account(self, uid: int, now: float) -> Account:
        """The user's account: one for all connections of the user. An operator gets a new one each time."""
        if uid in self._operators:
            return Account()
        if (known := self._accounts.get(uid)) is not None:
            return known
        if len(self._accounts) >= KNOWN:
            accounts = self._accounts.items()
            self._accounts = {uid: each for uid, each in accounts if each.connections or each.delay(now)}
        limits = self._limits
        most = limits.connections_per_user or limits.connections
        made = self._accounts[uid] = Account(most, limits.waiting_per_user, limits.rate_per_user, UNREAD_MOST)
        return made

    def enter(self, account: Account, now: float) -> Failure | None:
        """One more connection; its user is charged. Returns why it may not come in, else None."""
        if account.delay(now) >= ARREARS:
            return _TOO_FAST
        if account.connections >= account.most_connections:
            return _too_many_of(account.most_connections)
        if self._connections >= self._limits.connections and account.most_connections < math.inf:
            return _too_many(self._limits.connections)
        account.charge(ARRIVAL, now)
        account.connections += 1
        self._connections += 1
        return None

    def leave(self, account: Account) -> None:
        account.connections -= 1
        self._connections -= 1


def _refused(words: str, key: str) -> Failure:
    return Failure(Code.LIMIT, f"{words}; close some, or raise [daemon] {key}", retry_after=RETRY_AFTER)


# Made once and never raised, so that refusing a flood of connections costs little.
_TOO_FAST = _refused("this user makes more requests and connections than allowed", "max_rate_per_user")


@lru_cache(maxsize=8)
def _too_many_of(most: float) -> Failure:
    return _refused(f"expected at most {most} connections of a user", "max_connections_per_user")


@lru_cache(maxsize=8)
def _too_many(most: int) -> Failure:
    return _refused(f"all {most} connections are taken", "max_connections")
