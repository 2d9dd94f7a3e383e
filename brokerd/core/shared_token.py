# What the memory of a shared token holds, and in which order it is written (docs/shared-token.md): a token that its
# reader can check without a lock and without a memory barrier. Pure: memory, times and tokens are arguments.
from __future__ import annotations

import math
import struct
from binascii import crc32
from enum import IntEnum
from typing import NamedTuple

LAYOUT = 1
MAGIC = b"brokerd" + bytes([LAYOUT])
SIZE = 64 * 1024  # bytes of the memory; only those that are used cost any
HEAD = struct.Struct("=IIIIQdd")  # state, lengths of value and rest, nothing, generation, expiry, lifetime
BEAT, CHECKSUM, SEQUENCE, CONTENT = 8, 16, 24, 32  # where these begin; the magic is at 0
PAYLOAD = CONTENT + HEAD.size
ROOM = SIZE - PAYLOAD  # bytes for value and rest together
BEAT_EVERY, BEAT_LASTS = 0.25, 1.0  # seconds: a reader believes nothing if the last beat is older than that


class SharedState(IntEnum):
    """`NONE`: there is no token here now; `get` says why, or brings one. `CLOSED`: nothing will ever follow."""

    TOKEN = 1
    NONE = 2
    CLOSED = 3


class Content(NamedTuple):
    """What a reader finds. `expires` is on CLOCK_BOOTTIME, in seconds; it and `lifetime` are inf if they are not known.
    `rest`: what `get` says of the token besides grant, value and expiry, as MessagePack."""

    state: SharedState
    generation: int = 0
    expires: float = math.inf
    lifetime: float = math.inf
    value: bytes = b""
    rest: bytes = b""

    @property
    def fits(self) -> bool:
        return len(self.value) + len(self.rest) <= ROOM


NO_TOKEN, NO_MORE = Content(SharedState.NONE), Content(SharedState.CLOSED)


class SharedTokenWriter:
    """Writes to the memory of one shared token, which nobody else writes to.

    A reader that sees the same even sequence before and after, and the right checksum, has copied one whole content.
    The sequence and the beat are each written by one store of 8 bytes. That these stores can be seen in another order
    than they were made does no harm: the checksum covers the sequence too."""

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self._numbers = memory.cast("Q")
        self._times = memory.cast("d")
        self._end = PAYLOAD  # of what was written
        memory[: len(MAGIC)] = MAGIC
        self.write(NO_TOKEN)

    def write(self, content: Content) -> None:
        """Replace the content, and overwrite what the one before had more."""
        memory, numbers = self._memory, self._numbers
        sequence = numbers[SEQUENCE // 8]
        bytes_after = packed(content)
        end = CONTENT + len(bytes_after)
        numbers[SEQUENCE // 8] = sequence + 1  # odd: do not believe what you read
        memory[CONTENT:end] = bytes_after
        if end < self._end:
            memory[end : self._end] = bytes(self._end - end)
        self._end = end
        memory[CHECKSUM : CHECKSUM + 4] = checksum(sequence + 2, bytes_after)
        numbers[SEQUENCE // 8] = sequence + 2

    def beat(self, boot: float) -> None:
        """Say that the content is true at this time of CLOCK_BOOTTIME."""
        self._times[BEAT // 8] = boot

    def close(self) -> None:
        """The last content. Not one byte of a token is left."""
        self.beat(0.0)
        self.write(NO_MORE)
        self._numbers.release()
        self._times.release()
        self._memory.release()


def packed(content: Content) -> bytes:
    """The bytes from CONTENT on."""
    value, rest = content.value, content.rest
    head = HEAD.pack(content.state, len(value), len(rest), 0, content.generation, content.expires, content.lifetime)
    return head + value + rest


def checksum(sequence: int, after: bytes) -> bytes:
    """CRC-32 of the sequence and all that follows it."""
    return struct.pack("=I", crc32(after, crc32(struct.pack("=Q", sequence))))
