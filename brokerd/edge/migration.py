# A store of an earlier release becomes one of this release: a copy is kept, then every step is made in one transaction.
# Whoever is killed in between finds the old store or the new one. What the steps are is edge/schema.py's matter.
from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from brokerd import __version__
from brokerd.core.ports import StoreUnavailable
from brokerd.edge import schema
from brokerd.edge.database import FILE, Database

COPY = f"{FILE}.before-"  # and the schema that came then
SLICE = 8 * 1024 * 1024  # bytes that are written between two words to who waits

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Migration:
    """What was done at the start. `copy`: the store as it was before."""

    before: int
    after: int
    copy: Path


def migrated(database: Database, progress: Progress) -> Migration | None:
    """Bring the store to the present schema; None where it has that, or a later one. `progress` is called with words,
    again and again. Blocking. Raises StoreUnavailable: nothing was changed then."""
    before = database.schema()
    if before >= schema.VERSION:
        return None
    copy = database.path.with_name(f"{COPY}{schema.VERSION}")
    words = f"bringing the store from schema {before} to {schema.VERSION}"
    progress(words)
    try:
        _keep(database.snapshot(), copy, lambda: progress(words))
        _step(database, before)
    except (sqlite3.Error, OSError) as error:
        needs = f"it needs room for another file like it, {copy.name}"
        raise StoreUnavailable(f"{database.path}: {words}: {error}; {needs}") from None
    discard_copies(database.path.parent, but=copy)
    return Migration(before, schema.VERSION, copy)


def discard_copies(folder: Path, but: Path | None = None) -> None:
    """Delete the copies from before earlier migrations. One that stays costs room, and is tried again next time."""
    for path in folder.glob(f"{COPY}*"):
        if path != but:
            with contextlib.suppress(OSError):
                path.unlink()


def _keep(content: bytes, copy: Path, progress: Callable[[], None]) -> None:
    """Durably, under its name only when it is whole; nobody else may read it."""
    fresh = copy.with_name(f"{copy.name}.new")
    fresh.unlink(missing_ok=True)  # of a try that was interrupted
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for start in range(0, len(content), SLICE):
                progress()
                file.write(content[start : start + SLICE])
            file.flush()
            os.fsync(descriptor)
        fresh.rename(copy)
    finally:
        fresh.unlink(missing_ok=True)
    folder = os.open(copy.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _step(database: Database, before: int) -> None:
    database.begin()
    try:
        database.change_schema(schema.statements(before))
        database.set_meta(schema.SCHEMA, str(schema.VERSION))
        database.set_meta(schema.RELEASE, __version__)
        database.set_commits(database.commits() + 1)
        database.commit()
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.rollback()
        raise
