# What a test has a release do to a store, by that release's own code: python release_tasks.py FOLDER WORK …, with the
# release first in the path. It uses only what every release has.
from __future__ import annotations

import base64
import dataclasses
import functools
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import trio

# from release_tasks.py's own folder
from release_names import (  # type: ignore[import-not-found]
    KEK,
    MACHINE,
    TODAYS,
    AccessToken,
    Bound,
    Breaker,
    DownscopedToken,
    Metadata,
    Moment,
    PendingRevocation,
    Record,
    RefreshToken,
    Secret,
    SqliteStore,
    State,
    SystemEntropy,
    Target,
    UnrevokedToken,
    record,
)

PRINT = "f" * 32
NOW = Moment(1_800_000_000.0, 5_000.0, "boot-1")


def access(value: str) -> AccessToken:
    return AccessToken(Secret(f"test-only-{value}"), "Bearer", NOW, 600.0, 0.25, f"id-{value}", ("read", "write"))


def refresh(value: str) -> RefreshToken:
    restore = Target(("read",), "https://audience.example", "https://resource.example")
    return RefreshToken(Secret(f"test-only-{value}"), NOW, 86_400.0, 0.75, f"id-{value}", True, restore)


def full(name: str, state: State) -> Record:
    """A record with something in every field."""
    return record(
        name,
        generation=7,
        state=state,
        access_token=access("access"),
        refresh_token=refresh("refresh"),
        downscoped=(DownscopedToken(Target(("read",)), access("downscoped"), "requested", NOW),),
        superseded=(access("superseded"),),
        pending_revocations=(
            PendingRevocation(access_token=access("revoked")),
            PendingRevocation(refresh_token=refresh("revoked")),
        ),
        revocation_retry=NOW.after(1),
        revocation_failures=2,
        unrevoked=(UnrevokedToken("access token", NOW.after(60)),),
        revoked_locally=True,
        interrupted=NOW,
        retry=NOW.after(3),
        rotation_retry=NOW.after(4),
        rotation_failures=5,
        refused=b"digest",
        refused_until=NOW.after(6),
        requested="requested",
        proof_key=Secret("test-only-proof-key"),
        renewals=8,
        failures=9,
        last_error="503",
        changed=NOW,
        subject="somebody",
    )


async def fill(store: SqliteStore) -> None:
    """A record in every state, one without anything, one that is being sent, one that lies dormant, and the rest."""
    for state in State:
        await store.write(full(str(state), state), PRINT, None, concludes=True)
    await store.write(Record("empty"), PRINT, None, concludes=True)
    await store.write(full("sent", State.READY), PRINT, None, concludes=True)
    await store.begin("sent", PRINT, 7, NOW)
    await store.write(full("dormant", State.READY), PRINT, None, concludes=True)
    await store.set_dormant([("dormant", PRINT)], 12.5)
    await store.write_breaker("corp", Breaker(3, NOW))
    await store.write_metadata(
        "corp", Metadata("https://corp.example", NOW, {"token_endpoint": "https://corp.example/token"})
    )


async def audited(store: SqliteStore) -> None:
    """What the audit log keeps in the table meta. The release before this one has other names for keys and `do`."""
    present = store if hasattr(store, "do") else None
    keys = present.keys if present else store._keys  # type: ignore[attr-defined]

    def work(database: Any) -> None:
        for name, plain in (("audit_key", b"a" * 32), ("audit_heads", b"\x80")):
            bound = Bound(keys.store, name, 0, "meta")
            database.set_meta(name, base64.b64encode(keys.seal(database, plain, bound)).decode())

    await (present.do if present else store._do)(work)  # type: ignore[attr-defined]


async def go_on(store: SqliteStore) -> None:
    """What a daemon does to a store while it runs, each kind of write once."""
    await store.begin("ready", PRINT, 7, NOW)
    await store.write(dataclasses.replace(full("ready", State.READY), generation=8), PRINT, 7, concludes=True)
    await store.write(Record("new"), PRINT, None, concludes=True)
    await store.begin("retrying", PRINT, 7, NOW)
    await store.set_dormant([("dormant", PRINT)], None)
    await store.set_dormant([("empty", PRINT)], 13.5)
    await store.forget("revoked", PRINT)
    await store.write_breaker("corp", Breaker(4, None))
    await store.write_metadata("other", Metadata("https://other.example", NOW))
    await store.adopt()


async def rotate(store: SqliteStore) -> None:
    await store.reencrypt()


def tell(store: SqliteStore) -> None:
    """Everything that it finds, as JSON."""
    rows = {f"{row.grant} {row.fingerprint}": [plain(row.record), row.dormant_since, row.damage] for row in store.all()}
    rest = {name: plain(value) for name, value in {**store.breakers(), **store.metadata()}.items()}
    found = {"rows": rows, "breakers": plain(store.breakers()), "metadata": rest, "adopted": store.adopted}
    print(json.dumps(found, sort_keys=True))


def plain(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    names = getattr(value, "__struct_fields__", getattr(value, "__dataclass_fields__", None))
    if names is not None:
        return {TODAYS.get(name, name): plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    return value.hex() if isinstance(value, bytes) else value


async def running(work: Any, folder: Path) -> None:
    with closing(SqliteStore(folder, KEK, MACHINE, SystemEntropy())) as store:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await work(store)
            nursery.cancel_scope.cancel()


def main() -> None:
    folder, works = Path(sys.argv[1]), sys.argv[2:]
    try:
        for work in works:
            if work == "tell":
                with closing(SqliteStore(folder, KEK, MACHINE, SystemEntropy())) as store:
                    tell(store)
            else:
                trio.run(functools.partial(running, globals()[work], folder))
    except Exception as error:
        if isinstance(error, sqlite3.Error):
            raise
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
