# Records that the disk did not take, sealed and held by systemd until it does, so that no restart, crash or watchdog
# loses them (law 2). The store says when one is to be held, and when it is needed no more.
from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgspec

from brokerd.core.envelope import Bound, EnvelopeError
from brokerd.core.record import Record, goes_on_without, reopened
from brokerd.edge.data_keys import DataKeys
from brokerd.edge.sealed_record import decoded, encoded

MOST = 1024  # FileDescriptorStoreMax= of systemd/brokerd.service
ROOM_FOR_ALL = MOST // 2  # the rest is for what no exchange would bring again

Place = tuple[str, str]  # grant and fingerprint


class Pieces(Protocol):
    """Where they are held. `found`: what the process before left, by name."""

    found: dict[str, bytes]

    def keep(self, piece: bytes) -> str:
        """Returns its name. Raises OSError."""
        ...

    def drop(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """One record, to be written in the place of generation `replaces`, and nowhere else."""

    grant: str
    fingerprint: str
    generation: int
    replaces: int | None
    sealed: bytes

    def bound(self, store: str) -> Bound:
        return Bound(store, self.grant, self.generation, f"{self.fingerprint} in the place of {self.replaces}")


class Holding(NamedTuple):
    name: str
    piece: Piece
    record: Record


class Unstored:
    """`pieces` is None where no service manager holds anything: then all is as without this."""

    def __init__(self, pieces: Pieces | None, keys: DataKeys) -> None:
        self._pieces = pieces
        self._keys = keys
        self._held: dict[Place, Holding] = {}

    @property
    def is_possible(self) -> bool:
        return self._pieces is not None

    def holds(self, grant: str, fingerprint: str) -> bool:
        return (grant, fingerprint) in self._held

    @property
    def sealed(self) -> list[bytes]:
        """What is held, whose data keys have to stay."""
        return [each.piece.sealed for each in self._held.values()]

    def keep(self, record: Record, fingerprint: str, replaces: int | None) -> None:
        """The disk did not take it. What has no newer tokens than the disk says nothing that is worth holding."""
        held = self._held.get((record.name, fingerprint))
        if self._pieces is None or (replaces is not None and record.generation <= replaces):
            return
        if held is not None and (held.record, held.piece.replaces) == (record, replaces):
            return
        if len(self._held) >= (ROOM_FOR_ALL if goes_on_without(record) else MOST):
            return
        empty = Piece(record.name, fingerprint, record.generation, replaces, b"")
        sealed = self._keys.seal_uncounted(encoded(record), empty.bound(self._keys.store))
        piece = dataclasses.replace(empty, sealed=sealed)
        with contextlib.suppress(OSError):  # no descriptor is left; it is in memory all the same
            name = self._pieces.keep(msgspec.msgpack.encode(piece))
            self.drop(record.name, fingerprint)  # not before: whoever is killed in between leaves both
            self._held[record.name, fingerprint] = Holding(name, piece, record)

    def drop(self, grant: str, fingerprint: str | None = None) -> None:
        """It lies in the store, or is not wanted any more; without a fingerprint, nothing of that grant."""
        for place in [each for each in self._held if each[0] == grant and fingerprint in (None, each[1])]:
            assert self._pieces is not None
            self._pieces.drop(self._held.pop(place).name)

    def taken(self, stored: Mapping[Place, int]) -> list[tuple[Piece, Record]]:
        """What the process before left and is for the generations that are `stored`. What these have overtaken is
        dropped; what is another store's, or for a generation that is not there yet, is left alone. A generation between
        the two is a commit of that process that failed and came to lie on the disk all the same: it is replaced."""
        if self._pieces is None:
            return []
        left = [(piece, name) for name, content in self._pieces.found.items() if (piece := _read(content)) is not None]
        self._pieces.found = {}
        for piece, name in sorted(left, key=lambda each: -each[0].generation):
            there = stored.get((piece.grant, piece.fingerprint))
            overtaken = there is not None and there >= piece.generation
            is_next = there == piece.replaces or (there is not None and there > (piece.replaces or 0))
            if overtaken or self.holds(piece.grant, piece.fingerprint):
                self._pieces.drop(name)
            elif is_next and (record := self._opened(piece)) is not None:
                found = dataclasses.replace(piece, replaces=there)
                self._held[piece.grant, piece.fingerprint] = Holding(name, found, record)
        return [(each.piece, each.record) for each in self._held.values()]

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
