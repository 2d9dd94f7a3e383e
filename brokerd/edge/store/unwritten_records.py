# Records that could not be written to the disk: systemd keeps them, sealed, until the disk works again, so that no
# restart or crash loses them (law 2). store.py says when one must be kept, and when it is not needed any more.
from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from brokerd.core.grant.attempts import reopened
from brokerd.core.grant.record import Record, is_replaceable
from brokerd.core.sealing import Bound, EnvelopeError
from brokerd.edge.store.data_keys import DataKeys
from brokerd.edge.store.sealed_record import decoded, encoded

MOST = 1024  # FileDescriptorStoreMax= of systemd/brokerd.service
ROOM_FOR_ALL = MOST // 2  # the rest is for records that no exchange could bring again

Place = tuple[str, str]  # grant and fingerprint


class Pieces(Protocol):
    """Where they are kept. `found`: what the process before left, by name."""

    found: dict[str, bytes]

    def keep(self, piece: bytes) -> str:
        """Returns its name. Raises OSError."""

    def drop(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """One record, which may only be written over generation `replaces`."""

    grant: str
    fingerprint: str
    generation: int
    replaces: int | None
    sealed: bytes

    def bound(self, store: str) -> Bound:
        return Bound(store, self.grant, self.generation, f"{self.fingerprint} in the place of {self.replaces}")


class KeptRecord(NamedTuple):
    name: str
    piece: Piece
    record: Record


class Unstored:
    """`pieces` is None if there is no service manager to keep anything: then nothing is kept."""

    def __init__(self, pieces: Pieces | None, keys: DataKeys) -> None:
        self._pieces = pieces
        self._keys = keys
        self._kept: dict[Place, KeptRecord] = {}

    @property
    def is_possible(self) -> bool:
        return self._pieces is not None

    def holds(self, grant: str, fingerprint: str) -> bool:
        return (grant, fingerprint) in self._kept

    def all(self) -> list[tuple[Place, KeptRecord]]:
        return list(self._kept.items())

    @property
    def sealed(self) -> list[bytes]:
        """What is kept: its data keys are in use."""
        return [each.piece.sealed for each in self._kept.values()]

    def keep(self, record: Record, fingerprint: str, replaces: int | None) -> None:
        """The disk failed. A record without newer tokens than those on the disk is not worth keeping."""
        kept = self._kept.get((record.name, fingerprint))
        if self._pieces is None or (replaces is not None and record.generation <= replaces):
            return
        if kept is not None and (kept.record, kept.piece.replaces) == (record, replaces):
            return
        if len(self._kept) >= (ROOM_FOR_ALL if is_replaceable(record) else MOST):
            return
        empty = Piece(record.name, fingerprint, record.generation, replaces, b"")
        sealed = self._keys.seal_uncounted(encoded(record), empty.bound(self._keys.store))
        piece = dataclasses.replace(empty, sealed=sealed)
        with contextlib.suppress(OSError):  # no descriptor is left; the record is still in memory
            name = self._pieces.keep(msgspec.msgpack.encode(piece))
            self.drop(record.name, fingerprint)  # not before: a crash in between leaves both
            self._kept[record.name, fingerprint] = KeptRecord(name, piece, record)

    def drop(self, grant: str, fingerprint: str | None = None) -> None:
        """The store has it, or nobody needs it any more. Without a fingerprint: all records of the grant."""
        for place in [each for each in self._kept if each[0] == grant and fingerprint in (None, each[1])]:
            assert self._pieces is not None
            self._pieces.drop(self._kept.pop(place).name)

    def taken(self, stored: Mapping[Place, int]) -> list[tuple[Piece, Record]]:
        """What the process before left for the generations that are `stored`. A record that is not newer is dropped.
        One of another store, or for a generation that is not stored yet, is left alone. A stored generation between the
        two is a commit that failed and reached the disk nevertheless: it is replaced."""
        if self._pieces is None:
            return []
        left = [(piece, name) for name, content in self._pieces.found.items() if (piece := _read(content)) is not None]
        self._pieces.found = {}
        for piece, name in sorted(left, key=lambda each: -each[0].generation):
            there = stored.get((piece.grant, piece.fingerprint))
            is_stored = there is not None and there >= piece.generation
            before = -1 if piece.replaces is None else piece.replaces  # a first generation is 0
            is_next = there == piece.replaces or (there is not None and there > before)
            if is_stored or self.holds(piece.grant, piece.fingerprint):
                self._pieces.drop(name)
            elif is_next and (record := self._opened(piece)) is not None:
                found = dataclasses.replace(piece, replaces=there)
                self._kept[piece.grant, piece.fingerprint] = KeptRecord(name, found, record)
        return [(each.piece, each.record) for each in self._kept.values()]

    def _opened(self, piece: Piece) -> Record | None:
        try:
            record = decoded(self._keys.unseal(piece.sealed, piece.bound(self._keys.store)))
        except (EnvelopeError, msgspec.DecodeError):
            return None
        return reopened(record, interrupted=None)


def _read(content: bytes) -> Piece | None:
    try:
        return msgspec.msgpack.decode(content, type=Piece)
    except msgspec.DecodeError:
        return None
