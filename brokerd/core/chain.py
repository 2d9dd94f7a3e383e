# The audit log's lines: numbered JSON, each with the hash of the line before, sealed by keyed checkpoints; and what is
# wrong with lines that were changed, removed or reordered. Bytes in, bytes and words out: files are the edge's matter.
from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import msgspec

GENESIS = "0" * 64  # what the first line of all names as the line before
LONGEST, MOST = 256, 32  # characters of a field, items of a list
OPENING, SEAL = "file begins", "seal"
OURS = frozenset({"seq", "prev", "mac"})  # fields that an entry cannot have
FINDINGS = 100  # after so many one knows enough


@dataclass(frozen=True, slots=True)
class Head:
    """Where a series ends: number and hash of its last line, the number of its file, and of the oldest file that is
    still to be there."""

    seq: int = 0
    hash: str = GENESIS
    file: int = 0
    oldest: int = 1


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of the log elsewhere: its key, and the head of each series as it was last told; None: that was
    taken away or changed."""

    key: bytes
    heads: Mapping[str, Head] | None

    def head(self, series: str) -> Head | None:
        return None if self.heads is None else self.heads.get(series, Head())


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and where. `line` counts from 1; 0: it is about the file."""

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
    """A checkpoint: nobody without the key can make one, and its own line names all that came before."""
    body = {"seq": head.seq + 1, "time": time, "event": SEAL, "prev": head.hash}
    return _linked({**body, "mac": _mac(series, body, key)}, head)


def digest(line: bytes) -> str:
    """The hash of a line, without its line break."""
    return hashlib.sha256(line).hexdigest()


def read(line: bytes) -> dict[str, Any] | None:
    """A line's fields; None where it is no line of an audit log."""
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return fields if type(fields.get("seq")) is int and type(fields.get("prev")) is str else None


def mark(token: str, key: bytes) -> str:
    """What identifies a token in the log: 16 hexadecimal digits that nobody without the key can make of it."""
    return _keyed(_keyed(key, b"brokerd token mark"), token.encode("utf-8", "surrogatepass")).hex()[:16]


def _linked(fields: Mapping[str, object], head: Head) -> tuple[bytes, Head]:
    line = msgspec.json.encode(fields)
    return line + b"\n", replace(head, seq=head.seq + 1, hash=digest(line))


def _mac(series: str, body: Mapping[str, object], key: bytes) -> str:
    return _keyed(key, msgspec.json.encode(["brokerd audit seal", series, body])).hex()


def _keyed(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def _bounded(value: object) -> object:
    """A field cut to length, without line breaks and what is not Unicode (a path may have both)."""
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
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 1]}…"
    return text if text.isprintable() else text.encode("unicode_escape").decode()


# -- verifying


class Check:
    """What is wrong with one series: give it the files, oldest first, then ask how it ends."""

    def __init__(self, series: str, key: bytes, known: Head | None) -> None:
        """`known`: the head that the store remembers."""
        self._series, self._key, self._known = series, key, known or Head()
        self._is_forgotten = known is None
        self._head = Head()
        self._first: int | None = None  # the number of the oldest file that is there
        self._line = 0
        self.lines = 0
        self.unsealed = 0  # lines after the last seal

    def file(self, number: int, name: str, content: bytes) -> Iterator[Finding]:
        """What is wrong with the next file."""
        *lines, rest = content.split(b"\n")
        if self._first is None:
            self._first = number
        elif number != self._head.file + 1:
            yield Finding(name, 0, f"missing before it: {_range('file', self._head.file + 1, number - 1)}")
        if not content:  # of the oldest file nothing else would tell: what came before the next is expected to be gone
            yield Finding(name, 0, "it is empty: its lines were removed, or brokerd ended while it began it")
        for self._line, line in enumerate(lines, 1):
            fields = read(line)
            if fields is None:
                yield Finding(name, self._line, "it was changed: this is no line of an audit log")
                continue
            self.lines += 1
            yield from (Finding(name, self._line, words) for words in self._chained(fields, number))
            yield from (Finding(name, self._line, words) for words in self._placed(fields, number))
            self._head = replace(self._head, seq=fields["seq"], hash=digest(line), file=number)
            if self._head.seq == self._known.seq and self._head.hash != self._known.hash:
                yield Finding(name, self._line, "it was changed: the store remembers another line of this number")
        self._head = replace(self._head, file=number)
        if rest:
            yield Finding(name, len(lines) + 1, "it is torn: brokerd ended while it wrote, or it was cut")

    def end(self, *, awaited: bool = False) -> Iterator[Finding]:
        """What is wrong with the series as a whole. `awaited`: a seal for the newest lines is still to come."""
        head, known, name = self._head, self._known, f"{self._series}-*"
        if self._is_forgotten:
            yield Finding(name, 0, "what the store remembers of it was removed or changed: the end may have been cut")
        if head.seq < known.seq:
            words = f"the end was cut: the store remembers line number {known.seq}, the log ends with {head.seq}"
            yield Finding(name, 0, words)
        if self._first is not None and self._first > head.oldest:
            yield Finding(name, 0, f"missing: {_range('file', head.oldest, self._first - 1)}")
        if self.unsealed and not awaited:
            words = "not sealed: brokerd ended while it wrote, or they were written by somebody else"
            yield Finding(name, 0, f"the last {self.unsealed} lines are {words}")

    def _chained(self, fields: Mapping[str, Any], number: int) -> Iterator[str]:
        """What is wrong between this line and the one before."""
        seq, head = fields["seq"], self._head
        if self.lines == 1 and number != 1:  # what came before it was deleted to make room
            return
        if seq <= head.seq:
            yield f"reordered or repeated: number {seq} stands after number {head.seq}"
        elif seq > head.seq + 1:
            yield f"missing before it: {_range('line', head.seq + 1, seq - 1)}"
        elif fields["prev"] != head.hash:
            yield f"number {head.seq}, the line before it, was changed: this one remembers another"

    def _placed(self, fields: Mapping[str, Any], number: int) -> Iterator[str]:
        """What is wrong with an opening or a seal; and that they stand where they should."""
        event = fields.get("event")
        if self._line == 1 and event != OPENING:
            yield "the file does not begin with its first line"
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
    findings: Sequence[Finding]
    unsealed: int


def verify(
    files: Iterable[tuple[int, str, bytes]], series: str, key: bytes, known: Head | None, *, awaited: bool = False
) -> Verified:
    """Reads the files of a series: number, name and content of each. After FINDINGS findings it reads no further.
    `awaited`: a brokerd runs that will seal its newest lines, so that they are no finding."""
    check = Check(series, key, known)

    def everything() -> Iterator[Finding]:
        for number, name, content in files:
            yield from check.file(number, name, content)
        yield from check.end(awaited=awaited)

    findings = list(islice(everything(), FINDINGS))
    return Verified(check.lines, findings, check.unsealed)


def _range(what: str, first: int, last: int) -> str:
    return f"{what} number {first}" if first == last else f"{what}s number {first} to {last}"
