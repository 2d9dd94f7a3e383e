# Stores on real SQLite files, for tests: a record with everything in it, and how to open, fill and look into a store.
from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import strategies as st

from brokerd.core.grant.record import Doubt, PendingRevocation, PreviousRefreshToken, Record
from brokerd.core.grant.state import State
from brokerd.core.grant.tokens import AccessToken, RefreshToken
from brokerd.core.ports import StoredRecord, StoreError
from brokerd.core.sealing import fingerprint
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.edge.store import database
from brokerd.edge.store.store import SqliteStore
from brokerd.edge.system.entropy import SystemEntropy
from tests.unit.core.values import NOW, access, refresh

KEK, OTHER_KEK = b"k" * 32, b"x" * 32
PRINT = fingerprint(("ix-api", "https://api.example", "api_key=k"))
OTHER_PRINT = fingerprint(("ix-api", "https://elsewhere.example", "api_key=k"))
SECRETS = ("hunter2-access-token", "hunter2-refresh-token", "hunter2-doomed-token")

FULL = Record(
    "reports",
    generation=7,
    state=State.RETRYING,
    access_token=access(
        600.0, value=SECRETS[0], id="id-1", scope=("read", "write"), fields={"key": Secret(SECRETS[1])}
    ),
    refresh_token=refresh(None, value=SECRETS[1], id="id-2", rejected=NOW),
    previous_refresh=PreviousRefreshToken(refresh(value=SECRETS[1]), NOW),
    pending_revocations=(
        PendingRevocation(access_token=access(value=SECRETS[2])),
        PendingRevocation(refresh_token=refresh(value=SECRETS[2])),
    ),
    interrupted=NOW,
    retry=NOW.after(5),
    retry_after=NOW.after(4),
    rotation_retry=NOW.after(6),
    rotation_failures=2,
    refused=b"digest",
    doubt=Doubt(b"password", b"request", 2, NOW),
    proven_password=b"proven",
    requested="asked",
    renewals=9,
    failures=3,
    tried_credentials=True,
    last_error="503",
    first_error="200",
    changed=NOW,
)


def opened(folder: Path, kek: bytes = KEK, machine: str = "machine-1", **more: Any) -> SqliteStore:
    return SqliteStore(folder, kek, machine, SystemEntropy(), **more)


@asynccontextmanager
async def running(
    folder: Path, kek: bytes = KEK, machine: str = "machine-1", **more: Any
) -> AsyncIterator[SqliteStore]:
    """An open store that makes its writes, as the daemon holds it."""
    with trio.fail_after(20), closing(opened(folder, kek, machine, **more)) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            yield store
            nursery.cancel_scope.cancel()


def stored(folder: Path, kek: bytes = KEK) -> dict[tuple[str, str], StoredRecord]:
    """Everything that a fresh process finds."""
    with closing(opened(folder, kek)) as store:
        return {(row.grant, row.fingerprint): row for row in store.all()}


async def written(folder: Path, *records: Record, print_: str = PRINT) -> None:
    async with running(folder) as store:
        for record in records:
            await store.write(record, print_, None, concludes=True)


@contextmanager
def sql(folder: Path) -> Iterator[sqlite3.Connection]:
    """The file as somebody else's hands reach it."""
    with closing(sqlite3.connect(folder / database.FILE)) as connection:
        connection.text_factory = lambda data: data.decode(errors="replace")
        yield connection
        connection.commit()


def content(folder: Path) -> list[object]:
    """Every row of every table, and the file's own marks."""
    with sql(folder) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        marks = [connection.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "application_id")]
        return [*marks, *((name, sorted(connection.execute(f"SELECT * FROM {name}"), key=repr)) for name in tables)]


def refused(folder: Path, kek: bytes = KEK) -> str:
    """The error that opening ends in; nothing has been changed by it."""
    file = folder / database.FILE
    before = file.read_bytes()
    with pytest.raises(StoreError) as caught:
        opened(folder, kek)
    assert file.read_bytes() == before
    return str(caught.value)


moments = st.builds(Moment, st.floats(0, 1e10), st.floats(0, 1e9), st.text(max_size=5), st.booleans())


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


seconds = st.none() | st.floats(-1e9, 1e9)


secrets = st.builds(Secret, texts)


access_tokens = st.builds(
    AccessToken,
    secrets,
    texts,
    moments,
    seconds,
    st.floats(0, 1),
    st.none() | texts,
    st.none() | st.tuples(texts),
    st.none() | texts,
    st.dictionaries(texts, secrets, max_size=3),
)


refresh_tokens = st.builds(RefreshToken, secrets, moments, seconds, st.floats(0, 1), st.none() | texts)


records = st.builds(
    Record,
    name=st.just("reports"),
    generation=st.integers(0, 2**40),
    state=st.sampled_from([state for state in State if state is not State.RENEWING]),
    access_token=st.none() | access_tokens,
    refresh_token=st.none() | refresh_tokens,
    pending_revocations=st.lists(
        st.builds(PendingRevocation, access_tokens) | st.builds(PendingRevocation, st.none(), refresh_tokens),
        max_size=2,
    ).map(tuple),
    interrupted=st.none() | moments,
    retry=st.none() | moments,
    refused=st.none() | st.binary(max_size=32),
    last_error=st.none() | texts,
    changed=st.none() | moments,
)


@contextmanager
def full_disk(store: SqliteStore) -> Iterator[None]:
    """Not one page more."""
    run = store._database._connection.execute
    pages = run("PRAGMA page_count").fetchone()[0]
    run(f"PRAGMA max_page_count = {pages}")
    yield
    run("PRAGMA max_page_count = 1000000")


BIG = replace(FULL, access_token=access(value="x" * 200_000))
