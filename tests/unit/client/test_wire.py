from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from brokerd_client.errors import ProtocolError
from brokerd_client.wire import (
    BYTES_OF_ITEM,
    MAX_ANSWER,
    MAX_DEPTH,
    MAX_MESSAGE,
    Notification,
    Reader,
    Response,
    pack_error,
    pack_notification,
    pack_request,
    pack_result,
    read_reply,
    read_request,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.client.vectors import vectors

WORDS = {
    "garbage": "expected MessagePack",
    "type": "expected",
    "utf8": "not UTF-8",
    "depth": "within each other|too many levels",
    "large": "at most 65536 bytes",
    "form": "expected",
}

leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=8
)
requests = st.tuples(
    st.integers(0, 2**32 - 1), st.text(max_size=10), st.dictionaries(st.text(max_size=5), leaves, max_size=4)
)


def read_all(
    data: bytes, *, at: Sequence[int] = (), with_: Callable[[Any], Any] = lambda message: message
) -> list[Any]:
    reader = Reader()
    found = []
    start = 0
    for end in [*sorted(at), len(data)]:
        reader.feed(data[start:end])
        found.extend(with_(message) for message in reader)
        start = end
    return found


@pytest.mark.parametrize("vector", vectors("good"))
def test_a_good_vector_means_what_it_says(vector: dict[str, Any]) -> None:
    [message] = read_all(vector["bytes"])
    assert message == vector["message"]
    if vector["kind"] == "request":
        msgid, method, params = read_request(message)
        assert [0, msgid, method, [params] if message[3] else []] == message
    else:
        reply = read_reply(message)
        response = isinstance(reply, Response)
        assert ([1, reply.id, reply.error, reply.result] if response else [2, reply.method, [reply.params]]) == message


@pytest.mark.parametrize("vector", vectors("good"))
def test_packing_gives_the_bytes_of_the_good_vectors(vector: dict[str, Any]) -> None:
    match vector["message"]:
        case [0, id, method, params]:
            assert pack_request(id, method, params[0] if params else {}) == vector["bytes"].replace(
                b"\x91\x80", b"\x90"
            )
        case [1, id, None, result]:
            assert pack_result(id, result) == vector["bytes"]
        case [1, id, error, None]:
            assert pack_error(id, error) == vector["bytes"]
        case [2, method, [params]]:
            assert pack_notification(method, params) == vector["bytes"]


@pytest.mark.parametrize("vector", vectors("refused"))
def test_a_mistake_in_the_parameters_leaves_the_id_readable(vector: dict[str, Any]) -> None:
    [message] = read_all(vector["bytes"])
    if vector["where"] == "form":
        with pytest.raises(ProtocolError) as caught:
            read_request(message)
        assert caught.value.id == vector["id"]
    else:
        assert read_request(message)[0] == vector["id"]


@pytest.mark.parametrize("vector", vectors("broken"))
def test_what_is_no_message_is_refused_and_says_why(vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match=WORDS[vector["failure"]]) as caught:
        read_all(vector["bytes"], with_=read_request)
    assert caught.value.id is None


