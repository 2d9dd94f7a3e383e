# Where everything of a fleet lies in etcd, and in which form: MessagePack maps, of which unknown fields are ignored, so
# that hosts of one release back and of this one read each other. docs/fleet.md has the table.
from __future__ import annotations

from typing import NamedTuple, TypeVar
from urllib.parse import quote, unquote

import msgspec

from brokerd.core.timing.breaker import Breaker
from brokerd.core.timing.moment import Moment

SCHEMA = 1
MOST_DIGITS = 9  # of the number of a data key
USABLE_BY = 1  # the oldest schema whose release can use what this one writes
T = TypeVar("T", bound="Value")


class RecordPlace(NamedTuple):
    """Where the record of a grant is."""

    grant: str
    fingerprint: str


class FleetKeys:
    """The keys of one fleet."""

    def __init__(self, fleet: str) -> None:
        self.root = f"/brokerd/{fleet}/".encode()
        self.meta = self.root + b"meta"

    def data_key(self, number: int) -> bytes:
        return self.root + f"key/{number}".encode()

    def record(self, place: RecordPlace) -> bytes:
        return self._of("record", place)

    def records(self, grant: str) -> bytes:
        """The prefix of all records of a grant."""
        return self.root + f"record/{_quoted(grant)}/".encode()

    def journal(self, place: RecordPlace) -> bytes:
        return self._of("journal", place)

    def claim(self, place: RecordPlace) -> bytes:
        return self._of("claim", place)

    def breaker(self, provider: str) -> bytes:
        return self.root + f"breaker/{_quoted(provider)}".encode()

    def member(self, host: str) -> bytes:
        return self.root + f"member/{_quoted(host)}".encode()

    def kind(self, key: bytes) -> tuple[str, tuple[str, ...]]:
        """What a key is: `record`, `journal`, `claim`, `breaker`, `member`, `key`, `meta`, and the names in it."""
        kind, *names = key.removeprefix(self.root).decode(errors="replace").split("/")
        return kind, tuple(map(unquote, names))

    def number(self, key: bytes) -> int | None:
        """Of a data key; None: it is another key, or nonsense."""
        kind, names = self.kind(key)
        is_one = kind == "key" and len(names) == 1 and names[0].isascii() and names[0].isdecimal()
        return int(names[0]) if is_one and len(names[0]) <= MOST_DIGITS else None

    def place(self, key: bytes) -> RecordPlace | None:
        """Of the record that a key belongs to."""
        kind, names = self.kind(key)
        return RecordPlace(*names) if kind in ("record", "journal", "claim") and len(names) == 2 else None

    def _of(self, kind: str, place: RecordPlace) -> bytes:
        return self.root + f"{kind}/{_quoted(place.grant)}/{_quoted(place.fingerprint)}".encode()


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """`host` made it at the Moment `written` of its own clocks, when it had seen etcd at revision `after` (0: it does
    not say); etcd may have got it much later. `machine`: a digest that no two hosts share, even if they say the same
    name."""

    host: str
    written: Moment
    machine: str = ""
    after: int = 0

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decoded(cls: type[T], value: bytes) -> T | None:
        """None: it is not in a form that this version knows."""
        try:
            return msgspec.msgpack.decode(value, type=cls)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None


class RecordValue(Value, frozen=True, kw_only=True):
    """`write` names the one write that this came with, so that a host recognises its own; `before`: the writes before
    that, the last one first."""

    generation: int
    sealed: bytes
    history: bytes = b""
    write: bytes = b""
    before: tuple[bytes, ...] = ()


class JournalValue(Value, frozen=True, kw_only=True):
    """An exchange of that host may have sent the stored token of that generation (law 2). `answer_within`: seconds
    after which the host that sent it waits for no answer any more. `interrupted`: when the first exchange began that
    may have used that token up, if this row replaced another one (law 3). `others`: the answer to another host's
    request may still come, because this row replaced that host's within the provider's grace."""

    generation: int
    instance: str
    answer_within: float
    write: bytes = b""
    interrupted: Moment | None = None
    others: bool = False


class ClaimValue(Value, frozen=True, kw_only=True):
    """That host, and there the process `instance`, has the grant's one exchange now (law 1)."""

    instance: str
    write: bytes = b""


class MemberValue(Value, frozen=True, kw_only=True):
    """A host that is there."""

    release: str
    schema: int
    instance: str


class BreakerValue(Value, frozen=True, kw_only=True):
    failures: int
    shut_until: Moment | None

    @property
    def breaker(self) -> Breaker:
        return Breaker(self.failures, self.shut_until)


class MetaValue(Value, frozen=True, kw_only=True):
    """Of the fleet. `store`: what everything sealed is bound to. `cluster`: the id of the etcd cluster that it belongs
    to; `epoch` counts how often an operator adopted it (law 15)."""

    schema: int
    usable_by: int
    release: str
    store: str
    cluster: int
    epoch: int


def _quoted(name: str) -> str:
    return quote(name, safe="")
