# One series of the audit log on the disk: NAME-NNNN.jsonl files of bounded size and number. What is in a line is
# core/chain.py's matter; when a group of them is written, edge/trail.py's. Synchronous.
from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from brokerd.core import chain
from brokerd.core.chain import Head

FOLDER = "audit"  # in the state directory
SERIES = ("audit", "denied")  # denials are apart: a flood of them must not push anything else out
FILES = 8  # of a series, at most
Entry = Mapping[str, object]
Place = tuple[int, int]  # device and inode


class Series:
    """A series, written from where it ends. `head`: what of it is durable. No file is held open between two groups, so
    that the disk can be unmounted."""

    def __init__(self, folder: Path, name: str, most: int) -> None:
        """`most`: bytes of all its files together. Until it is unlocked nothing is sealed."""
        self.head = Head()
        self._folder, self._name = folder, name
        self._key: bytes | None = None
        self._unsealed = True  # maybe: lines that were written without the key
        self._remembered: Head | None = Head()  # by the store, and not yet looked for in the files
        self._limit = most // FILES
        self._folder_place: Place | None = None
        self._left: tuple[Place, int] | None = None  # the newest file and its size, as the last group left them
        self._descriptor, self._size = -1, 0
        self._next, self._buffer, self._taken = Head(), bytearray(), 0

    def unlock(self, key: bytes, known: Head | None) -> None:
        """`known`: the head that the store remembers; None: it has forgotten, and the end may have been cut."""
        self._key, self._remembered, self._left, self._unsealed = key, known, None, True

    def lock(self) -> None:
        self._key = None

    def waits_for_seal(self) -> bool:
        """Whether the last lines have no seal, and can have one now. Raises OSError."""
        if self._unsealed and self._key is not None:
            files = numbered(self._folder, self._name) if self._folder.exists() else []
            last = files[-1][1].read_bytes().rstrip(b"\n").split(b"\n")[-1] if files else b""
            self._unsealed = bool(files) and (chain.read(last) or {}).get("event") != chain.SEAL
        return self._unsealed and self._key is not None

    def write(self, entries: list[Entry], now: float) -> None:
        """Append them and a seal; what is durable is taken out of `entries`, also where it raises OSError."""
        self._next, self._taken = self.head, 0
        self._buffer.clear()
        try:
            for note in self._open(now):
                self._add(note)
            for entry in tuple(entries):
                if self._size + len(self._buffer) >= self._limit:
                    self._sync(entries, now)
                    self._begin_file(now)
                self._add(entry)
                self._taken += 1
            self._sync(entries, now)
        except OSError:
            with contextlib.suppress(OSError):  # half a group is no use to anybody
                os.ftruncate(self._descriptor, self._size)
            self._left = None
            raise
        finally:
            self._close()

    def _add(self, entry: Entry) -> None:
        line, self._next = chain.link(entry, self._next)
        self._buffer += line

    def _sync(self, entries: list[Entry], now: float) -> None:
        head = self._next
        if self._key is not None:
            line, head = chain.seal(self._name, now, head, self._key)
            self._buffer += line
        self._unsealed = self._key is None
        view = memoryview(bytes(self._buffer))
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fsync(self._descriptor)
        old, self.head, self._next, self._remembered = self.head.oldest, head, head, Head()
        self._size += len(self._buffer)
        self._left = (_place(os.fstat(self._descriptor)), self._size)
        del entries[: self._taken]
        self._taken = 0
        self._buffer.clear()
        if head.oldest != old:
            for number, path in numbered(self._folder, self._name):
                if number < head.oldest:
                    path.unlink()

    def _open(self, now: float) -> list[Entry]:
        """Open the file at its end; what is to be said about how it was found there."""
        if self._folder_place is None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._folder_place = _place(self._folder.stat())
        elif _place(self._folder.stat()) != self._folder_place:
            raise OSError(errno.ESTALE, "it was deleted or replaced while brokerd runs", str(self._folder))
        if self._left is not None:
            with contextlib.suppress(FileNotFoundError):
                self._append_to(self.head.file)
                if self._left == (_place(os.fstat(self._descriptor)), self._size):
                    return []
        return self._resume(now)

    def _resume(self, now: float) -> list[Entry]:
        """The end, by the files' own account, held against what is known of it."""
        notes: list[Entry] = []
        files = numbered(self._folder, self._name)
        while files and not _whole(files[-1][1], notes, now):
            files.pop()[1].unlink()
        found, remembered = _end(*files[-1]) if files else Head(), self._remembered
        known = max(self.head, remembered or Head(), key=lambda head: head.seq)
        self._next = found
        if found.seq < known.seq or (found.seq == known.seq and found.hash != known.hash):
            self._next = replace(known, file=max(found.file, known.file))
        elif remembered is None or not _has(files, remembered):
            self._next = replace(found, seq=found.seq + 1)  # the gap stays, for who verifies later
        if self._next != found:
            words, seq = "the audit log was cut or changed", remembered.seq if remembered else None
            if remembered is None:
                words = "the store has forgotten how far the audit log went: it may have been cut"
            notes.append({"time": now, "event": words, "found": found.seq, "remembered": seq or known.seq or None})
        if files and found.hash != self.head.hash and (open_lines := _unsealed(files[-1][1])):
            words = "lines without a seal were there: brokerd was killed, or locked, or somebody else wrote them"
            notes.append({"time": now, "event": words, "lines": open_lines, "up_to": found.seq})
        if files and files[-1][0] == self._next.file:
            self._append_to(self._next.file)
        else:
            self._begin_file(now)
        return notes

    def _append_to(self, number: int) -> None:
        self._close()
        self._descriptor = os.open(self._path(number), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._size = os.fstat(self._descriptor).st_size

    def _begin_file(self, now: float) -> None:
        """The next file, with its first line; the oldest go when that is durable, if there are too many."""
        files = numbered(self._folder, self._name)
        number = max((self._next.file, *(each for each, _ in files))) + 1
        sizes = [(each, path.stat().st_size) for each, path in files]
        oldest = self._next.oldest  # those that somebody else deleted are missed all the same
        while sizes and sum(size for _, size in sizes) > self._limit * (FILES - 1):
            oldest = sizes.pop(0)[0] + 1
        self._close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._path(number), flags, 0o600)
        self._size = 0
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        line, self._next = chain.opening(self._name, now, self._next, number, oldest)
        self._buffer += line

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:04}.jsonl"


