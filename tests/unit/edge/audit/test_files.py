# The files of an audit log: groups, rotation, the limit of their size, and what is found after a crash or a change by
# somebody else.
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from brokerd.core.audit import chain
from brokerd.core.audit.chain import ChainFault, Head, verify
from brokerd.edge.audit.files import FILES, Entry, Series, numbered

KEY = b"k" * 32
MOST = 80_000
WHO = {"pid": 1, "uid": 1000}


def made(folder: Path, known: Head | None = None) -> Series:
    series = locked(folder)
    series.unlock(KEY, known or Head())
    return series


def locked(folder: Path) -> Series:
    return Series(folder / "audit", "audit", MOST)


def entries(*names: str) -> list[Entry]:
    return [{"time": 1.0, "event": name, "who": WHO} for name in names]


def findings(folder: Path, head: Head | None) -> list[ChainFault]:
    files = [(number, path.name, path.read_bytes()) for number, path in numbered(folder / "audit", "audit")]
    return list(verify(files, "audit", KEY, head)[1])


def file_lines(folder: Path) -> list[bytes]:
    return [line for _, path in numbered(folder / "audit", "audit") for line in path.read_bytes().splitlines()]


def events(folder: Path) -> list[str]:
    return [json.loads(line)["event"] for line in file_lines(folder)]


def test_a_group_is_on_the_disk_and_sealed_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    series, group = made(tmp_path), entries("one", "two")
    series.write(group, 2.0)
    assert group == []
    assert events(tmp_path) == ["file begins", "one", "two", "seal"]
    assert [(tmp_path / "audit" / name).stat().st_mode & 0o777 for name in (".", "audit-0001.jsonl")] == [0o700, 0o600]
    assert findings(tmp_path, series.head) == []


def test_another_process_goes_on_where_the_file_ends(tmp_path: Path) -> None:
    first = made(tmp_path)
    first.write(entries("one"), 2.0)
    series = made(tmp_path, Head())  # the store remembers nothing yet
    series.write(entries("two"), 3.0)
    assert events(tmp_path) == ["file begins", "one", "seal", "two", "seal"]
    assert findings(tmp_path, series.head) == []


def test_files_are_of_bounded_size_and_number_and_the_chain_runs_on(tmp_path: Path) -> None:
    series = made(tmp_path)
    for number in range(200):
        series.write(entries(*(f"event {number}-{each}" for each in range(10))), 2.0)
    files = numbered(tmp_path / "audit", "audit")
    assert files[0][0] > 1, "nothing made room"
    assert 2 < len(files) <= FILES
    assert sum(path.stat().st_size for _, path in files) <= MOST * 1.1
    assert series.head.oldest == files[0][0]
    assert findings(tmp_path, series.head) == []
    files[0][1].unlink()
    assert [each.words for each in findings(tmp_path, series.head)] == [f"missing: file number {files[0][0]}"]


def test_one_group_may_fill_many_files(tmp_path: Path) -> None:
    series = made(tmp_path)
    series.write(entries(*(f"event {number}" for number in range(5_000))), 2.0)
    assert sum(path.stat().st_size for _, path in numbered(tmp_path / "audit", "audit")) <= MOST * 1.1
    assert events(tmp_path)[-2:] == ["event 4999", "seal"]
    assert findings(tmp_path, series.head) == []


@pytest.mark.parametrize("left", [1, 40, -1])
def test_a_line_that_a_crash_tore_is_taken_off_and_quoted(tmp_path: Path, left: int) -> None:
    series = made(tmp_path)
    series.write(entries("one"), 2.0)
    file = tmp_path / "audit" / "audit-0001.jsonl"
    whole = file.read_bytes()
    made(tmp_path).write(entries("never ended"), 3.0)
    line = file.read_bytes()[len(whole) :].split(b"\n")[0]
    file.write_bytes(whole + line[:left])
    series = made(tmp_path, series.head)
    series.write(entries("two"), 4.0)
    assert events(tmp_path) == ["file begins", "one", "seal", "removed an incomplete last line", "two", "seal"]
    assert line[:left].decode()[:50] in json.loads(file.read_bytes().splitlines()[3])["text"]
    assert findings(tmp_path, series.head) == []


def test_a_file_that_a_crash_left_empty_is_begun_again(tmp_path: Path) -> None:
    series = made(tmp_path)
    series.write(entries("one"), 2.0)
    (tmp_path / "audit" / "audit-0002.jsonl").touch()
    series = made(tmp_path, series.head)
    series.write(entries("two"), 3.0)
    assert events(tmp_path) == ["file begins", "one", "seal", "two", "seal"]


def cut(file: Path) -> None:
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-3]))


def replace_last(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5] + b'gg"}\n')


TAMPERING: dict[str, Any] = {"cut": cut, "deleted": Path.unlink, "changed": replace_last}


