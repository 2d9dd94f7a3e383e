# What a reader of a shared token takes for a token, and what not: docs/vectors.json, and two processes that write and
# read at full speed. A reader that leaves out a check is found.
from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from random import Random
from time import CLOCK_BOOTTIME, clock_gettime
from typing import Any

import pytest
from brokerd_client import shared_token
from brokerd_client.shared_token import SIZE, SharedTokenReader

from brokerd.core.shared_token import Content, SharedState, SharedTokenWriter
from tests.unit.client.vectors import vectors

READS = 20_000
PARENT = os.getpid()
TYPE = b"\x81\xaatoken_type\xa6Bearer"
LITTLE = pytest.mark.skipif(
    sys.byteorder != "little", reason="VECTORS OF SHARED TOKENS DID NOT RUN: they are little-endian"
)


def reader_of(data: bytes) -> SharedTokenReader:
    memory = mmap.mmap(-1, SIZE)
    memory[: len(data)] = data
    return SharedTokenReader(memory, "app")


def said(reader: SharedTokenReader) -> str:
    token = reader.read()
    if token is None:
        return "closed" if reader._look().state == shared_token.CLOSED else "ask by get"
    return token.value


@LITTLE
@pytest.mark.parametrize("vector", vectors("shared"))
def test_a_vector_means_what_it_says(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_token, "clock_gettime", lambda _: vector["now"])
    monkeypatch.setattr(shared_token, "time", lambda: 1_000_000.0)
    if vector["means"] == "another layout":
        with pytest.raises(shared_token.ProtocolError, match="layout"):
            reader_of(vector["bytes"])
        return
    reader = reader_of(vector["bytes"])
    assert [said(reader), said(reader)] == [vector["says"]] * 2, "also when it was looked at before"
    if "token" in vector:
        token, told = reader.read(), vector["token"]
        assert token is not None
        present = told.get("present", "Authorization: Bearer {access_token}").replace("{access_token}", token.value)
        assert token.header == dict([present.split(": ")])
        assert (token.grant, token.token_type, token.fields) == ("app", told["token_type"], told.get("fields", {}))
        left = vector["expires_in"]
        assert token.expires_at == (None if left is None else 1_000_000.0 + left)
        assert repr(token) == f"Token(grant='app', value=***, expires_at={token.expires_at!r})"
        with pytest.raises(AttributeError):
            token.value = "x"
        with pytest.raises(AttributeError):
            token.nothing  # type: ignore[attr-defined]  # noqa: B018
        assert (reader.read(1e9) is None) is (left is not None)


@LITTLE
def test_min_ttl_is_what_must_be_left_and_at_most_half_of_the_life(monkeypatch: pytest.MonkeyPatch) -> None:
    [vector] = [each.values[0] for each in vectors("shared") if each.id == "a token"]
    reader = reader_of(vector["bytes"])
    monkeypatch.setattr(shared_token, "clock_gettime", lambda _: vector["now"])
    assert reader.read(1800.0) is not None
    assert reader.read(1800.5) is None, "get refuses it"
    reader._times = memoryview(bytearray(16)).cast("d")
    reader._times[1] = 3000.0
    monkeypatch.setattr(shared_token, "clock_gettime", lambda _: 3000.5)
    assert reader.read(1599.0) is not None
    assert reader.read(1599.5) is None


def test_a_refused_token_is_not_read_again() -> None:
    memory = mmap.mmap(-1, SIZE)
    writer = SharedTokenWriter(memoryview(memory))
    reader = SharedTokenReader(memory, "app")
    for value, after in ((b"old", None), (b"new", "new")):
        writer.write(Content(SharedState.TOKEN, 1, 1e12, 1e12, value, TYPE))
        writer.beat(clock_gettime(CLOCK_BOOTTIME))
        assert said(reader) == value.decode()
        reader.refuse("old")
        token = reader.read()
        assert (None if token is None else token.value) == after


@pytest.mark.parametrize(
    ("value", "rest"),
    [
        (b"v", b"\xc1"),  # no MessagePack
        (b"v", b"\x01"),  # no map
        (b"v", b""),
        (b"v", b"\x80"),  # a map without token_type
        (b"v", TYPE + b"\x80"),
        (b"v", b"\x91" * 2_000),
        (b"v", b"\x81\xaatoken_type\x01"),
        (b"v", b"\x82\xaatoken_type\xa1x\xa7present\xa1x"),  # no header line
        (b"\xff", TYPE),  # no UTF-8
        (b"a\nb", TYPE),  # two lines
        (b"", TYPE),
    ],
)
def test_what_this_version_cannot_read_is_asked_for_by_get(value: bytes, rest: bytes) -> None:
    memory = bytearray(SIZE)
    writer = SharedTokenWriter(memoryview(memory))
    writer.write(Content(SharedState.TOKEN, 1, 1e12, 1e12, value, rest))
    writer.beat(clock_gettime(CLOCK_BOOTTIME))
    assert said(reader_of(bytes(memory))) == "ask by get"


def test_bytes_of_chance_are_no_token() -> None:
    chance = Random(20_261_129)
    for _ in range(200):
        reader = reader_of(shared_token.MAGIC + chance.randbytes(SIZE - 8))
        assert said(reader) == "ask by get"


# -- while it is written


@pytest.fixture
def written() -> Iterator[SharedTokenReader]:
    """Another process writes contents one after the other, each of one letter, as fast as it can."""
    memory = mmap.mmap(-1, SIZE)
    writer = SharedTokenWriter(memoryview(memory))
    contents = [
        Content(SharedState.TOKEN, number, 1e12, 1e12, bytes([97 + number % 26]) * (1 + 37 * number % 4_000), TYPE)
        for number in range(104)
    ]
    child = os.fork()
    if not child:
        try:
            while os.getppid() == PARENT:
                for content in contents:
                    writer.write(content)
        finally:
            os._exit(0)
    yield SharedTokenReader(memory, "app")
    os.kill(child, 9)
    os.waitpid(child, 0)


def torn_of(reader: SharedTokenReader) -> tuple[int, int]:
    """Of so many looks: how many brought a token, and how many of these were mixed of two."""
    tokens = torn = 0
    for _ in range(READS):
        try:
            found = reader._look()
        except Exception:  # a reader without checks trips over what it reads
            torn += 1
            continue
        if found.token is not None:
            tokens += 1
            torn += len(set(found.token.value)) != 1
    return tokens, torn


def test_no_token_is_mixed_of_two(written: SharedTokenReader) -> None:
    tokens, torn = torn_of(written)
    assert tokens > 0
    assert torn == 0


def test_a_reader_without_the_checks_reads_mixtures(
    written: SharedTokenReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Same:
        """The numbers of the memory; the sequence seems never to change."""

        def __getitem__(self, at: int) -> int:
            return 0

    monkeypatch.setattr(written, "_numbers", Same())
    monkeypatch.setattr(shared_token, "is_whole", lambda data, sequence: True)
    assert any(torn_of(written)[1] for _ in range(100)), "on a busy machine the two may take turns for long"


def test_the_checksum_alone_finds_mixtures_too(written: SharedTokenReader, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a processor shows the sequence before and after as the same, though the content was changing."""
    real = shared_token.is_whole

    class Same:
        def __getitem__(self, at: int) -> int:
            return 0

    def whole(data: bytes, _: int) -> bool:
        return real(data, int.from_bytes(data[8:16], sys.byteorder))

    monkeypatch.setattr(written, "_numbers", Same())
    monkeypatch.setattr(shared_token, "is_whole", whole)
    tokens, torn = torn_of(written)
    assert tokens > 0
    assert torn == 0
