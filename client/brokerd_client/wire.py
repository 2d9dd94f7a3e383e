# The messages of docs/protocol.md as bytes and back, for both ends of a connection. Sans-I/O: bytes come in and go
# out as arguments; what methods mean is not known here. Every get of every caller passes through: keep it short.
from __future__ import annotations

from collections import namedtuple

from msgpack import Packer, Unpacker
from msgpack.exceptions import UnpackException

from brokerd_client.errors import ProtocolError

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, NoReturn

MAX_MESSAGE = 64 * 1024  # bytes; room for a JWT full of group claims
MAX_ANSWER = 16 * 1024 * 1024  # bytes; what a client takes from its daemon: the status of thousands of grants
MAX_DEPTH = 8  # arrays and maps within each other, the message itself being the first
MAX_ID = 2**32 - 1
BUFFER = 4096  # bytes that an unpacker holds from the start; msgpack would take a mebibyte. It grows with what is fed.
SPARE = 4  # unpackers that are kept for the next bytes, whoever sends them

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2  # the first item of a message

Response = namedtuple("Response", "id error result")  # typing.NamedTuple would cost milliseconds
Notification = namedtuple("Notification", "method params")


class Reader:
    """Cuts a stream of bytes into messages: `feed` bytes as they come, then iterate over the whole ones, as lists.

    Whatever is no message of the protocol raises ProtocolError, after the good messages before it were given out;
    from then on the Reader is broken and raises the same again. It holds no more than `limit` bytes of an unfinished
    message beyond what was fed at once, provided that it is iterated to the end after every feed.
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._unpacker: Any = None  # 40 KiB, hence only while there is something to unpack
        self._fed = 0
        self._taken = 0  # bytes of whole messages
        self._broken: ProtocolError | None = None

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Adds bytes of the stream."""
        if self._broken is None:
            if self._unpacker is None:
                self._unpacker = unpacker = _unpacker(self._limit)
                self._fed = self._taken = unpacker.tell()
            self._fed += len(data)
            self._unpacker.feed(data)

    def __iter__(self) -> Iterator[list[Any]]:
        if self._broken is not None:
            raise self._broken
        unpacker, limit = self._unpacker, self._limit
        if unpacker is None:
            return
        try:
            for message in unpacker:
                end = unpacker.tell()
                if end - self._taken > limit:
                    raise _too_large(limit)
                if type(message) is not list:
                    raise ProtocolError("expected a message to be an array")
                _check(message, MAX_DEPTH - 1)
                self._taken = end
                yield message
            if self._fed - self._taken > limit:
                raise _too_large(limit)
            if self._fed == self._taken:
                self._unpacker = None
                _give_back(limit, unpacker)
        except ProtocolError as error:
            self._break(error)
        except (ValueError, UnpackException) as error:
            self._break(ProtocolError(f"expected MessagePack, found {_words(error)}"))

    @property
    def partial(self) -> bool:
        """Whether bytes of an unfinished message are held; to be asked when the iteration came to its end."""
        return self._fed > self._taken

    def _break(self, error: ProtocolError) -> NoReturn:
        self._broken = error
        self._unpacker = None  # the memory of the bad message goes
        raise error from None


def pack_request(msgid: int, method: str, params: dict[str, Any]) -> bytes:
    """`[0, id, method, [params]]`, or with `[]` where there are none."""
    return _pack((REQUEST, msgid, method, (params,) if params else ()))


def pack_result(msgid: int, result: Any) -> bytes:
    """`[1, id, nil, result]`."""
    return _pack((RESPONSE, msgid, None, result))


def pack_error(msgid: int | None, error: dict[str, Any]) -> bytes:
    """`[1, id, error, nil]`; without an id it is the last message before the connection is closed."""
    return _pack((RESPONSE, msgid, error, None))


def pack_notification(method: str, params: dict[str, Any]) -> bytes:
    """`[2, method, [params]]`."""
    return _pack((NOTIFICATION, method, (params,)))


def read_request(message: list[Any]) -> tuple[int, str, dict[str, Any]]:
    """The daemon's side: id, method and parameters of a message that a Reader gave out.

    Raises ProtocolError: with `id` set where only the parameters are wrong, so that this request alone is answered
    with bad_request; without it where the message is no request, which ends the connection.
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
    """The client's side: the answer or the event that a message holds. Raises ProtocolError."""
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


def _read_params(params: object, msgid: int | None) -> dict[str, Any]:
    if type(params) is list:
        if not params:
            return {}
        if len(params) == 1 and type(params[0]) is dict:
            return params[0]
    raise ProtocolError("expected params to be an array that holds one map", id=msgid)


def _check(items: Iterable[Any], room: int) -> None:
    """Raises ProtocolError for what MessagePack can say and the protocol does not; `room`: levels left below."""
    for item in items:
        kind = type(item)
        if kind in _PLAIN:
            continue
        if kind is not list and kind is not dict:
            raise ProtocolError(_NO_EXTENSION)
        if not room:
            raise ProtocolError(f"expected at most {MAX_DEPTH} arrays and maps within each other")
        if kind is list:
            _check(item, room - 1)
            continue
        for key in item:
            if type(key) is not str:
                raise ProtocolError("expected the keys of maps to be text")
        _check(item.values(), room - 1)


def _unpacker(limit: int) -> Any:
    """One that holds nothing: a spare one, or a new one."""
    try:
        return _spare[limit].pop()
    except (KeyError, IndexError):
        # The unpacker's buffer is not what bounds us (fed - taken is), so that a feed never fails. An array is made
        # in full as soon as its head was read, within every other one: hence no more items than would make sense.
        return Unpacker(
            ext_hook=_no_extension,
            max_buffer_size=0,
            read_size=BUFFER,
            max_array_len=limit // 64,
            max_map_len=limit // 64,
        )


def _give_back(limit: int, unpacker: Any) -> None:
    spare = _spare.setdefault(limit, [])
    if len(spare) < SPARE:
        spare.append(unpacker)


def _no_extension(code: int, data: bytes) -> NoReturn:  # noqa: ARG001 - msgpack calls it so
    raise ProtocolError(_NO_EXTENSION)


def _too_large(limit: int) -> ProtocolError:
    return ProtocolError(f"expected a message of at most {limit} bytes")


def _words(error: Exception) -> str:
    # Never the error's own text: it may quote what was sent, and msgpack's format and stack errors have none.
    if isinstance(error, UnicodeDecodeError):
        return "text that is not UTF-8"
    kind = type(error).__name__
    return {"FormatError": "a byte that means nothing in it", "StackError": "far too many levels"}.get(
        kind, "something the protocol has no use for: too long an array or map, or a key that is not text"
    )


_spare: dict[int, list[Any]] = {}  # by limit; append and pop are whole steps, so all threads share it
_NO_EXTENSION = "expected text, found bin or an extension type"
_PLAIN = frozenset({str, int, float, bool, type(None)})
_pack: Callable[[object], bytes] = Packer().pack  # one for all threads: it never lets another in halfway
