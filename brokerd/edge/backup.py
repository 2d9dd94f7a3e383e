# Backup files: a whole store as it was at one moment, its records and data keys sealed as they were, behind a line that
# says what it is and how it is known to be whole. One is made by the daemon, and put back where there is none.
from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import time
from pathlib import Path

from brokerd.core.ports import StoreError
from brokerd.edge import schema
from brokerd.edge.database import FILE
from brokerd.edge.lock import Lock
from brokerd.edge.store import OLDER

HEADER = re.compile(rb"brokerd-backup-1 (\d{1,15}) ([0-9a-f]{64})\n")
HEADER_LONGEST = 100  # bytes
BESIDE = ("", "-wal", "-shm")  # what belongs to a database


class NotRestored(Exception):
    """Nothing was changed. The text says why, and what to do."""


def header(size: int, digest: str) -> bytes:
    return f"brokerd-backup-1 {size} {digest}\n".encode()


def put_back(content: bytes, folder: Path, *, force: bool) -> Path | None:
    """Put what a backup holds into the state directory, where it spends nothing until it was adopted. A store that is
    there is kept under another name, which is returned, and only touched with `force`. Raises NotRestored, OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lock = Lock(folder)
    except StoreError as error:
        raise NotRestored(str(error)) from None
    try:
        there = folder / FILE
        if there.exists() and not force:
            raise NotRestored(f"there is a store in {folder} already; --force keeps it under another name")
        fresh = folder / f"{FILE}.restored"
        try:
            _write(fresh, content)
            kept = _set_aside(there)
            fresh.rename(there)
        finally:
            fresh.unlink(missing_ok=True)
        _sync(folder)
        return kept
    finally:
        lock.release()


def content(file: Path) -> bytes:
    """The store that a backup holds. Raises NotRestored, OSError."""
    with file.open("rb") as opened:
        found = HEADER.fullmatch(opened.readline(HEADER_LONGEST))
        if not found:
            raise NotRestored(f"{file} is no backup of brokerd's, or was made by a newer one")
        data = opened.read()
    if len(data) != int(found[1]) or hashlib.sha256(data).hexdigest() != found[2].decode():
        raise NotRestored(f"{file} is damaged or cut off; take another backup")
    return data


def _write(path: Path, content: bytes) -> None:
    """The database, durably, as one that was left elsewhere."""
    path.unlink(missing_ok=True)  # of a try that was interrupted
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            run = connection.execute
            version, ours = run("PRAGMA user_version").fetchone()[0], run("PRAGMA application_id").fetchone()[0]
            sound = ours == schema.APPLICATION_ID and version <= schema.VERSION
            if not sound or run("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise NotRestored("what is in the backup is no store that this version of brokerd knows")
            run("PRAGMA synchronous=FULL")
            run("INSERT OR REPLACE INTO meta VALUES ('machine', ?)", (OLDER,))
    except sqlite3.Error as error:
        raise NotRestored(f"what is in the backup cannot be opened: {error}") from None


def _set_aside(there: Path) -> Path | None:
    if not there.exists():
        return None
    kept = there.with_name(f"{FILE}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    if kept.exists():
        raise NotRestored(f"{kept} is there already; try again in a second")
    for end in BESIDE:
        with contextlib.suppress(FileNotFoundError):
            there.with_name(f"{FILE}{end}").rename(kept.with_name(f"{kept.name}{end}"))
    return kept


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
