# Opens copies of a store and is killed at every point of the migration: `python killed_migration.py FOLDER SCRATCH`.
# Prints how many points there are, and what the next start found after each.
from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from brokerd.edge.store import migration, schema
from brokerd.edge.store.database import Database
from brokerd.edge.store.store import SqliteStore
from brokerd.edge.system.entropy import SystemEntropy
from tests.scenario.upgrade.release_names import KEK, MACHINE

POINTS = ((os, "open"), (os, "fsync"), (Path, "rename"), (Database, "commit"), (Database, "change_schema"))


def opened(folder: Path) -> SqliteStore:
    return SqliteStore(folder, KEK, MACHINE, SystemEntropy())


def dying(folder: Path, at: int) -> None:
    """Opens it in this process, which is killed before or after the `at`-th of all calls."""
    migration.SLICE = 4096
    passed = 0

    def counted(call: Any) -> Any:
        def counting(*values: Any, **named: Any) -> Any:
            nonlocal passed
            for part in range(2):
                if part:
                    found = call(*values, **named)
                passed += 1
                if passed == at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return found

        return counting

    for owner, name in POINTS:
        setattr(owner, name, counted(getattr(owner, name)))
    opened(folder).close()


def main() -> None:
    source, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    found, at, killed = [], 0, True
    while killed:
        at += 1
        folder = scratch / str(at)
        folder.mkdir()
        for path in source.iterdir():
            os.link(path, folder / path.name) if path.name == "brokerd.db" else shutil.copy2(path, folder)
        # a link keeps the inode, which is the store's; what is written to it is undone below
        before = (source / "brokerd.db").read_bytes()
        child = os.fork()
        if not child:
            dying(folder, at)
            os._exit(0)
        killed = os.waitpid(child, 0)[1] == signal.SIGKILL
        with closing(opened(folder)) as store:
            rows = [(row.grant, row.record is not None) for row in store.all()]
            found.append([rows, store.adopted, store._database.schema() == schema.VERSION, copies(folder)])
        (source / "brokerd.db").write_bytes(before)
    print(json.dumps(found))


def copies(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*before*"))


if __name__ == "__main__":
    main()
