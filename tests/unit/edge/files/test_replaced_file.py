# Files that are replaced in one step: what stands at the path at each moment, and who may be there.
from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from brokerd.edge.files import replaced_file
from brokerd.edge.files.kept_files import FilesInUse, KeptFile, KeptFiles


def test_until_all_is_written_the_old_file_is_there(tmp_path: Path) -> None:
    path, seen = tmp_path / "token", list[tuple[str, list[str]]]()
    path.write_text("old")

    def look() -> None:
        others = [each.read_text() for each in tmp_path.iterdir() if each != path]
        seen.append((path.read_text(), others))

    inode = replaced_file.replace(path, b"new", 0o400, None, look)
    assert seen == [("old", ["new"])]
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode), path.stat().st_ino) == ("new", 0o400, inode)
    assert [each.name for each in tmp_path.iterdir()] == ["token"]


def test_what_fails_leaves_nothing_beside_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old")

    def fail() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        replaced_file.replace(path, b"new", 0o400, None, fail)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


def test_nobody_else_can_read_it_at_any_moment(tmp_path: Path) -> None:
    modes = []

    def look() -> None:
        modes.extend(stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir())

    was = os.umask(0)
    try:
        replaced_file.replace(tmp_path / "token", b"new", 0o400, None, look)
    finally:
        os.umask(was)
    assert modes == [0o400]


def test_a_long_name_has_room_beside_it(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    replaced_file.replace(path, b"new", 0o400, None)
    assert path.read_text() == "new"


def test_links_are_replaced_and_removed_themselves(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "token"
    other.write_text("mine")
    path.symlink_to(other)
    assert not replaced_file.holds(path, b"mine", 0o644, None)
    replaced_file.remove(path)
    assert (path.is_symlink(), other.read_text()) == (False, "mine")
    replaced_file.remove(path)
    replaced_file.remove(tmp_path / "no" / "folder")


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        (lambda path: None, True),
        (lambda path: path.chmod(0o600), False),
        (lambda path: os.link(path, path.with_name("second")), False),
        (lambda path: path.write_text("newer") if path.chmod(0o600) is None else None, False),
        (lambda path: path.unlink(), False),
        (lambda path: (path.unlink(), os.mkfifo(path, 0o400)), False),
    ],
)
def test_what_is_there_already_is_known(tmp_path: Path, change: object, holds: bool) -> None:
    path = tmp_path / "token"
    replaced_file.replace(path, b"new", 0o400, None)
    assert callable(change)
    change(path)
    assert replaced_file.holds(path, b"new", 0o400, None) == holds


def test_what_is_remembered_comes_back_and_one_process_at_a_time_has_it(tmp_path: Path) -> None:
    kept = KeptFiles(tmp_path / "state")
    kept.save(KeptFile("/run/a", 5.0, 7, due=True))
    kept.save(KeptFile("/run/b"))
    with pytest.raises(FilesInUse, match="another process"):
        KeptFiles(tmp_path / "state")
    (tmp_path / "state" / "torn.json").write_text('{"path"')
    kept.close()
    again = KeptFiles(tmp_path / "state")
    assert again.read() == {Path("/run/a"): KeptFile("/run/a", 5.0, 7, due=True), Path("/run/b"): KeptFile("/run/b")}
    again.forget(Path("/run/a"))
    assert list(again.read()) == [Path("/run/b")]
    again.close()


def test_what_others_put_beside_a_file_keeps_no_part_of_a_token_there(tmp_path: Path) -> None:
    for number in range(20):
        left = tmp_path / f".token.brokerd-{number:08x}"
        left.mkdir() if number % 2 else left.write_text("test-only-token")
    replaced_file.sweep([tmp_path / "token"])
    assert not [each for each in tmp_path.iterdir() if each.is_file()]


@pytest.mark.skipif(os.geteuid() != 0, reason="FILES OF ANOTHER USER DID NOT RUN: only root makes one")
def test_a_state_directory_of_another_user_does_not_say_which_files_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    os.chown(folder, 60_900, 60_900)
    with pytest.raises(OSError, match="60900"):
        KeptFiles(folder)
