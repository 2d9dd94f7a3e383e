# The memories of shared tokens: how many there may be, of one user and of all, and when those that are closed are free
# again. A closed one counts until its caller has released it: its memory and its descriptor are still brokerd's.
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import islice

import trio

from brokerd.core.access.admission import KNOWN, RETRY_AFTER
from brokerd.core.errors import Code, Failure
from brokerd.core.ports import TokenMemory
from brokerd.core.shared_token import SIZE

PART_OF_USER = 4  # a user may have one fourth of all
AT_ONCE = 8  # closed ones that are looked at for one request: a request costs no more than it is charged (law 13)
# Who has a memory can keep its pages for ever, in pipes (splice(2)). They hold no token any more, but they count as
# brokerd's, and the kernel does not say that somebody has them. So a user may ask for these many at once, and for one
# more after each pause.
MADE_AT_ONCE, MADE_EACH = 512, 10.0


class TokenMemories:
    """`new_memory` makes one. `most`: of all users."""

    def __init__(self, new_memory: Callable[[int], TokenMemory], most: int) -> None:
        self._new_memory = new_memory
        self._most = most
        self._of_user = Counter[int]()
        self._number = 0
        self._paid_until: dict[int, float] = {}  # by user: when those so far would have been made, with a pause each
        self._closed: dict[TokenMemory, int] = {}  # those that may still be held, with their user

    def make(self, grant: str, uid: int, *, limited: bool) -> tuple[TokenMemory, int]:
        """A memory, and a descriptor of it for its caller. `limited`: whether the user may have only its part of all.
        Raises Failure."""
        self._check_room(uid, limited)
        if limited:
            self._charge(uid, trio.current_time())
        memory = None
        try:
            memory = self._new_memory(SIZE)
            descriptor = memory.descriptor()
        except OSError as error:
            if memory is not None:
                memory.stop_writing()
                memory.close()
            words = f"{grant}: brokerd has no memory or descriptors for a shared token: {error.strerror}; ask by get"
            raise Failure(Code.LIMIT, words, grant, RETRY_AFTER) from None
        self._of_user[uid] += 1
        self._number += 1
        return memory, descriptor

    def _check_room(self, uid: int, limited: bool) -> None:
        """Raises Failure."""
        most_of_user = max(1, self._most // PART_OF_USER)
        if limited and self._of_user[uid] >= most_of_user:
            self._forget([memory for memory, owner in self._closed.items() if owner == uid][:AT_ONCE])
            if self._of_user[uid] >= most_of_user:
                raise full(f"{most_of_user} shared tokens of a user")
        if self._number >= self._most:
            self.forget_released()
            if self._number >= self._most:
                raise full(f"{self._most} shared tokens")

    def _charge(self, uid: int, now: float) -> None:
        """Raises Failure."""
        paid = max(now, self._paid_until.get(uid, -math.inf))
        if paid - now > MADE_EACH * (MADE_AT_ONCE - 1):
            words = (
                f"expected at most {MADE_AT_ONCE} new shared tokens of a user at once, and one in {MADE_EACH:g} s then"
            )
            raise Failure(Code.LIMIT, f"{words}; ask by get", retry_after=MADE_EACH)
        if len(self._paid_until) >= KNOWN:
            self._paid_until = {each: until for each, until in self._paid_until.items() if until > now}
        self._paid_until[uid] = paid + MADE_EACH

    def close(self, memory: TokenMemory, uid: int) -> None:
        """Nothing is written to it any more."""
        memory.stop_writing()
        self._closed[memory] = uid

    @property
    def has_closed(self) -> bool:
        """Whether there are closed ones that may still be held."""
        return bool(self._closed)

    def forget_released(self) -> None:
        """Look at some closed ones, those first that were looked at longest ago."""
        self._forget([*islice(self._closed, AT_ONCE)])

    def _forget(self, memories: list[TokenMemory]) -> None:
        for memory in memories:
            uid = self._closed.pop(memory)
            if memory.is_held():
                self._closed[memory] = uid
                continue
            memory.close()
            self._number -= 1
            self._of_user[uid] -= 1
            if not self._of_user[uid]:
                del self._of_user[uid]


def full(words: str) -> Failure:
    return Failure(
        Code.LIMIT,
        f"expected at most {words}, also closed ones that somebody still has open or mapped",
        retry_after=RETRY_AFTER,
    )
