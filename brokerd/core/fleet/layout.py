# Where everything of a fleet lies in etcd, and in which form: MessagePack maps, of which unknown fields are ignored, so
# that hosts of one release back and of this one read each other. docs/fleet.md has the table. Whoever can write to etcd
# may have written what is read here: what no host writes is nothing.
from __future__ import annotations

import re
from math import isfinite
from typing import Annotated, NamedTuple, TypeVar
from urllib.parse import quote, unquote

import msgspec

from brokerd.core.timing.breaker import Breaker
from brokerd.core.timing.moment import Moment

SCHEMA = 1
USABLE_BY = 1  # the oldest schema whose release can use what this one writes
T = TypeVar("T", bound="Value")
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")  # of a fleet, and of a host
WORD = re.compile(r"[ -~]{0,128}")
LATEST = 1e11  # seconds; any clock of a host is far below
SMALL, LARGE = 8 * 1024, 4 * 1024 * 1024  # bytes of a value: of a record the larger one
Count = Annotated[int, msgspec.Meta(ge=0)]


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
        """What a key is: `record`, `journal`, `claim`, `breaker`, `member`, `key`, `meta`, and the names in it. "": it
        is none that a host writes."""
        try:
            kind, *quoted = key.removeprefix(self.root).decode("ascii").split("/")
            names = tuple(unquote(each, errors="strict") for each in quoted)
        except UnicodeDecodeError:
            return "", ()
        is_known = KINDS.get(kind) == len(names) and list(map(_quoted, names)) == quoted
        is_number = kind != "key" or re.fullmatch("[1-9][0-9]{0,8}", names[0]) if is_known else False
        return (kind, names) if is_known and is_number and key.startswith(self.root) else ("", ())

    def number(self, key: bytes) -> int | None:
        """Of a data key; None: it is another key, or nonsense."""
        kind, names = self.kind(key)
        return int(names[0]) if kind == "key" else None

    def place(self, key: bytes) -> RecordPlace | None:
        """Of the record that a key belongs to."""
        kind, names = self.kind(key)
        return RecordPlace(*names) if kind in ("record", "journal", "claim") else None

    def most(self, key: bytes) -> int:
        """How many bytes a value of that key may have; 0: it is no key that a host writes."""
        kind, _ = self.kind(key)
        return 0 if not kind else LARGE if kind == "record" else SMALL

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
            found = msgspec.msgpack.decode(value, type=cls)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return None
        return found if all(map(_is_sound, found.__struct_fields__, msgspec.structs.astuple(found))) else None


class RecordValue(Value, frozen=True, kw_only=True):
    """`number` rises with each write of the record: one with a smaller number was put back. `write` names the one write
    that this came with, so that a host recognises its own; `before`: the writes before that, the last one first.
    `is_gone`: an operator deleted it. A record that only vanished was deleted by somebody who has not the key."""

    generation: Count
    sealed: bytes
    number: Count = 0
    history: bytes = b""
    write: bytes = b""
    before: tuple[bytes, ...] = ()
    is_gone: bool = False


class JournalValue(Value, frozen=True, kw_only=True):
    """An exchange of that host may have sent the stored token of that generation (law 2). `answer_within`: seconds
    after which the host that sent it waits for no answer any more. `interrupted`: when the first exchange began that
    may have used that token up, if this row replaced another one (law 3). `others`: the answer to another host's
    request may still come, because this row replaced that host's within the provider's grace. `is_void`: the exchange
    of this row has ended, and it sent nothing. A row goes away with the record that its exchange brought, and in no
    other way."""

    generation: Count
    instance: str
    answer_within: float
    write: bytes = b""
    interrupted: Moment | None = None
    others: bool = False
    is_void: bool = False


class ClaimValue(Value, frozen=True, kw_only=True):
    """That host, and there the process `instance`, has the grant's one exchange now (law 1)."""

    instance: str
    write: bytes = b""


class MemberValue(Value, frozen=True, kw_only=True):
    """A host that is there."""

    release: str
    schema: Count
    instance: str


class BreakerValue(Value, frozen=True, kw_only=True):
    failures: Count
    shut_until: Moment | None

    @property
    def breaker(self) -> Breaker:
        return Breaker(self.failures, self.shut_until)


class MetaValue(Value, frozen=True, kw_only=True):
    """Of the fleet. `store`: what everything sealed is bound to. `cluster`: the id of the etcd cluster that it belongs
    to; `epoch` counts how often an operator adopted it (law 15). It must be read before anything can be opened: `proof`
    is sealed, and says that a host wrote the rest."""

    schema: Count
    usable_by: Count
    release: str
    store: str
    cluster: Count
    epoch: Count
    proof: bytes = b""

    @property
    def proved(self) -> bytes:
        """What the proof is about."""
        about = (self.host, self.written, self.schema, self.usable_by, self.release, self.store, self.cluster)
        return msgspec.msgpack.encode((*about, self.epoch))


KINDS = {"record": 2, "journal": 2, "claim": 2, "breaker": 1, "member": 1, "key": 1, "meta": 0}  # and their names


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _is_sound(name: str, value: object) -> bool:
    """Whether a host can have written that."""
    if name == "host":
        return NAME.fullmatch(str(value)) is not None
    if isinstance(value, Moment):
        known = isfinite(value.wall) and isfinite(value.boot) and WORD.fullmatch(value.boot_id)
        return bool(known and 0 <= value.wall < LATEST and abs(value.boot) < LATEST)
    if isinstance(value, str):
        return WORD.fullmatch(value) is not None
    return not isinstance(value, float) or (isfinite(value) and 0 <= value < LATEST)
