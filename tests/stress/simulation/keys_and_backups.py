# What is kept outside the store, and what people do with it: the records that systemd holds, the key file of
# [daemon] key, and backups. life.py asks for them, an event changes them, laws.py judges them.
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from brokerd.core.grant.record import Record
from brokerd.core.sealing import KEY_BYTES
from brokerd.edge.store import backup
from brokerd.edge.store.database import FILE

FIRST_KEY = bytes(KEY_BYTES)


class Systemd:
    """What it holds of brokerd from one process to the next (the port Pieces). The machine's end is the end of it."""

    def __init__(self) -> None:
        self.pieces: dict[str, bytes] = {}
        self.found: dict[str, bytes] = {}
        self._kept = 0

    def next_process(self) -> Systemd:
        self.found = dict(self.pieces)
        return self

    def keep(self, piece: bytes) -> str:
        self._kept += 1
        name = f"piece-{self._kept}"
        self.pieces[name] = piece
        return name

    def drop(self, name: str) -> None:
        self.pieces.pop(name, None)


@dataclass
class Keys:
    """The file that [daemon] key names, and the one that previous_key names."""

    random: Random
    present: bytes = FIRST_KEY
    previous: bytes = FIRST_KEY

    def replace(self) -> None:
        self.present, self.previous = self.random.randbytes(KEY_BYTES), self.present

    def put_back(self, key: bytes) -> None:
        self.present = self.previous = key


@dataclass
class Backup:
    """A copy of the store, the key that it can be opened with, and what was durable when it was made."""

    content: bytes
    key: bytes
    records: dict[str, Record] = field(default_factory=dict)

    def restore(self, folder: Path) -> None:
        """As `brokerctl restore --force` does it; the store that it keeps under another name is not wanted here."""
        backup.put_back(self.content, folder, force=True)
        for kept in folder.glob(f"{FILE}.before-*"):
            kept.unlink()
