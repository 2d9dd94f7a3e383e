# The messages of docs/protocol.md as bytes and back, for both ends of a connection. It does no I/O and does not know
# what methods mean. Every get of every caller passes through here: keep it short.
from __future__ import annotations

from brokerd_client import short_messages
from brokerd_client.errors import ProtocolError, from_map

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MAX_MESSAGE = 64 * 1024  # bytes of a request
MAX_ANSWER = 32 * 1024 * 1024  # bytes of an answer: the status of thousands of grants, or 64 tokens of 256 KiB
MAX_DEPTH = 8  # levels of arrays and maps; the message itself is the first
MAX_ID = 2**32 - 1
SHORT = 4 * MAX_MESSAGE  # bytes of a message that is read without msgpack: every token fits
BYTES_OF_ITEM = 16  # a message may have one item for each 16 bytes of the limit: objects are larger than their bytes

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2  # the first item of a message


class Response:  # importing dataclasses, or collections for a namedtuple, would cost milliseconds
    """An answer: the id of its request, and the error or the result."""

    __slots__ = ("error", "id", "result")

    def __init__(self, id: int | None, error: Any, result: Any) -> None:  # noqa: A002 - the protocol's word
        self.id, self.error, self.result = id, error, result

    def __eq__(self, other: object) -> bool:
        mine = (self.id, self.error, self.result)
        return isinstance(other, Response) and mine == (other.id, other.error, other.result)

    __hash__ = None  # type: ignore[assignment]


class Notification:
    """An event: the method that names it, and its parameters."""

    __slots__ = ("method", "params")

    def __init__(self, method: str, params: dict[str, Any]) -> None:
        self.method, self.params = method, params

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Notification) and (self.method, self.params) == (other.method, other.params)

    __hash__ = None  # type: ignore[assignment]


class Reader:
    """Cuts a stream of bytes into messages. `feed` it bytes as they come, then iterate over the complete messages.

    Bytes that are not a message of the protocol raise ProtocolError, after the good messages before them. From then on
    the Reader raises the same error again. Of an incomplete message it keeps only the bytes that came, whatever sizes
    they announce: at most `limit` more than was fed at once, if it is iterated to the end after every feed. It makes
    objects from complete messages only.
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._bytes: bytes | bytearray = b""
        self._start = 0  # where the next message begins in _bytes
        self._broken: ProtocolError | None = None
        self._begin()

    def _begin(self) -> None:
        """Start with the next message."""
        self._at = self._start  # where its next header is
        self._left = 1  # items still to come in the innermost open array or map; a map's keys count too
        self._outer: list[int] = []  # the same for the arrays and maps around it
        self._room = self._limit // BYTES_OF_ITEM  # how many more items the message may have

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Adds bytes of the stream."""
        if self._broken is not None:
            return
        if not self._bytes:
            self._bytes = bytes(data)
        elif type(self._bytes) is bytearray:
            self._bytes += data
        else:
            self._bytes = bytearray(self._bytes) + data

    def __iter__(self) -> Iterator[list[Any]]:
        if self._broken is not None:
            raise self._broken
        try:
            while self._find_end():
                start, self._start = self._start, self._at
                if self._start - start > self._limit:
                    raise _too_large(self._limit)
                whole = not start and self._start == len(self._bytes)
                message = _unpack(self._bytes if whole else self._bytes[start : self._start])
                self._begin()
                yield message
            if len(self._bytes) - self._start > self._limit:
                raise _too_large(self._limit)
        except ProtocolError as error:
            self._broken = error
            self._bytes = b""  # the memory of the bad message goes
            raise error from None
        if self._start:
            self._bytes = bytes(self._bytes[self._start :])
            self._at -= self._start
            self._start = 0

    def _find_end(self) -> bool:
        """Goes from header to header as far as the bytes reach. Returns whether `_at` is now the end of the message. It
        makes no objects. Raises ProtocolError."""
        data, at, left, outer = self._bytes, self._at, self._left, self._outer
        size = len(data)
        while left and at < size:
            kind = data[at]
            length, items, is_message = _LENGTHS[kind], _ITEMS[kind], not outer
            if length < 0:  # that many bytes of the header give the number
                head = at + 1 - length
                if head > size:
                    break
                number = int.from_bytes(data[at + 1 : head], "big")
                at = head
                if items:
                    items *= number
                else:
                    at += number
            elif length:
                at += length
            else:
                raise ProtocolError(_unknown(kind))
            left -= 1
            if kind in _NESTS:
                if len(outer) == MAX_DEPTH:
                    raise ProtocolError(f"expected at most {MAX_DEPTH} arrays and maps within each other")
                self._room -= items
                if self._room < 0:
                    raise ProtocolError(f"expected MessagePack of at most {self._limit // BYTES_OF_ITEM} items")
                outer.append(left)
                left = items
            if is_message and kind not in _ARRAYS:
                raise ProtocolError("expected a message to be an array")
            while not left and outer:
                left = outer.pop()
        self._at, self._left = at, left
        return not left and at <= size

    @property
    def partial(self) -> bool:
        """Whether there are bytes behind the last message; after an iteration, these are of an incomplete one."""
        return self._start < len(self._bytes)


def load_msgpack() -> None:
    """Pack and read all further messages with msgpack, which is faster. It takes longer to import than a get of a token
    from a shell: a program that ends after one short answer never loads it. A program that has changed its root or its
    user since its start may not reach it any more, and goes on without."""
    global _pack, _unpackb, _loads
    if _loads:
        _loads = False
        try:
            from msgpack import Packer, unpackb
        except (ImportError, OSError):
            return
        _pack, _unpackb = Packer().pack, unpackb  # one Packer for all threads: no call is interrupted by another


