# The memories of shared tokens: how many there may be, of one user and of all, and when those that are closed are free
# again. A closed one counts until its caller has released it: its memory and its descriptor are still brokerd's.
from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice

from brokerd.core.access.admission import RETRY_AFTER
from brokerd.core.errors import Code, Failure
from brokerd.core.ports import TokenMemory
from brokerd.core.shared_token import SIZE

PART_OF_USER = 4  # a user may have one fourth of all
AT_ONCE = 8  # closed ones that are looked at for one request: a request costs no more than it is charged (law 13)


class TokenMemories:
    """`new_memory` makes one. `most`: of all users."""

    def __init__(self, new_memory: Callable[[int], TokenMemory], most: int) -> None:
        self._new_memory = new_memory
        self._most = most
        self._of_user = Counter[int]()
        self._number = 0
        self._closed: dict[TokenMemory, int] = {}  # those that may still be held, with their user

    def make(self, grant: str, uid: int, *, limited: bool) -> tuple[TokenMemory, int]:
        """A memory, and a descriptor of it for its caller. `limited`: whether the user may have only its part of all.
        Raises Failure."""
        self._check_room(uid, limited)
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

    def close(self, memory: TokenMemory, uid: int) -> None:
        """Nothing is written to it any more."""
        memory.stop_writing()
        self._closed[memory] = uid

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
