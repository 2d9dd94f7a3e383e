# One series of the audit log on disk: files NAME-NNNN.jsonl, limited in size and number. core/audit/chain.py decides
# what a line contains, edge/audit/writer.py when lines are written. Blocking.
from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from brokerd.core.audit import chain
from brokerd.core.audit.chain import Head
from brokerd.core.audit.findings import CUT, END_UNKNOWN, TORN, UNSEALED
from brokerd.edge.files.new_file import sync_folder

FOLDER = "audit"  # in the state directory
SERIES = ("audit", "denied")  # denials have their own series, so that many of them remove no other entries
FILES = 8  # of a series, at most
Entry = Mapping[str, object]
FileId = tuple[int, int]  # device and inode


class Series:
    """A series; lines are appended at its end. `head`: the last durable line. `found`: lines about what
    was wrong with it, until somebody takes them. No file stays open between two writes, so
    that the disk can be unmounted.

    Many attributes: what is durable, and how far the next group is written, change together."""

    def __init__(self, folder: Path, name: str, max_bytes: int) -> None:
        """`max_bytes`: of all its files together. Nothing is sealed before `unlock`."""
        self.head = Head()
        self.found: list[Entry] = []
        self._folder, self._name = folder, name
        self._key: bytes | None = None
        self._unsealed = True  # the last lines may have no seal
        self._remembered: Head | None = Head()  # the store's head, not yet compared with the files
        self._limit = max_bytes // FILES
        self._folder_id: FileId | None = None
        self._left: tuple[FileId, int] | None = None  # the newest file and its size after the last write
        self._descriptor, self._size = -1, 0
        self._next, self._buffer, self._taken = Head(), bytearray(), 0

    def unlock(self, key: bytes, known: Head | None) -> None:
        """`known`: the head in the store; None: the store has none, and the end of the log may have been cut."""
        self._key, self._remembered, self._left, self._unsealed = key, known, None, True

    def lock(self) -> None:
        self._key = None

    def waits_for_seal(self) -> bool:
        """Whether the last lines have no seal and can get one now. Raises OSError."""
        if self._unsealed and self._key is not None:
            files = numbered(self._folder, self._name) if self._folder.exists() else []
            last = files[-1][1].read_bytes().rstrip(b"\n").split(b"\n")[-1] if files else b""
            self._unsealed = bool(files) and (chain.read(last) or {}).get("event") != chain.SEAL
        return self._unsealed and self._key is not None

    def write(self, entries: list[Entry], now: float) -> None:
        """Append the entries and a seal. Entries that are durable are removed from `entries`, even if it raises
        OSError."""
        self._next, self._taken = self.head, 0
        self._buffer.clear()
        try:
            notes = self._open(now)
            for note in notes:
                self._add(note)
            for entry in tuple(entries):
                if self._size + len(self._buffer) >= self._limit:
                    self._sync(entries, now)
                    self._begin_file(now)
                self._add(entry)
                self._taken += 1
            self._sync(entries, now)
            self.found += notes
        except OSError:
            with contextlib.suppress(OSError):  # an incomplete group is removed
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
        self._left = (_file_id(os.fstat(self._descriptor)), self._size)
        del entries[: self._taken]
        self._taken = 0
        self._buffer.clear()
        if head.oldest != old:
            for number, path in numbered(self._folder, self._name):
                if number < head.oldest:
                    path.unlink()

    def _open(self, now: float) -> list[Entry]:
        """Open the newest file at its end. Returns entries about what was wrong with it."""
        if self._folder_id is None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._folder_id = _file_id(self._folder.stat())
        elif _file_id(self._folder.stat()) != self._folder_id:
            raise OSError(errno.ESTALE, "it was deleted or replaced while brokerd runs", str(self._folder))
        if self._left is not None:
            with contextlib.suppress(FileNotFoundError):
                self._append_to(self.head.file)
                if self._left == (_file_id(os.fstat(self._descriptor)), self._size):
                    return []
        return self._resume(now)

    def _resume(self, now: float) -> list[Entry]:
        """The end, by the files' own account, held against what is known of it."""
        notes: list[Entry] = []
        files = numbered(self._folder, self._name)
        while files and not _without_torn_line(files[-1][1], notes, now):
            files.pop()[1].unlink()
        found, remembered = _end(*files[-1]) if files else Head(), self._remembered
        known = max(self.head, remembered or Head(), key=lambda head: head.seq)
        self._next = found
        if found.seq < known.seq or (found.seq == known.seq and found.hash != known.hash):
            self._next = replace(known, file=max(found.file, known.file))
        elif remembered is None or not _has(files, remembered):
            self._next = replace(found, seq=found.seq + 1)  # the gap shows the cut to `brokerctl audit verify`
        if self._next != found:
            words, seq = CUT, remembered.seq if remembered else None
            if remembered is None:
                words = END_UNKNOWN
            notes.append({"time": now, "event": words, "found": found.seq, "remembered": seq or known.seq or None})
        if files and found.hash != self.head.hash and (open_lines := _unsealed(files[-1][1])):
            notes.append({"time": now, "event": UNSEALED, "lines": open_lines, "up_to": found.seq})
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
        """Begin the next file with its first line. The oldest files are deleted when that is durable, if the series is
        too large."""
        files = numbered(self._folder, self._name)
        number = max((self._next.file, *(each for each, _ in files))) + 1
        sizes = [(each, path.stat().st_size) for each, path in files]
        oldest = self._next.oldest  # it stays, even if older files are missing already: `verify` reports them
        while sizes and sum(size for _, size in sizes) > self._limit * (FILES - 1):
            oldest = sizes.pop(0)[0] + 1
        self._close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self._path(number), flags, 0o600)
        self._size = 0
        sync_folder(self._folder)
        line, self._next = chain.opening(self._name, now, self._next, number, oldest)
        self._buffer += line

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}-{number:04}.jsonl"