def _place(found: os.stat_result) -> Place:
    return found.st_dev, found.st_ino


def numbered(folder: Path, series: str) -> list[tuple[int, Path]]:
    """The files of a series that are there, with their numbers, oldest first. Raises OSError."""
    form = re.compile(rf"{series}-([0-9]{{4,9}})\.jsonl")
    return sorted((int(found[1]), path) for path in folder.iterdir() if (found := form.fullmatch(path.name)))


def _whole(path: Path, notes: list[Entry], now: float) -> bool:
    """Cut off a last line that a crash tore, and note it; whether anything is left."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if torn := content[end:]:
        os.truncate(path, end)
        text = torn[: chain.LONGEST].decode(errors="backslashreplace")
        notes.append({"time": now, "event": "a torn line was taken off", "bytes": len(torn), "text": text})
    return end > 0


def _end(number: int, path: Path) -> Head:
    """How a file ends, by its own account."""
    lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    first, last = chain.read(lines[0]) or {}, chain.read(lines[-1]) or {}
    oldest = first.get("oldest")
    return Head(last.get("seq", 0), chain.digest(lines[-1]), number, oldest if type(oldest) is int else 1)


def _unsealed(path: Path) -> int:
    """How many lines stand after the last seal."""
    lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    seals = (
        number for number, line in enumerate(reversed(lines)) if (chain.read(line) or {}).get("event") == chain.SEAL
    )
    return next(seals, len(lines))


def _has(files: list[tuple[int, Path]], head: Head) -> bool:
    """Whether the line that a head names is there, or was there and made room."""
    if not head.seq or (files and files[0][0] > head.file):
        return True
    lines = next((path.read_bytes().split(b"\n") for number, path in files if number == head.file), [])
    return any(chain.digest(line) == head.hash for line in lines)