def request_start(msgid: int) -> bytes:
    """What pack_request puts before the method."""
    return _REQUEST_START + _pack(msgid)


def answer_start(msgid: int | None) -> bytes:
    """What pack_result and pack_error put before the error."""
    return _ANSWER_START + _pack(msgid)


def pack_request(msgid: int, method: str, params: dict[str, Any]) -> bytes:
    """`[0, id, method, [params]]`, or with `[]` if there are no parameters."""
    return _pack((REQUEST, msgid, method, (params,) if params else ()))


def pack_result(msgid: int, result: Any) -> bytes:
    """`[1, id, nil, result]`."""
    return _pack((RESPONSE, msgid, None, result))


def pack_error(msgid: int | None, error: dict[str, Any]) -> bytes:
    """`[1, id, error, nil]`. Without an id it is the last message before the connection is closed."""
    return _pack((RESPONSE, msgid, error, None))


def pack_notification(method: str, params: dict[str, Any]) -> bytes:
    """`[2, method, [params]]`."""
    return _pack((NOTIFICATION, method, (params,)))


def read_request(message: list[Any]) -> tuple[int, str, dict[str, Any]]:
    """The daemon's side: id, method and parameters of a message from a Reader.

    Raises ProtocolError. If only the parameters are wrong, its `id` is set, and the request is answered with
    bad_request. Otherwise the message is not a request, which ends the connection.
    """
    try:
        kind, msgid, method, params = message
    except ValueError:
        raise ProtocolError(f"expected a request [0, id, method, params], found {len(message)} items") from None
    if kind != REQUEST or type(kind) is not int:
        raise ProtocolError("expected a request, which begins with 0")
    if type(msgid) is not int or not 0 <= msgid <= MAX_ID:
        raise ProtocolError("expected the id of a request to be an integer from 0 to 2^32-1")
    if type(method) is not str:
        raise ProtocolError("expected the method of a request to be text")
    return msgid, method, _read_params(params, msgid)


def read_reply(message: list[Any]) -> Response | Notification:
    """The client's side: the answer or event in a message. Raises ProtocolError."""
    if len(message) == 4 and message[0] == RESPONSE:
        _, msgid, error, result = message
        if msgid is None and error is None:
            raise ProtocolError("expected an answer without an id to be an error")
        if msgid is not None and (type(msgid) is not int or not 0 <= msgid <= MAX_ID):
            raise ProtocolError("expected the id of an answer to be an integer from 0 to 2^32-1")
        return Response(msgid, error, result)
    if len(message) == 3 and message[0] == NOTIFICATION and type(message[1]) is str:
        return Notification(message[1], _read_params(message[2], None))
    raise ProtocolError("expected an answer [1, id, error, result] or an event [2, method, params]")


def read_result(response: Response) -> Any:
    """The result in an answer. Raises the BrokerError in it."""
    if response.error is not None:
        raise from_map(response.error)
    return response.result


def _read_params(params: object, msgid: int | None) -> dict[str, Any]:
    if type(params) is list:
        if not params:
            return {}
        if len(params) == 1 and type(params[0]) is dict:
            return params[0]
    raise ProtocolError("expected params to be an array that holds one map", id=msgid)


def _unpack(data: bytes | bytearray) -> list[Any]:
    """One complete message, whose structure was checked. Raises ProtocolError."""
    if len(data) > SHORT:
        load_msgpack()
    try:
        message: list[Any] = _unpackb(data)
    except ValueError as error:
        # Never the error's own text: it may quote what was sent.
        found = "text that is not UTF-8" if isinstance(error, UnicodeDecodeError) else "a key that is not text"
        raise ProtocolError(f"expected MessagePack, found {found}") from None
    return message


def _unknown(kind: int) -> str:
    return "expected MessagePack, found a byte that it does not use" if kind == NEVER_USED else _NO_EXTENSION


def _too_large(limit: int) -> ProtocolError:
    return ProtocolError(f"expected a message of at most {limit} bytes")


# Tables by a header's first byte. _LENGTHS: the length of header and content together; if the header contains a number,
# minus the length of that number; 0 for what the protocol does not know (bin, extension types). _ITEMS: how many items
# follow, or how many for each one that the number announces.
_SINGLE = {0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9}  # nil, false, true, floats
_INTEGERS = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
_COUNTED = {0xD9: -1, 0xDA: -2, 0xDB: -4, 0xDC: -2, 0xDD: -4, 0xDE: -2, 0xDF: -4}  # text, arrays, maps
_KNOWN = {**dict.fromkeys((*range(0xA0), *range(0xE0, 0x100)), 1), **_SINGLE, **_INTEGERS, **_COUNTED}
_LENGTHS = [_KNOWN.get(kind, kind - 0x9F if 0xA0 <= kind < 0xC0 else 0) for kind in range(256)]
_ITEMS = [*[0] * 0x80, *range(0, 32, 2), *range(16), *[0] * 0x3C, 1, 1, 2, 2, *[0] * 32]
_REQUEST_START, _ANSWER_START = b"\x94\x00", b"\x94\x01"
_ARRAYS = frozenset((*range(0x90, 0xA0), 0xDC, 0xDD))
_NESTS = _ARRAYS | {*range(0x80, 0x90), 0xDE, 0xDF}
NEVER_USED = 0xC1
_NO_EXTENSION = "expected text, found bin or an extension type"
_loads = True  # whether load_msgpack has something to do
_pack: Callable[[object], bytes] = short_messages.pack
_unpackb: Callable[[bytes | bytearray], Any] = short_messages.unpack