@pytest.mark.parametrize("how", TAMPERING)
@pytest.mark.parametrize("runs", [True, False])
def test_a_cut_is_noticed_at_the_next_group_or_start_and_stays_visible(tmp_path: Path, how: str, runs: bool) -> None:
    series = made(tmp_path)
    for name in ("one", "two", "three"):
        series.write(entries(name), 2.0)
    TAMPERING[how](tmp_path / "audit" / "audit-0001.jsonl")
    series = series if runs else made(tmp_path, series.head)
    series.write(entries("four"), 3.0)
    unseen = runs and how == "changed"  # the file is as long as it was; to verify is to see it
    assert ("the audit log was cut or changed" in events(tmp_path)) != unseen
    assert events(tmp_path)[-2:] == ["four", "seal"]
    assert findings(tmp_path, series.head)


def test_without_a_key_lines_go_on_and_the_next_seal_names_them(tmp_path: Path) -> None:
    series = made(tmp_path)
    series.write(entries("one"), 2.0)
    remembered = series.head
    series.lock()
    series.write(entries("locked"), 3.0)
    assert "not sealed" in str(findings(tmp_path, series.head))
    series = locked(tmp_path)
    series.write(entries("started locked"), 4.0)
    series.unlock(KEY, remembered)
    series.write(entries("unlocked"), 5.0)
    (doubt,) = (event for event in events(tmp_path) if "without a seal" in event)  # who started had not written them
    assert events(tmp_path) == ["file begins", "one", "seal", "locked", doubt, "started locked", "unlocked", "seal"]
    assert findings(tmp_path, series.head) == []


@pytest.mark.parametrize("how", TAMPERING)
@pytest.mark.parametrize("more", [1, 10])
def test_what_was_cut_before_a_locked_start_is_noticed_when_it_is_unlocked(tmp_path: Path, how: str, more: int) -> None:
    series = made(tmp_path)
    for name in ("one", "two", "three"):
        series.write(entries(name), 2.0)
    TAMPERING[how](tmp_path / "audit" / "audit-0001.jsonl")
    after = locked(tmp_path)
    after.write(entries(*(f"locked {number}" for number in range(more))), 3.0)
    after.unlock(KEY, series.head)
    after.write(entries("unlocked"), 4.0)
    assert events(tmp_path).count("the audit log was cut or changed") == 1
    after.write(entries("later"), 5.0)
    assert events(tmp_path)[-2:] == ["later", "seal"]
    assert "missing before it" in str(findings(tmp_path, after.head)), "and stays visible"


def test_a_folder_that_is_another_is_not_written_into(tmp_path: Path) -> None:
    """As when its disk was unmounted."""
    series = made(tmp_path)
    series.write(entries("one"), 2.0)
    (tmp_path / "audit").rename(tmp_path / "away")
    group = entries("two")
    for make in (lambda: None, (tmp_path / "audit").mkdir):
        make()
        with pytest.raises(OSError):
            series.write(group, 3.0)
    assert list((tmp_path / "audit").iterdir()) == []
    (tmp_path / "audit").rmdir()
    (tmp_path / "away").rename(tmp_path / "audit")
    series.write(group, 4.0)
    assert events(tmp_path) == ["file begins", "one", "seal", "two", "seal"]
    assert findings(tmp_path, series.head) == []


def test_lines_that_somebody_else_appended_are_not_sealed_in_silence(tmp_path: Path) -> None:
    series = made(tmp_path)
    series.write(entries("one"), 2.0)
    for before in (series, made(tmp_path, series.head)):  # while brokerd runs, and before it starts
        with (tmp_path / "audit" / "audit-0001.jsonl").open("ab") as file:
            file.write(chain.link({"time": 3.0, "event": "forged"}, series.head)[0])
        before.write(entries("two"), 4.0)
        *_, forged, doubt, _two, _seal = map(json.loads, file_lines(tmp_path))
        assert (forged["event"], doubt["lines"], doubt["up_to"]) == ("forged", 1, forged["seq"])
        assert "without a seal" in doubt["event"]
        series = before


def test_a_store_that_was_made_to_forget_the_end_is_no_proof_that_there_was_none(tmp_path: Path) -> None:
    series = made(tmp_path)
    series.write(entries("one"), 2.0)
    series.write(entries("hidden"), 3.0)
    path = tmp_path / "audit" / "audit-0001.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))  # up to the first seal
    assert "what the store remembers" in str(findings(tmp_path, None))
    series = Series(tmp_path / "audit", "audit", MOST)
    series.unlock(KEY, None)
    series.write(entries("two"), 4.0)
    assert any("does not know where the audit log ended" in event for event in events(tmp_path))
    assert "missing before it" in str(findings(tmp_path, series.head))
    series.write(entries("three"), 5.0)
    assert sum("does not know where the audit log ended" in event for event in events(tmp_path)) == 1


def test_what_a_failing_disk_took_in_part_is_written_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = made(tmp_path)
    series.write(entries("one"), 2.0)
    write = os.write
    with monkeypatch.context() as patch:

        def full(descriptor: int, data: bytes) -> int:
            if len(data) < 100:
                raise OSError(28, "No space left on device")
            return write(descriptor, data[:100])

        patch.setattr(os, "write", full)
        group = entries("two", "three")
        with pytest.raises(OSError):
            series.write(group, 3.0)
        assert group == entries("two", "three")
    series.write(group, 4.0)
    assert events(tmp_path) == ["file begins", "one", "seal", "two", "three", "seal"]
    assert findings(tmp_path, series.head) == []
