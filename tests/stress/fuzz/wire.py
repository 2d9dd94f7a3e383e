# The daemon's reader against any bytes (law 13): the same messages or the same refusal however the stream is cut,
# in bounded memory; and a message that was understood comes back as it was. The first byte says how to cut.
from __future__ import annotations

import tracemalloc
from collections.abc import Iterable
from contextlib import suppress

from brokerd_client.errors import ProtocolError
from brokerd_client.wire import (
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

from tests.stress.fuzz.shown_text import fit_for_people

LIMIT = 4096  # bytes of a message: small, so that inputs get beyond it
MOST = 400  # bytes of memory for each that was fed: three of them may promise 64 items, and 1024 such promises nest
MARGIN = 256 * 1024
Read = tuple[list[object], str]


def check(data: bytes) -> None:
    if not data:
        return
    step, stream = 1 + data[0] % 64, data[1:]
    most = MOST * len(stream) + MARGIN
    whole, peak = measured(stream)
    if peak > most:  # what a process makes once, for a module or a cache, is traced with the Reader's memory
        whole, peak = measured(stream)
    assert peak <= most, f"{len(stream)} bytes took {peak} bytes of memory"
    pieces = read(stream[at : at + step] for at in range(0, len(stream), step))
    assert repr(whole) == repr(pieces), f"in pieces of {step} bytes: {pieces}; at once: {whole}"
    for message in whole[0]:
        assert isinstance(message, list)
        comes_back(message)


def measured(stream: bytes) -> tuple[Read, int]:
    """What is read of it, and the most memory in bytes that this took."""
    tracemalloc.start()
    try:
        return read([stream]), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def read(chunks: Iterable[bytes]) -> Read:
    """The messages, and how the stream ended: with a refusal, in the middle of a message, or between two."""
    reader, found = Reader(LIMIT), list[object]()
    try:
        for chunk in chunks:
            reader.feed(chunk)
            for message in reader:
                found.append(message)
    except ProtocolError as error:
        fit_for_people(str(error))
        return found, "refused"
    return found, "partial" if reader.partial else "whole"


def comes_back(message: list[object]) -> None:
    with suppress(ProtocolError):
        request = read_request(message)
        again = read_request(one(pack_request(*request)))
        assert repr(again) == repr(request)
    with suppress(ProtocolError):
        reply = read_reply(message)
        if isinstance(reply, Notification):
            packed = pack_notification(reply.method, reply.params)
        elif reply.error is None:
            packed = pack_result(reply.id, reply.result)
        elif reply.result is None and isinstance(reply.error, dict):
            packed = pack_error(reply.id, reply.error)
        else:
            return
        assert in_words(read_reply(one(packed))) == in_words(reply)


def in_words(reply: Response | Notification) -> str:
    """In words, because nan is not itself."""
    return repr([getattr(reply, name) for name in type(reply).__slots__])


def one(data: bytes) -> list[object]:
    reader = Reader()
    reader.feed(data)
    (message,) = reader
    return message
