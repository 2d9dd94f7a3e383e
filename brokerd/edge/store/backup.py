# Backup files: one line with a checksum, then a whole store at one moment, sealed as it was. The daemon makes them;
# this file reads them and restores a store.
from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
import time
from pathlib import Path

from brokerd.core.ports import StoreError
from brokerd.edge.files.new_file import new_file, sync_folder
from brokerd.edge.store import schema
from brokerd.edge.store.database import FILE
from brokerd.edge.store.lock import Lock
from brokerd.edge.store.store import OLDER

HEADER = re.compile(rb"brokerd-backup-1 (\d{1,15}) ([0-9a-f]{64})\n")
HEADER_LONGEST = 100  # bytes
SUFFIXES = ("", "-wal", "-shm")  # of a database's files


class NotRestored(Exception):
    """Nothing was changed. The text says why, and what to do."""


def header(size: int, digest: str) -> bytes:
    return f"brokerd-backup-1 {size} {digest}\n".encode()


def put_back(content: bytes, folder: Path, *, force: bool) -> Path | None:
    """Put the content of a backup into the state directory. The store sends no stored token before it is adopted. With
    `force` a store that exists is kept under another name, which is returned. Raises NotRestored, OSError."""
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
        sync_folder(folder)
        return kept
    finally:
        lock.release()


def content(file: Path) -> bytes:
    """The store in a backup. Raises NotRestored, OSError."""
    with file.open("rb") as opened:
        found = HEADER.fullmatch(opened.readline(HEADER_LONGEST))
        if not found:
            raise NotRestored(f"{file} is no backup of brokerd's, or was made by a newer one")
        data = opened.read()
    if len(data) != int(found[1]) or hashlib.sha256(data).hexdigest() != found[2].decode():
        raise NotRestored(f"{file} is damaged or cut off; take another backup")
    return data


def _write(path: Path, content: bytes) -> None:
    """Write the database durably, marked as older than this directory's store."""
    path.unlink(missing_ok=True)  # left by an interrupted try
    with new_file(path) as file:
        file.write(content)
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
    for end in SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            there.with_name(f"{FILE}{end}").rename(kept.with_name(f"{kept.name}{end}"))
    return kept
