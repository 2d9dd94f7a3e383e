# The memory of a shared token: docs/vectors.json, and that no mixture of two contents is taken for one.
from __future__ import annotations

import sys
from typing import Any

import msgpack
import pytest
from brokerd_client.shared_token import CHECKSUM as CHECKED
from brokerd_client.shared_token import is_whole

from brokerd.core import shared_token
from brokerd.core.shared_token import NO_TOKEN, PAYLOAD, ROOM, SEQUENCE, SIZE, Content, SharedState, SharedTokenWriter
from tests.unit.client.vectors import vectors

LITTLE = pytest.mark.skipif(
    sys.byteorder != "little", reason="VECTORS OF SHARED TOKENS DID NOT RUN: they are little-endian"
)
FIRST = Content(SharedState.TOKEN, 1, 100.0, 50.0, b"a" * 200, b"\x80")
SECOND = Content(SharedState.TOKEN, 2, 130.0, 50.0, b"b" * 100, b"\x80")


def sequence_of(memory: bytearray) -> int:
    return int.from_bytes(memory[SEQUENCE : SEQUENCE + 8], sys.byteorder)


@LITTLE
@pytest.mark.parametrize("vector", vectors("shared"))
def test_the_daemon_writes_the_vectors(vector: dict[str, Any]) -> None:
    """Those that are right, and however often it wrote before."""
    data = vector["bytes"]
    if not is_whole(data[CHECKED:], int.from_bytes(data[SEQUENCE : SEQUENCE + 8], "little")) or data[7] != 1:
        assert vector["says"] == "ask by get"
        return
    state, size, _, _, generation, expires, lifetime = shared_token.HEAD.unpack_from(data, shared_token.CONTENT)
    content = Content(
        SharedState(state), generation, expires, lifetime, data[PAYLOAD : PAYLOAD + size], data[PAYLOAD + size :]
    )
    if "token" in vector:
        assert msgpack.unpackb(content.rest) == vector["token"]
        assert content.value.decode() == vector["says"]
    memory = bytearray(SIZE)
    writer = SharedTokenWriter(memoryview(memory))
    while sequence_of(memory) < int.from_bytes(data[SEQUENCE : SEQUENCE + 8], "little"):
        writer.write(content)
    if state == SharedState.CLOSED:
        assert data[8:16] == bytes(8)
    else:
        writer.beat(memoryview(data[8:16]).cast("d")[0])
    assert memory == data.ljust(SIZE, b"\0")


def test_of_a_longer_token_before_no_byte_is_left() -> None:
    memory = bytearray(SIZE)
    writer = SharedTokenWriter(memoryview(memory))
    for content in (FIRST, SECOND):
        writer.write(content)
    assert b"a" not in memory[PAYLOAD:]
    writer.write(NO_TOKEN)
    assert not any(memory[PAYLOAD:])
    writer.write(FIRST)
    writer.beat(5.0)
    writer.close()
    assert not any(memory[PAYLOAD:])
    assert memory[8:16] == bytes(8), "no beat"


def test_what_fits_is_what_a_reader_can_map() -> None:
    assert Content(SharedState.TOKEN, value=b"x" * ROOM).fits
    assert not Content(SharedState.TOKEN, value=b"x" * ROOM, rest=b"\x80").fits


def test_no_mixture_of_two_contents_is_whole_in_whatever_order_stores_are_seen() -> None:
    """Without barriers, another processor may see any of the stores of a write, and miss any: here each subset of
    pieces of 4 bytes that a reader could take for a content, around the boundaries and at random."""
    memory = bytearray(SIZE)
    writer = SharedTokenWriter(memoryview(memory))
    writer.write(FIRST)
    before = bytes(memory[CHECKED : PAYLOAD + 201])
    writer.write(SECOND)
    after = bytes(memory[CHECKED : PAYLOAD + 201])
    differing = [at for at in range(0, len(before) - 4, 4) if before[at : at + 4] != after[at : at + 4]]
    assert len(differing) > 20
    found = 0
    for number in range(1, 2**12):
        mixed = bytearray(before)
        for bit, at in enumerate(differing[:11]):  # checksum, sequence, sizes, generation, expiry, the first letters
            if number >> bit & 1:
                mixed[at : at + 4] = after[at : at + 4]
        if number >> 11 & 1:  # all the others
            for at in differing[11:]:
                mixed[at : at + 4] = after[at : at + 4]
        sequence = int.from_bytes(mixed[8:16], sys.byteorder)
        size = int.from_bytes(mixed[20:24], sys.byteorder) + int.from_bytes(mixed[24:28], sys.byteorder)
        data = bytes(mixed[: PAYLOAD - CHECKED + size])
        if is_whole(data, sequence):
            found += 1
            assert data in (before[: len(data)], after[: len(data)])
    assert found == 1, "all pieces of the second"
