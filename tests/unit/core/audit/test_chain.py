# The chain of the audit log, purely: whatever is changed, removed, repeated or put elsewhere is found, with its place.
from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.audit.chain import (
    FINDINGS,
    GENESIS,
    LONGEST,
    MOST,
    ChainFault,
    Head,
    digest,
    link,
    mark,
    opening,
    read,
    seal,
    verify,
)

KEY = b"k" * 32
Files = list[tuple[int, str, bytes]]


def written(*groups: int, per_file: int = 2) -> tuple[Files, Head]:
    """A series with groups of so many entries, so many groups to a file; and its head."""
    head, files = Head(), []
    for number, size in enumerate(groups):
        if number % per_file == 0:
            line, head = opening("audit", 0.0, head, head.file + 1, 1)
            files.append([line])
        for entry in range(size):
            line, head = link({"time": 1.0, "event": "get", "grant": f"g{number}-{entry}"}, head)
            files[-1].append(line)
        line, head = seal("audit", 2.0, head, KEY)
        files[-1].append(line)
    return [(number, f"audit-{number}", b"".join(each)) for number, each in enumerate(files, 1)], head


def findings(files: Files, head: Head, key: bytes = KEY) -> list[ChainFault]:
    return list(verify(files, "audit", key, head)[1])


def changed(files: Files, file: int, lines: list[bytes]) -> Files:
    return [(n, name, b"".join(lines) if n == file else content) for n, name, content in files]


def test_what_was_written_is_unchanged_and_every_line_is_json() -> None:
    files, head = written(3, 1, 2)
    assert findings(files, head) == []
    assert verify(files, "audit", KEY, head)[0] == head.seq == 11
    parsed = [json.loads(line) for _, _, content in files for line in content.splitlines()]
    assert [each["seq"] for each in parsed] == list(range(1, 12))
    assert parsed[0]["prev"] == GENESIS


@given(st.data())
def test_any_change_of_any_byte_is_found(data: st.DataObject) -> None:
    files, head = written(2, 1, 1)
    number, _, content = data.draw(st.sampled_from(files))
    at = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    assert findings(changed(files, number, [content[:at], bytes((byte,)), content[at + 1 :]]), head)


@given(st.data())
def test_any_line_that_is_removed_repeated_or_moved_is_found(data: st.DataObject) -> None:
    files, head = written(2, 1, 1)
    number, _, content = data.draw(st.sampled_from(files))
    lines = content.splitlines(keepends=True)
    at, to = data.draw(st.integers(0, len(lines) - 1)), data.draw(st.integers(0, len(lines) - 1))
    line = lines[at]
    without = lines[:at] + lines[at + 1 :]
    what = data.draw(st.sampled_from(["removed", "repeated", "moved"]))
    if what == "moved" and at == to:
        return
    tampered = {
        "removed": without,
        "repeated": [*lines[:to], line, *lines[to:]],
        "moved": [*without[:to], line, *without[to:]],
    }[what]
    assert findings(changed(files, number, tampered), head)


def test_the_place_and_the_kind_are_said_in_words() -> None:
    files, head = written(4)
    lines = files[0][2].splitlines(keepends=True)

    def said(tampered: list[bytes]) -> list[str]:
        return [str(each) for each in findings(changed(files, 1, tampered), head)]

    other = lines[2].replace(b"g0-1", b"g0-x")
    assert said([*lines[:2], other, *lines[3:]]) == [
        "audit-1:4: line number 3 before it was changed: its hash is not the one in this line"
    ]
    assert said([*lines[:2], *lines[4:]]) == ["audit-1:3: missing before it: lines number 3 to 4"]
    assert said([*lines[:2], lines[3], lines[2], *lines[4:]])[1] == (
        "audit-1:4: reordered or repeated: number 3 stands after number 4"
    )
    assert said(lines[:-1]) == [
        "audit-*: the end was cut: the store remembers line number 6, the log ends with 5",
        "audit-*: the last 5 lines are not sealed: brokerd ended while it wrote, or they were written by somebody else",
    ]
    assert said([*lines, b'{"seq"'])[0].startswith("audit-1:7: it is not complete")
    assert said([*lines, b"not json\n"]) == ["audit-1:7: it was changed: this is no line of an audit log"]


