# The store's schema: the first one, and each step since. A new store takes every step too, so that each schema is made
# in one way. docs/store.md says what a step may do.
from __future__ import annotations

from collections.abc import Mapping

from brokerd import __version__

APPLICATION_ID = 0x62726B64  # "brkd": identifies the file, also for file(1)
FIRST = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE data_key (id INTEGER PRIMARY KEY, wrapped BLOB NOT NULL, seals INTEGER NOT NULL);
CREATE TABLE record (
    name TEXT NOT NULL, fingerprint TEXT NOT NULL, generation INTEGER NOT NULL, sealed BLOB NOT NULL,
    dormant_since REAL, PRIMARY KEY (name, fingerprint)
) WITHOUT ROWID;
CREATE TABLE journal (
    name TEXT NOT NULL, fingerprint TEXT NOT NULL, generation INTEGER NOT NULL,
    wall REAL NOT NULL, boot REAL NOT NULL, boot_id TEXT NOT NULL, PRIMARY KEY (name, fingerprint)
) WITHOUT ROWID;
CREATE TABLE breaker (
    provider TEXT NOT NULL PRIMARY KEY, failures INTEGER NOT NULL, wall REAL, boot REAL, boot_id TEXT
) WITHOUT ROWID;
CREATE TABLE metadata (provider TEXT NOT NULL PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
"""
# By the schema that the step leads to. A step may only add tables: the release before must not notice it.
STEPS = {
    2: "CREATE TABLE resealing (data_key INTEGER PRIMARY KEY, since REAL NOT NULL)",  # key rotate --full, unfinished
    3: """CREATE TABLE history (
    name TEXT NOT NULL, fingerprint TEXT NOT NULL, packed BLOB NOT NULL, PRIMARY KEY (name, fingerprint)
) WITHOUT ROWID""",  # how the last exchanges ended: not sealed, there is no secret in it
}
VERSION = 1 + len(STEPS)
# PRAGMA user_version is the oldest schema whose release can use the file: that of the release before. The file's own
# schema, and the release that made it, are rows of the table meta.
USABLE_BY = max(1, VERSION - 1)
SCHEMA, RELEASE = "schema", "release"


def statements(since: int) -> list[str]:
    """The statements from schema `since` to the present one, without the rows of the table meta."""
    return [STEPS[version] for version in range(since + 1, VERSION + 1)] + [f"PRAGMA user_version = {USABLE_BY}"]


def whole() -> str:
    """The present schema of a new store."""
    return FIRST + ";\n".join(statements(1))


def too_new(meta: Mapping[str, str], usable_by: int) -> str:
    """Why this release cannot use a file, and what to do."""
    newer = f"brokerd {meta.get(RELEASE, 'of a later release')} (schema {meta.get(SCHEMA, usable_by)})"
    ours = f"this is {__version__}, more than one release older (schema {VERSION})"
    return f"was written by {newer}; {ours}; install that release or the one before it, or restore a copy from before"
