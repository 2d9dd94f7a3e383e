# The path of a cgroup: from /proc if the kernel's id agrees, else by a search, which no user can make endless.
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokerd.edge.peer import cgroups
from tests.scenario.daemon.conftest import as_root

__all__ = ["as_root"]
USER = 60_978
UNIT = "user.slice/user-1000.slice/user@1000.service/app.slice/shop.service"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folders that stand for the cgroup file system."""
    monkeypatch.setattr(cgroups, "_mounted", lambda: str(tmp_path))
    cgroups._paths.clear()
    (tmp_path / UNIT).mkdir(parents=True)
    yield tmp_path
    cgroups._paths.clear()


def hidden(pid: int) -> str:
    raise cgroups.CgroupUnreadable("could not be read: /proc is closed")


def number(folder: Path) -> int:
    return folder.stat().st_ino


def test_proc_says_it_and_the_id_proves_it_without_a_search(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_from_proc", lambda pid: f"/{UNIT}")
    monkeypatch.setattr(cgroups, "_search", lambda: pytest.fail("searched"))
    assert cgroups.path_of(number(tree / UNIT), 1) == f"/{UNIT}"
    assert cgroups.known(number(tree / UNIT)) == f"/{UNIT}"


def test_what_proc_says_of_another_cgroup_is_not_believed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_from_proc", lambda pid: f"/{UNIT}")
    (tree / "system.slice").mkdir()
    assert cgroups.path_of(number(tree / "system.slice"), 1) == "/system.slice"


def test_a_user_who_makes_any_number_of_cgroups_hides_nobodys_but_their_own(
    tree: Path, as_root: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "_from_proc", hidden)
    monkeypatch.setattr(cgroups, "MAX_DELEGATED", 20)
    given = [tree / f"user.slice/user-{uid}.slice/user@{uid}.service" for uid in (999, 1001)]
    for folder in given:
        for name in range(50):
            (folder / f"{name}/below").mkdir(parents=True)
        for each in (folder, *folder.rglob("*")):
            os.chown(each, USER, USER)
    os.chown(tree / Path(UNIT).parent.parent, USER + 1, USER + 1)
    assert cgroups.path_of(number(tree / UNIT), 1) == f"/{UNIT}"
    assert all(
        sum(path.startswith(f"/{folder.relative_to(tree)}/") for path in cgroups._paths.values()) <= 20
        for folder in given
    )
    gone = max(map(number, tree.rglob("*"))) + 1_000
    with pytest.raises(cgroups.CgroupUnreadable, match="not below"):
        cgroups.path_of(gone, 1)
