# MessagePack in plain Python, for the one or two short messages of a program that ends after them: to import msgpack
# would take longer than such a program's whole get. wire.py decides who packs and reads, and checks what is read here.
from __future__ import annotations

from sys import byteorder

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from typing import Any

CONSTANTS = {None: 0xC0, False: 0xC2, True: 0xC3}
UNSIGNED, SIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}, {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
FLOATS = {0xCA: 4, 0xCB: 8}
# The first byte if the length is short, how many lengths are; then by the bytes of the length the first byte.
TEXT, ARRAY, MAP = (
    (0xA0, 32, {1: 0xD9, 2: 0xDA, 4: 0xDB}),
    (0x90, 16, {2: 0xDC, 4: 0xDD}),
    (0x80, 16, {2: 0xDE, 4: 0xDF}),
)
_READ = {0xC0: None, 0xC2: False, 0xC3: True}
_COUNTED = {kind: (size, form) for form in (TEXT, ARRAY, MAP) for size, kind in form[2].items()}


def pack(value: Any) -> bytes:
    """The value as msgpack packs it. Raises OverflowError, UnicodeError, TypeError."""
    if value is None or isinstance(value, bool):
        return bytes((CONSTANTS[value],))
    if isinstance(value, str):
        data = value.encode()
        return _head(len(data), TEXT) + data
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        room = bytearray(8)
        memoryview(room).cast("d")[0] = value  # what struct does, and nothing to import
        return b"\xcb" + (room[::-1] if byteorder == "little" else room)
    if isinstance(value, list | tuple):
        return _head(len(value), ARRAY) + b"".join(map(pack, value))
    if isinstance(value, dict):
        return _head(len(value), MAP) + b"".join(pack(each) for pair in value.items() for each in pair)
    raise TypeError(f"cannot pack a {type(value).__name__}")


def unpack(data: bytes | bytearray) -> Any:
    """The value in the bytes, which are one complete item of kinds that wire.py knows. Raises ValueError as msgpack
    does."""
    return _item(bytes(data), 0)[0]


def _item(data: bytes, at: int) -> tuple[Any, int]:
    """The value that begins there, and where the next one begins."""
    kind = data[at]
    at += 1
    if kind < 0x80:
        return kind, at
    if kind >= 0xE0:
        return kind - 0x100, at
    if kind in _READ:
        return _READ[kind], at
    if size := UNSIGNED.get(kind) or SIGNED.get(kind):
        return int.from_bytes(data[at : at + size], "big", signed=kind in SIGNED), at + size
    if size := FLOATS.get(kind):
        room = memoryview(data[at : at + size][::-1] if byteorder == "little" else data[at : at + size])
        return (room.cast("f") if size == 4 else room.cast("d"))[0], at + size
    if kind in _COUNTED:
        size, form = _COUNTED[kind]
        length, at = int.from_bytes(data[at : at + size], "big"), at + size
    else:
        form = TEXT if kind >= TEXT[0] else ARRAY if kind >= ARRAY[0] else MAP
        length = kind - form[0]
    if form is TEXT:
        return data[at : at + length].decode(), at + length
    return _array(data, at, length) if form is ARRAY else _map(data, at, length)


def _array(data: bytes, at: int, length: int) -> tuple[list[Any], int]:
    found = []
    for _ in range(length):
        value, at = _item(data, at)
        found.append(value)
    return found, at


def _map(data: bytes, at: int, length: int) -> tuple[dict[str, Any], int]:
    found = {}
    for _ in range(length):
        key, at = _item(data, at)
        if type(key) is not str:
            raise ValueError("a key that is not text")
        found[key], at = _item(data, at)
    return found, at


def _head(length: int, form: tuple[int, int, dict[int, int]]) -> bytes:
    first, short, kinds = form
    if length < short:
        return bytes((first + length,))
    size = next(size for size in kinds if length < 1 << 8 * size)
    return bytes((kinds[size],)) + length.to_bytes(size, "big")


def _integer(value: int) -> bytes:
    """In the fewest bytes. Raises OverflowError."""
    if -0x20 <= value < 0x80:
        return bytes((value & 0xFF,))
    for kind, size in (UNSIGNED if value >= 0 else SIGNED).items():
        if -(1 << 8 * size - 1) <= value < 1 << 8 * size:
            return bytes((kind,)) + value.to_bytes(size, "big", signed=value < 0)
    raise OverflowError("an integer of more than 64 bits")