@pytest.mark.parametrize("vector", [v for v in vectors("broken") if v.values[0].get("to") != "daemon"])
def test_a_client_refuses_what_is_no_message_too(vector: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        read_all(vector["bytes"], with_=read_reply)


@pytest.mark.parametrize("vector", vectors("partial"))
def test_an_unfinished_message_is_waited_for(vector: dict[str, Any]) -> None:
    reader = Reader()
    assert not reader.partial
    reader.feed(vector["bytes"])
    assert list(reader) == []
    assert reader.partial


def test_nothing_is_partial_after_a_whole_message() -> None:
    reader = Reader()
    reader.feed(pack_request(1, "hello", {}) + b"\x94")
    assert len(list(reader)) == 1
    assert reader.partial
    reader.feed(pack_request(1, "hello", {})[1:])
    assert len(list(reader)) == 1
    assert not reader.partial


@pytest.mark.parametrize("vector", vectors("broken"))
def test_good_messages_come_before_the_error_of_a_bad_one(vector: dict[str, Any]) -> None:
    reader = Reader()
    reader.feed(pack_request(1, "hello", {}) + pack_request(2, "hello", {}) + vector["bytes"])
    messages = iter(reader)
    assert [read_request(next(messages))[0] for _ in range(2)] == [1, 2]
    with pytest.raises(ProtocolError):
        read_request(next(messages))


def test_a_broken_reader_stays_broken() -> None:
    reader = Reader()
    reader.feed(b"\xc1")
    for _ in range(2):
        with pytest.raises(ProtocolError):
            list(reader)
        reader.feed(pack_request(1, "hello", {}))


def test_the_largest_message_passes_and_one_byte_more_does_not() -> None:
    frame = len(pack_request(1, "get", {"grant": "x" * 60_000})) - 60_000
    fits = pack_request(1, "get", {"grant": "x" * (MAX_MESSAGE - frame)})
    assert len(fits) == MAX_MESSAGE
    assert len(read_all(fits * 3)) == 3
    with pytest.raises(ProtocolError, match="65536"):
        read_all(pack_request(1, "get", {"grant": "x" * (MAX_MESSAGE - frame + 1)}))


def test_an_endless_message_is_given_up_at_the_limit() -> None:
    reader = Reader()
    reader.feed(bytes.fromhex("940001a36765749181a56772616e74db7fffffff"))
    for _ in range(MAX_MESSAGE // 4096 - 1):
        reader.feed(b"x" * 4096)
        assert list(reader) == []
    reader.feed(b"x" * 4096)
    with pytest.raises(ProtocolError, match="65536"):
        list(reader)


def test_eight_levels_pass_and_nine_do_not() -> None:
    def nest(levels: int) -> list[Any]:
        return [0, 1, "get", nest_below(levels - 1)]

    def nest_below(levels: int) -> list[Any]:
        return [nest_below(levels - 1)] if levels > 1 else []

    assert read_all(msgpack.packb(nest(MAX_DEPTH)))
    with pytest.raises(ProtocolError, match="at most 8"):
        read_all(msgpack.packb(nest(MAX_DEPTH + 1)))


@pytest.mark.parametrize("head", [b"\xdd\x00\x00\x04\x00", b"\xdd\x00\x01\xff\xff", b"\x91", b"\x81\xa1a"])
def test_nested_promises_of_long_arrays_take_no_memory(head: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            read_all(head * (MAX_MESSAGE // len(head) + 1))
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()


ANNOUNCED = {
    "arrays of 1,024": b"\xdc\x04\x00",
    "maps of 1,024": b"\xde\x04\x00\xa1k",
    "short arrays": b"\x9f",
    "short maps": b"\x8f\xa1k",
    "small arrays beside each other": b"\x91\xc0",
    "long text": b"\xdb\x7f\xff\xff\xff",
}


@pytest.mark.parametrize("head", ANNOUNCED.values(), ids=ANNOUNCED)
@pytest.mark.parametrize("limit", [MAX_MESSAGE, MAX_ANSWER], ids=["daemon", "client"])
def test_what_an_unfinished_message_costs_is_bounded_by_what_came_of_it(head: bytes, limit: int) -> None:
    begun, came = b"\x95\x00\x01\xa1x\xdc\x0f\x00", 3_060
    data = (begun + head * came)[:came]
    readers = [Reader(limit) for _ in range(100)]
    tracemalloc.start()
    try:
        for reader in readers:
            reader.feed(data)
            with suppress(ProtocolError):
                assert list(reader) == []
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < len(readers) * 2 * came
    assert peak < held + 20 * came


def test_a_message_has_no_more_items_than_one_for_sixteen_bytes_of_the_limit() -> None:
    def names(number: int) -> bytes:
        return pack_request(1, "status", {"grants": [""] * number})

    room = MAX_MESSAGE // BYTES_OF_ITEM
    (message,) = read_all(names(room - 7))
    assert len(message[3][0]["grants"]) == room - 7
    with pytest.raises(ProtocolError, match=f"at most {room} items"):
        read_all(names(room - 6))


def test_who_stops_in_the_middle_of_a_chunk_goes_on_with_the_next_message() -> None:
    reader = Reader()
    reader.feed(b"".join(pack_request(number, "hello", {}) for number in range(4)) + b"\x94")
    assert [next(iter(reader))[1] for _ in range(2)] == [0, 1]
    assert [message[1] for message in reader] == [2, 3]
    assert reader.partial


@given(st.lists(requests, max_size=8), st.lists(st.integers(0, 400), max_size=20))
def test_messages_are_the_same_however_they_are_cut(wanted: list[Any], cuts: list[int]) -> None:
    data = b"".join(pack_request(*one) for one in wanted)
    found = [read_request(message) for message in read_all(data, at=[cut for cut in cuts if cut < len(data)])]
    assert found == wanted


@given(st.integers(0, 2**32 - 1), values)
def test_a_result_comes_back_as_it_was(msgid: int, result: Any) -> None:
    assert read_reply(read_all(pack_result(msgid, result))[0]) == Response(msgid, None, result)


@given(st.text(), st.dictionaries(st.text(), leaves))
def test_an_event_comes_back_as_it_was(method: str, params: dict[str, Any]) -> None:
    assert read_reply(read_all(pack_notification(method, params))[0]) == Notification(method, params)


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_random_bytes_bring_protocol_errors_alone(chunks: list[bytes]) -> None:
    reader = Reader()
    try:
        for chunk in chunks:
            reader.feed(chunk)
            for message in reader:
                read_request(message)
    except ProtocolError as error:
        assert len(str(error)) < 200  # noqa: PT017


@given(st.binary(max_size=60), st.integers(0, 60), st.sampled_from(vectors("good")))
def test_a_good_message_with_bytes_changed_brings_protocol_errors_alone(noise: bytes, at: int, vector: Any) -> None:
    data = bytearray(vector.values[0]["bytes"])
    data[at : at + len(noise)] = noise
    for read in (read_request, read_reply):
        with suppress(ProtocolError):
            read_all(bytes(data), with_=read)


def test_an_error_never_quotes_what_was_sent() -> None:
    for data in (b"\xa6secret", b"\x81\xc4\x06secret\x01", b"\x94\x00\x01\xa3get\x91\x81\xa7secret\xff\x01"):
        with pytest.raises(ProtocolError) as caught:
            read_all(data, with_=read_request)
        assert "secret" not in str(caught.value)
