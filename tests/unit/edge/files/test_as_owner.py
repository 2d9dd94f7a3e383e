# Root acts as the owner of a path, or of any directory on the way to it, read while it is open; and a child process
# runs wholly as that user.
from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from brokerd.edge.files.as_owner import GROUP_AND_OTHERS, Owner, OwnerUnclear, act_as, owner_of
from tests.scenario.daemon.conftest import as_root, folder

__all__ = ["as_root", "folder"]
OTHER, ANOTHER = 60_978, 60_979  # users


@pytest.fixture
def tree(as_root: None, folder: Path) -> Path:
    """Folders of root and of two users, one in the other, with a file in each; and links to the folder of root."""
    for name, uid in (("roots", 0), ("others", OTHER), ("others/folder", OTHER), ("others/anothers", ANOTHER)):
        (folder / name).mkdir()
        (folder / name / "file").touch()
        os.chown(folder / name / "file", uid, uid)
        os.chown(folder / name, uid, uid)
    (folder / "others/link").symlink_to(folder / "roots")
    (folder / "relative").symlink_to("roots/../roots")
    (folder / "link").symlink_to("roots")
    os.chown(folder / "link", ANOTHER, ANOTHER, follow_symlinks=False)
    return folder


@pytest.mark.parametrize(
    ("path", "uid"),
    [
        ("roots/file", None),
        ("relative/file", None),
        ("roots/missing/too", None),
        ("others/file", OTHER),
        ("others/folder/missing", OTHER),
        ("others/../others/folder", OTHER),
        ("others/link/file", OTHER),
        ("link/file", ANOTHER),
    ],
)
def test_whoever_decides_what_is_found_there(tree: Path, path: str, uid: int | None) -> None:
    assert owner_of(tree / path) == (None if uid is None else Owner(uid, uid))


def test_two_users_who_decide_are_too_many(tree: Path) -> None:
    with pytest.raises(OwnerUnclear, match=f"decided by the user {OTHER} and the user {ANOTHER}"):
        owner_of(tree / "others/anothers/file")


def test_a_folder_of_root_in_which_others_write_is_nobodys_word(tree: Path) -> None:
    (tree / "roots").chmod(0o777)
    with pytest.raises(OwnerUnclear, match="can be written by others"):
        owner_of(tree / "roots/file")
    (tree / "roots").chmod(0o1777)
    assert owner_of(tree / "roots/file") is None, "in a sticky folder only owners exchange what is theirs"
    (tree / "roots").chmod(0o775)
    assert owner_of(tree / "roots/file") is None
    with pytest.raises(OwnerUnclear, match="can be written by others"):
        owner_of(tree / "roots/file", writable=GROUP_AND_OTHERS)


def test_what_is_not_there_and_others_could_put_there_is_nobodys_word(tree: Path) -> None:
    """Else they put it there between the look and root's work, which then runs a command of theirs."""
    (tree / "roots").chmod(0o1777)
    for path in ("roots/missing", "roots/missing/too"):
        with pytest.raises(OwnerUnclear, match="it does not exist, and others than root could create it"):
            owner_of(tree / path)
    assert owner_of(tree / "roots/missing", make=True) is None, "what root made is there"
    (tree / "others").chmod(0o1777)
    assert owner_of(tree / "others/missing") == Owner(OTHER, OTHER)


def test_links_in_a_ring_end(tree: Path) -> None:
    (tree / "ring").symlink_to("ring")
    with pytest.raises(OSError, match="symbolic links"):
        owner_of(tree / "ring")


def test_root_makes_folders_in_its_own_alone(tree: Path) -> None:
    assert owner_of(tree / "roots/new/state", make=True) is None
    assert stat.S_IMODE((tree / "roots/new/state").stat().st_mode) == 0o700
    assert owner_of(tree / "others/new/state", make=True) == Owner(OTHER, OTHER)
    assert not (tree / "others/new").exists()


def test_the_child_is_wholly_the_user_and_cannot_be_traced(as_root: None) -> None:
    def told() -> list[object]:
        owner = Path("/proc/self/mem").stat().st_uid  # root's, where the user may not trace it
        return [os.getresuid(), os.getresgid(), os.getgroups(), owner]

    found = act_as(Owner(OTHER, OTHER), told)
    assert found == [[OTHER] * 3, [OTHER] * 3, [OTHER], 0]
    assert os.geteuid() == 0
    assert act_as(None, told)[0] == (0, 0, 0)


def test_a_child_that_ends_without_a_word_is_an_error(as_root: None) -> None:
    with pytest.raises(ChildProcessError, match="ended early"):
        act_as(Owner(OTHER, OTHER), lambda: os._exit(3))
