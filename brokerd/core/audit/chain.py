# The audit log's lines: numbered JSON, each with the hash of the line before, sealed by keyed checkpoints. Also finds
# lines that were changed, removed or reordered. Pure; edge/audit/files.py reads and writes the files.
from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from brokerd.core.shortened import shortened

GENESIS = "0" * 64  # stands in the first line for the hash of the line before
LONGEST, MOST = 256, 32  # characters of a field, items of a list
OPENING, SEAL = "file begins", "seal"
OURS = frozenset({"seq", "prev", "mac"})  # fields that an entry cannot have
FINDINGS = 100  # a check stops after so many


@dataclass(frozen=True, slots=True)
class Head:
    """Where a series ends: number and hash of its last line, and the number of its file. `oldest`: the number of the
    oldest file that must still exist."""

    seq: int = 0
    hash: str = GENESIS
    file: int = 0
    oldest: int = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """What the store keeps about the log: its key, and the last known head of each series; None: the heads were removed
    or changed."""

    key: bytes
    heads: Mapping[str, Head] | None

    def head(self, series: str) -> Head | None:
        return None if self.heads is None else self.heads.get(series, Head())


@dataclass(frozen=True, slots=True)
class ChainFault:
    """What is wrong, and where. `line` counts from 1; 0: it is about the file."""

    file: str
    line: int
    words: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.words}" if self.line else f"{self.file}: {self.words}"


def link(entry: Mapping[str, object], head: Head) -> tuple[bytes, Head]:
    """The next line, with its line break, and the head after it. `entry` has `time` (Unix seconds) and `event`."""
    fields = {key: _bounded(value) for key, value in entry.items() if value is not None and key not in OURS}
    return _linked({"seq": head.seq + 1, **fields, "prev": head.hash}, head)


def opening(series: str, time: float, head: Head, file: int, oldest: int) -> tuple[bytes, Head]:
    """The line that a file begins with. Files older than `oldest` were deleted to make room."""
    about = {"time": time, "event": OPENING, "series": series, "file": file, "oldest": oldest}
    line, after = link(about, head)
    return line, replace(after, file=file, oldest=oldest)


def seal(series: str, time: float, head: Head, key: bytes) -> tuple[bytes, Head]:
    """A checkpoint: only the key can make one, and its hash of the line before covers all lines so far."""
    body = {"seq": head.seq + 1, "time": time, "event": SEAL, "prev": head.hash}
    return _linked({**body, "mac": _mac(series, body, key)}, head)


def digest(line: bytes) -> str:
    """The hash of a line, without its line break."""
    return hashlib.sha256(line).hexdigest()