def test_a_chain_that_was_made_anew_without_the_key_has_wrong_seals() -> None:
    forged, head = written(3, 1)
    _, known = written(2, 2)
    assert findings(forged, head) == []
    assert len([each for each in findings(forged, head, b"x" * 32) if "seal is wrong" in each.words]) == 2
    assert findings(forged, known), "another chain of the same length is not the one that the store remembers"


def test_a_seal_of_the_other_series_is_wrong() -> None:
    files, head = written(1)
    assert "seal is wrong" in str(list(verify(files, "denied", KEY, head)[1])[-1])


def test_files_that_are_missing_are_found_but_not_those_that_made_room() -> None:
    files, head = written(1, 1, 1, 1, per_file=1)
    assert str(findings([files[0], *files[2:]], head)[0]) == ("audit-3: missing before it: file number 2")
    assert "missing: file number 1" in str(findings(files[1:], head))
    assert "the end was cut" in str(findings(files[:-1], head))
    assert "the end was cut" in str(findings([], head))
    line, after = opening("audit", 0.0, head, 5, 3)
    sealed, after = seal("audit", 0.0, after, KEY)
    assert findings([*files[2:], (5, "audit-5", line + sealed)], after) == []
    assert "missing: file number 3" in str(findings([files[3], (5, "audit-5", line + sealed)], after))


def test_a_file_that_was_emptied_is_found_also_where_it_is_the_oldest() -> None:
    files, head = written(1, 1, 1, 1, 1, 1, 1, 1)
    for emptied in ({1}, {2}, {1, 2, 3}):
        cut = [(n, name, b"" if n in emptied else content) for n, name, content in files]
        for there in (cut, cut[1:]):
            empty = [finding.file for finding in findings(there, head) if "it is empty" in finding.words]
            assert empty == [name for n, name, _ in there if n in emptied]


def test_the_store_may_remember_less_than_there_is() -> None:
    files, _ = written(2, 2)
    lines = files[0][2].splitlines()
    assert findings(files, Head(4, digest(lines[3]))) == []
    assert "remembers another line of this number" in str(findings(files, Head(4, digest(lines[2]))))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a\nb\x1b[31m", "a\\nb\\x1b[31m"),
        (os.fsdecode(b"/opt/caf\xe9/bin"), "/opt/caf\\udce9/bin"),
        ("café", "café"),
        ("x" * (LONGEST + 1), "x" * (LONGEST - 1) + "…"),
        (frozenset({2, 1}), [1, 2]),
        (list(range(MOST + 2)), [*range(MOST), "… and 2 more"]),
        ({"exe": "/bin/\n", "unit": None}, {"exe": "/bin/\\n"}),
        ("line\u2028separator", "line\\u2028separator"),
    ],
)
def test_a_field_is_bounded_and_one_line(value: object, found: object) -> None:
    line, _ = link({"time": 0.0, "event": "x", "field": value}, Head())
    assert line.count(b"\n") == 1
    fields = read(line[:-1])
    assert fields is not None
    assert fields["field"] == found


@given(st.dictionaries(st.text(max_size=5), st.text() | st.binary() | st.lists(st.text()) | st.none(), max_size=4))
def test_whatever_is_said_becomes_a_line_that_verifies(entry: dict[str, object]) -> None:
    head = opening("audit", 0.0, Head(), 1, 1)
    line, after = link({**entry, "time": 0.0, "event": "x"}, head[1])
    sealed, after = seal("audit", 0.0, after, KEY)
    assert findings([(1, "audit-1", head[0] + line + sealed)], after) == []


@given(st.binary(max_size=200))
def test_verifying_ends_whatever_lies_there(content: bytes) -> None:
    findings([(1, "audit-1", content)], Head())


def test_what_is_nothing_but_wrong_is_not_read_to_its_end() -> None:
    def contents() -> Iterator[tuple[int, str, bytes]]:
        yield 1, "audit-0001.jsonl", b"\n" * 1_000
        pytest.fail("it was read on")

    assert len(verify(contents(), "audit", KEY, Head())[1]) == FINDINGS


def test_a_mark_is_the_same_for_the_same_token_and_another_under_another_key() -> None:
    assert mark("test-only-token", KEY) == mark("test-only-token", KEY)
    assert len({mark("test-only-token", KEY), mark("test-only-token2", KEY), mark("test-only-token", b"x")}) == 3
