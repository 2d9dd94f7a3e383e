# Brings a store of an earlier release to the present schema: keeps a copy, then makes every step in one transaction, so
# that a crash leaves the old store or the new one. schema.py has the steps.
from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from brokerd import __version__
from brokerd.core.ports import StoreUnavailable
from brokerd.edge.files.new_file import new_file, sync_folder
from brokerd.edge.store import schema
from brokerd.edge.store.database import FILE, Database

COPY = f"{FILE}.before-"  # followed by the new schema's number
SLICE = 8 * 1024 * 1024  # bytes that are written between two reports of progress

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Migration:
    """The schemas before and after. `copy`: the store as it was before."""

    before: int
    after: int
    copy: Path


def migrated(database: Database, progress: Progress) -> Migration | None:
    """Bring the store to the present schema; None: it has that or a later one. `progress` is called repeatedly.
    Blocking. Raises StoreUnavailable: then nothing was changed."""
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
    """Delete the copies from before earlier migrations. One that cannot be deleted is tried again next time."""
    for path in folder.glob(f"{COPY}*"):
        if path != but:
            with contextlib.suppress(OSError):
                path.unlink()


def _keep(content: bytes, copy: Path, progress: Callable[[], None]) -> None:
    """Write the copy durably, under its name only when it is whole. Nobody else may read it."""
    fresh = copy.with_name(f"{copy.name}.new")
    fresh.unlink(missing_ok=True)  # left by an interrupted try
    try:
        with new_file(fresh) as file:
            for start in range(0, len(content), SLICE):
                progress()
                file.write(content[start : start + SLICE])
        fresh.rename(copy)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(copy.parent)


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