def _file_id(found: os.stat_result) -> FileId:
    return found.st_dev, found.st_ino


def numbered(folder: Path, series: str) -> list[tuple[int, Path]]:
    """The existing files of a series with their numbers, oldest first. Raises OSError."""
    form = re.compile(rf"{series}-([0-9]{{4,9}})\.jsonl")
    return sorted((int(found[1]), path) for path in folder.iterdir() if (found := form.fullmatch(path.name)))


def _without_torn_line(path: Path, notes: list[Entry], now: float) -> bool:
    """Remove an incomplete last line, left by a crash, and add an entry about it. Returns whether lines are left."""
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if torn := content[end:]:
        os.truncate(path, end)
        text = torn[: chain.LONGEST].decode(errors="backslashreplace")
        notes.append({"time": now, "event": TORN, "bytes": len(torn), "text": text})
    return end > 0


def _end(number: int, path: Path) -> Head:
    """The head that the last line of a file gives."""
    lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    first, last = chain.read(lines[0]) or {}, chain.read(lines[-1]) or {}
    oldest = first.get("oldest")
    return Head(last.get("seq", 0), chain.digest(lines[-1]), number, oldest if type(oldest) is int else 1)


def _unsealed(path: Path) -> int:
    """How many lines are after the last seal."""
    lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    seals = (
        number for number, line in enumerate(reversed(lines)) if (chain.read(line) or {}).get("event") == chain.SEAL
    )
    return next(seals, len(lines))


def _has(files: list[tuple[int, Path]], head: Head) -> bool:
    """Whether the line that a head names is in the files, or was in a file that is deleted by now."""
    if not head.seq or (files and files[0][0] > head.file):
        return True
    lines = next((path.read_bytes().split(b"\n") for number, path in files if number == head.file), [])
    return any(chain.digest(line) == head.hash for line in lines)