def read(line: bytes) -> dict[str, Any] | None:
    """A line's fields; None: it is not a line of an audit log."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return fields if type(fields.get("seq")) is int and type(fields.get("prev")) is str else None


def mark(token: str, key: bytes) -> str:
    """Identifies a token in the log: 16 hexadecimal digits that only the key can make from the token."""
    return _keyed(_keyed(key, b"brokerd token mark"), token.encode("utf-8", "surrogatepass")).hex()[:16]


def _linked(fields: Mapping[str, object], head: Head) -> tuple[bytes, Head]:
    line = msgspec.json.encode(fields)
    return line + b"\n", replace(head, seq=head.seq + 1, hash=digest(line))


def _mac(series: str, body: Mapping[str, object], key: bytes) -> str:
    return _keyed(key, msgspec.json.encode(["brokerd audit seal", series, body])).hex()


def _keyed(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def _bounded(value: object) -> object:
    """A field cut to length; line breaks and bytes that are not Unicode are escaped (a path may have both)."""
    match value:
        case bool() | int() | float() | None:
            return value
        case Mapping():
            return {str(key): _bounded(each) for key, each in value.items() if each is not None}
        case list() | tuple() | frozenset() | set():
            items = sorted(value, key=str) if isinstance(value, frozenset | set) else list(value)
            more = [f"… and {len(items) - MOST} more"] if len(items) > MOST else []
            return [*map(_bounded, items[:MOST]), *more]
    text = str(value)
    text = shortened(text, LONGEST)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


# -- verifying


class Check:
    """Checks one series: call `file` for each file, the oldest first, then `end`."""

    def __init__(self, series: str, key: bytes, known: Head | None) -> None:
        """`known`: the head that the store remembers."""
        self._series, self._key, self._known = series, key, known or Head()
        self._is_forgotten = known is None
        self._head = Head()
        self._first: int | None = None  # the number of the oldest file that is there
        self._line = 0
        self.lines = 0
        self.unsealed = 0  # lines after the last seal

    def file(self, number: int, name: str, content: bytes) -> Iterator[ChainFault]:
        """What is wrong with the next file."""
        *lines, rest = content.split(b"\n")
        if self._first is None:
            self._first = number
        elif number != self._head.file + 1:
            yield ChainFault(name, 0, f"missing before it: {_range('file', self._head.file + 1, number - 1)}")
        if not content:  # nothing else would show it of the oldest file: lines before it may be deleted
            yield ChainFault(
                name, 0, "it is empty: somebody removed its lines, or brokerd ended while it made the file"
            )
        for self._line, line in enumerate(lines, 1):
            fields = read(line)
            if fields is None:
                yield ChainFault(name, self._line, "it was changed: this is no line of an audit log")
                continue
            self.lines += 1
            yield from (ChainFault(name, self._line, words) for words in self._chained(fields, number))
            yield from (ChainFault(name, self._line, words) for words in self._placed(fields, number))
            self._head = replace(self._head, seq=fields["seq"], hash=digest(line), file=number)
            if self._head.seq == self._known.seq and self._head.hash != self._known.hash:
                yield ChainFault(name, self._line, "it was changed: the store remembers another line of this number")
        self._head = replace(self._head, file=number)
        if rest:
            yield ChainFault(
                name, len(lines) + 1, "it is not complete: brokerd ended while it wrote it, or somebody cut it"
            )

    def end(self, *, awaited: bool = False) -> Iterator[ChainFault]:
        """What is wrong with the series as a whole. `awaited`: a running brokerd will still seal the newest lines."""
        head, known, name = self._head, self._known, f"{self._series}-*"
        if self._is_forgotten:
            words = "what the store remembers of it was removed or changed: the end may have been cut"
            yield ChainFault(name, 0, words)
        if head.seq < known.seq:
            words = f"the end was cut: the store remembers line number {known.seq}, the log ends with {head.seq}"
            yield ChainFault(name, 0, words)
        if self._first is not None and self._first > head.oldest:
            yield ChainFault(name, 0, f"missing: {_range('file', head.oldest, self._first - 1)}")
        if self.unsealed and not awaited:
            words = "not sealed: brokerd ended while it wrote, or they were written by somebody else"
            yield ChainFault(name, 0, f"the last {self.unsealed} lines are {words}")

    def _chained(self, fields: Mapping[str, Any], number: int) -> Iterator[str]:
        """What is wrong between this line and the line before."""
        seq, head = fields["seq"], self._head
        if self.lines == 1 and number != 1:  # what came before it was deleted to make room
            return
        if seq <= head.seq:
            yield f"reordered or repeated: number {seq} stands after number {head.seq}"
        elif seq > head.seq + 1:
            yield f"missing before it: {_range('line', head.seq + 1, seq - 1)}"
        elif fields["prev"] != head.hash:
            yield f"line number {head.seq} before it was changed: its hash is not the one in this line"

    def _placed(self, fields: Mapping[str, Any], number: int) -> Iterator[str]:
        """What is wrong with an opening or a seal, or with its place."""
        event = fields.get("event")
        if self._line == 1 and event != OPENING:
            yield "the file's first line is missing"
        if event == OPENING:
            found = (fields.get("series"), fields.get("file"))
            if found != (self._series, number):
                yield f"this is the first line of file {found[1]} of {found[0]!r}"
            if type(fields.get("oldest")) is int:
                self._head = replace(self._head, oldest=fields["oldest"])
        if event != SEAL:
            self.unsealed += 1
            return
        self.unsealed = 0
        body = {key: value for key, value in fields.items() if key != "mac"}
        if not hmac.compare_digest(str(fields.get("mac")).encode(), _mac(self._series, body, self._key).encode()):
            yield "the seal is wrong: it was changed, or made without the key of this store"


class Verified(NamedTuple):
    """How many lines a series has, what is wrong with them, and how many of the newest have no seal."""

    lines: int
    findings: Sequence[ChainFault]
    unsealed: int


def verify(
    files: Iterable[tuple[int, str, bytes]], series: str, key: bytes, known: Head | None, *, awaited: bool = False
) -> Verified:
    """Reads the files of a series: number, name and content of each. Stops after FINDINGS findings. `awaited`: a
    running brokerd will seal the newest lines, so that their missing seal is no finding."""
    check = Check(series, key, known)

    def everything() -> Iterator[ChainFault]:
        for number, name, content in files:
            yield from check.file(number, name, content)
        yield from check.end(awaited=awaited)

    findings = list(islice(everything(), FINDINGS))
    return Verified(check.lines, findings, check.unsealed)


def _range(what: str, first: int, last: int) -> str:
    return f"{what} number {first}" if first == last else f"{what}s number {first} to {last}"
