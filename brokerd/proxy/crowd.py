# How many connections clients may have, together and each user, so that no user takes the place of the others. Pure:
# users are ids.
from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

MOST = 10_240  # connections of all clients
SHARE = 4  # one user may have a fourth of them
SPARE = 128  # descriptors for everything else
REFUSED_FOR = 1.0  # seconds for which a user that was refused is refused again without a look
REMEMBERED = 1_000  # such users
EACH = 3  # descriptors of a connection: its socket, the process at its other end, and the connection to the upstream


class Crowd:
    """`leave` must follow each `enter` that returned no objection. Times are seconds of one clock."""

    def __init__(self, descriptors: int) -> None:
        self._most = max(SHARE, min(MOST, (descriptors - SPARE) // EACH))
        self._of_user: Counter[int] = Counter()
        self._strangers: dict[tuple[Hashable, int], float] = {}  # until when they are refused

    @property
    def number(self) -> int:
        return self._of_user.total()

    @property
    def most_of_user(self) -> int:
        return self._most // SHARE

    def enter(self, uid: int, place: Hashable, now: float) -> str | None:
        """One more connection of that user at that place. Why it cannot be: in words."""
        if self._strangers.get((place, uid), now) > now:
            return "this user may not use this proxy, and has just been told so"
        if self._of_user[uid] >= self.most_of_user:
            return f"expected at most {self.most_of_user} connections of one user; close some"
        if self.number >= self._most:
            return f"all {self._most} connections are taken; try again later"
        self._of_user[uid] += 1
        return None

    def refused(self, uid: int, place: Hashable, now: float) -> None:
        """No rule of that place describes the user. A crowd of such connections must cost no look at each."""
        if len(self._strangers) >= REMEMBERED:
            self._strangers.clear()
        self._strangers[place, uid] = now + REFUSED_FOR

    def forget_strangers(self) -> None:
        """The rules have changed."""
        self._strangers.clear()

    def leave(self, uid: int) -> None:
        self._of_user[uid] -= 1
        if not self._of_user[uid]:
            del self._of_user[uid]
