# A store goes forwards from every released schema and one release back, by the released code itself; and whoever is
# killed on the way, or finds no room, has the old store or the new one.
from __future__ import annotations

import json
import re
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from brokerd.edge.store import schema
from brokerd.edge.store.migration import COPY
from tests.scenario.upgrade.releases import BACK, OLDER_SCHEMA, RELEASED, ROOT, run_tasks, unpacked

FILE, KEPT = "brokerd.db", f"{COPY}{schema.VERSION}"
SMALL = 36 * 1024  # bytes: more than SQLite's index of its log, less than the store


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the newest release that has the schema before today's."""
    return unpacked(OLDER_SCHEMA, tmp_path_factory.mktemp("before"))


def meta(folder: Path, name: str = FILE) -> dict[str, str]:
    """The table, and `usable_by`."""
    with closing(sqlite3.connect(folder / name)) as connection:
        (usable_by,) = connection.execute("PRAGMA user_version").fetchone()
        return {**dict(connection.execute("SELECT key, value FROM meta")), "usable_by": str(usable_by)}


def as_known(newer: Any, older: Any) -> Any:
    """What the newer release finds, without the fields that the older one does not have, which then say nothing."""
    if isinstance(newer, dict) and isinstance(older, dict):
        return {key: as_known(value, older.get(key)) for key, value in newer.items() if key in older or value}
    if isinstance(newer, list) and isinstance(older, list):
        return [as_known(*pair) for pair in zip(newer, older, strict=True)]
    return newer


@pytest.mark.parametrize("archive", RELEASED, ids=lambda path: path.name)
def test_a_store_of_every_release_comes_forward_with_everything_in_it(
    archive: Path, state: Path, tmp_path: Path
) -> None:
    release = unpacked(archive, tmp_path / "release")
    found = run_tasks(release, state, "fill", "audited", "tell")
    before = meta(state)
    assert len(found["rows"]) == 9
    assert not any(damage for _, _, damage in found["rows"].values())
    assert as_known(run_tasks(ROOT, state, "tell"), found) == found
    after = meta(state)
    assert (after["schema"], after["usable_by"]) == (str(schema.VERSION), str(schema.USABLE_BY))
    assert {key: after[key] for key in before if key.startswith("audit")} == {
        key: value for key, value in before.items() if key.startswith("audit")
    }
    if before.get("schema") == after["schema"]:
        assert not (state / KEPT).exists(), "nothing was changed, so no copy is needed"
    else:
        assert meta(state, KEPT) == before
        assert (state / KEPT).stat().st_mode & 0o777 == 0o600
    assert as_known(run_tasks(ROOT, state, "rotate", "tell"), found) == found
    assert not (state / KEPT).exists(), "the old data key opens it"


@pytest.mark.parametrize("archive", BACK, ids=lambda path: path.name)
def test_the_release_before_goes_on_with_a_store_of_this_one_and_back(
    archive: Path, state: Path, tmp_path: Path
) -> None:
    before = unpacked(archive, tmp_path / "release")
    found = run_tasks(ROOT, state, "fill", "tell")
    with closing(sqlite3.connect(state / FILE)) as connection, connection:
        connection.execute("INSERT INTO resealing VALUES (1, 2.5)")
    assert run_tasks(before, state, "tell") == as_known(found, run_tasks(before, state, "tell"))
    found = run_tasks(before, state, "go_on", "tell")
    assert as_known(run_tasks(ROOT, state, "tell"), found) == found
    assert meta(state)["schema"] == str(schema.VERSION)
    with closing(sqlite3.connect(state / FILE)) as connection:
        assert connection.execute("SELECT * FROM resealing").fetchall() == [(1, 2.5)]
    assert run_tasks(before, state, "rotate", "tell") == found
    assert as_known(run_tasks(ROOT, state, "tell"), found) == found


def test_two_releases_back_is_refused_and_changes_nothing(before: Path, state: Path) -> None:
    run_tasks(ROOT, state, "fill")
    with closing(sqlite3.connect(state / FILE)) as connection, connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION}")
    content = (state / FILE).read_bytes()
    with pytest.raises(AssertionError, match=r"StoreError: .* was written by brokerd .* more than one release older"):
        run_tasks(before, state, "tell")
    assert (state / FILE).read_bytes() == content


def test_a_store_of_the_release_after_is_used_as_it_is(state: Path) -> None:
    found = run_tasks(ROOT, state, "fill", "tell")
    with closing(sqlite3.connect(state / FILE)) as connection, connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION}")
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (schema.VERSION + 1,))
        connection.execute("CREATE TABLE later (a)")
    assert run_tasks(ROOT, state, "tell") == found
    assert (meta(state)["schema"], (state / KEPT).exists()) == (str(schema.VERSION + 1), False)


@pytest.mark.parametrize("step", schema.STEPS.values())
def test_a_step_only_adds_tables_which_the_release_before_never_looks_at(step: str) -> None:
    """A column would be too much already: it writes whole rows."""
    assert re.fullmatch(r"CREATE TABLE \w+ \([^;]+\)( WITHOUT ROWID)?", step)


def test_killed_at_any_point_of_a_migration_the_next_start_ends_it(before: Path, state: Path, tmp_path: Path) -> None:
    run_tasks(before, state, "fill")
    (tmp_path / "scratch").mkdir()
    command = [sys.executable, "-m", "tests.scenario.upgrade.killed_migration", state, tmp_path / "scratch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > 12, "the copy made, written, renamed, its folder synced; the schema changed, committed"
    for rows, adopted, is_present, copies in found:
        assert (len(rows), all(is_well for _, is_well in rows)) == (9, True)
        assert (adopted, is_present, copies) == (True, True, [KEPT])


def test_without_room_for_the_copy_the_old_store_stays_as_it_was(before: Path, state: Path) -> None:
    found = run_tasks(before, state, "fill", "tell")
    content = (state / FILE).read_bytes()
    assert len(content) > SMALL
    limit: Callable[[], None] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))  # noqa: E731
    with pytest.raises(AssertionError, match=f"StoreUnavailable: .*File too large; it needs room .*{KEPT}"):
        run_tasks(ROOT, state, "tell", limit=limit)
    assert (state / FILE).read_bytes() == content
    assert list(state.glob("*before*")) == []
    assert run_tasks(before, state, "tell") == found
