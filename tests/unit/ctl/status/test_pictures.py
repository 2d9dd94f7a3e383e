# What brokerctl status shows, compared with texts that a person has looked at (golden.py), and rules for every width.
from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from brokerd.core.grant.condition import Tone
from brokerd.ctl.status.bar import bar
from brokerd.ctl.status.look import UNWRAPPED, Look, cells, look_of_output
from brokerd.ctl.status.one_grant import one_grant
from brokerd.ctl.status.overview import body, ending, overview
from brokerd.ctl.terminal import OPTIONS
from tests.unit.ctl.status.answers import (
    FAILING_GRANT,
    LEDGER,
    MINUTE,
    NIGHT,
    NOTHING,
    NOW,
    ORDERS,
    PAYMENTS,
    QUIET,
    READY,
    REPORTS,
    answer,
    grant,
)
from tests.unit.ctl.status.golden import FOLDER, pictures

NAMES = [path.stem for path in sorted(FOLDER.glob("*.txt"))]


@pytest.fixture(autouse=True)
def no_options() -> None:
    OPTIONS.clear()  # a test of a whole command leaves them


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_as_it_was_looked_at(name: str) -> None:
    assert dict(pictures())[name] == (FOLDER / f"{name}.txt").read_text().splitlines()


def test_every_picture_was_looked_at() -> None:
    assert {name for name, _ in pictures()} == {*NAMES}


@pytest.mark.parametrize("columns", [57, 58, 60, 61, 75, 76, 79, 80, 99, 100, 109, 110, 132, 150, 200, 300])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    shown = answer(REPORTS, LEDGER, ORDERS, *READY[:-1], store="x" * 300, locked=True, store_since=NOW - 5)
    for lines in (overview(shown, NOW, Look(columns)), one_grant(FAILING_GRANT, NOW, Look(columns))):
        assert [line for line in lines if cells(line) > columns] == []


def test_without_utf8_every_character_is_ascii_and_without_colour_there_is_no_escape() -> None:
    text = "\n".join(overview(NIGHT, NOW, Look(80, utf8=False)))
    assert text.isascii()
    assert "\x1b" not in text


def test_a_program_that_reads_it_finds_each_sentence_in_one_line() -> None:
    lines = overview(answer(PAYMENTS), NOW, Look(UNWRAPPED))
    assert any("failing for 4 min, since 07:55:40: 7 failures" in line and "was used)." in line for line in lines)


def test_a_command_that_people_copy_is_in_one_line_and_names_the_same_brokerd() -> None:
    OPTIONS[:] = ["--socket", "/run/brokerd/other.sock"]
    try:
        lines = overview(answer(ORDERS), NOW, Look(72))
    finally:
        OPTIONS.clear()
    assert any("brokerctl --socket /run/brokerd/other.sock login shop-orders" in line for line in lines)


@pytest.mark.parametrize("columns", [57, 60, 80])
@pytest.mark.parametrize(
    "command",
    [
        "brokerctl login shop-orders",
        "brokerctl explain shop-orders-of-the-whole-company --pid 1234",
        "brokerctl --config /home/person/.config/brokerd/brokerd.toml --socket /run/user/1000/brokerd.sock login app",
        "chmod o-rwx /etc/brokerd/secrets/the-secret-of-a-very-long-name-that-does-not-fit-into-any-line-at-all",
        "systemctl restart brokerd",
    ],
)
def test_no_word_of_a_command_is_broken_and_the_shell_reads_its_lines_as_one(command: str, columns: int) -> None:
    sentence = f"to fix: when everything else has been looked at: {command}; brokerd tries again by itself"
    lines = Look(columns).wrapped(sentence, 4, 2)
    typed = " ".join(line.strip() for line in lines).replace("\\ ", "")
    assert typed == sentence
    first = next(number for number, line in enumerate(lines) if command.split()[0] in line)
    within = "\n".join(lines[first:]).partition(";")[0]
    assert all(each.endswith("\\") for each in within.split("\n")[:-1]), "it goes on as a shell reads it"
    words = {word for line in lines for word in line.split()}
    assert [line for line in lines if len(line) > columns and max(map(len, line.split())) < columns - 8] == []
    assert {*command.split()} <= {word.rstrip(";") for word in words}


def test_many_problems_are_one_line_each_but_no_remedy_is_cut() -> None:
    many = [{**PAYMENTS, "name": f"payments-{number}"} for number in range(30)]
    lines = overview(answer(*many), NOW, Look(60))
    assert sum(line.endswith("…") for line in lines) == 30
    assert sum("brokerctl reload" in line for line in lines) == 30


def test_ten_thousand_grants_are_a_line_each() -> None:
    lines = body(answer(*(grant(f"grant-{number}") for number in range(10_000))), NOW, Look(80))
    assert len(lines) == 10_001


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"last_error": "its file is empty; to fix: write it"}, ["its file is empty", "to fix: write it"]),
        (
            {"last_error": "gone; restore it (at first: the answer was lost)", "state": "misconfigured"},
            ["gone (at first: the answer was lost)", "to fix: restore it"],
        ),
        (
            {"state": "misconfigured", "last_error": "no"},
            ["no", "to fix: change what the error names, then: brokerctl reload"],
        ),
        ({**NOTHING, "next_renewal_at": NOW + 5}, ["it has no token yet"]),
        ({"refresh_expires_at": NOW + 86_400, "next_renewal_at": None}, ["refresh token expires in 1d 0h"]),
        ({"refresh_expires_at": NOW + 86_400}, []),
        ({"pending_revocations": 2}, ["2 not yet revoked at the provider"]),
        ({"interrupted": NOW - 60}, ["the answer to an exchange is missing for 1 min, since 07:59:00"]),
    ],
)
def test_the_sentences_about_a_grant(about: dict[str, object], words: list[str]) -> None:
    lines = body(answer(grant("app", **about)), NOW, Look(UNWRAPPED))
    assert [line.strip() for line in lines[2:]] == words


def test_trouble_of_brokerd_itself_comes_first_with_since_when() -> None:
    lines = overview(
        answer(READY[0], locked=True, store="disk full", store_since=NOW - 240, audit="gone", audit_since=NOW - 60),
        NOW,
        Look(80),
    )
    assert lines[:5] == [
        "■ brokerd is locked and serves nothing",
        "  to unlock: brokerctl unlock",
        "■ store: disk full (failing for 4 min, since 07:56:00)",
        "  to fix: make room on its disk, or let brokerd write there: df -h, dmesg | tail",
        "■ audit log: gone (failing for 1 min, since 07:59:00)",
    ]


def test_the_last_line_counts() -> None:
    assert ending(QUIET, NOW, Look(80))[-1] == "1 grant: 1 ready"


@pytest.mark.parametrize(
    ("passed", "renews_in", "drawn"),
    [
        (0, 40, "━━━╋━━━━━━"),  # just issued; the mark is where two thirds have passed
        (30, 10, "━━━╋━─────"),
        (40, 0, "━━━╋──────"),  # it is renewed now
        (50, -10, "━━┼───────"[:2] + "─┼──────"),  # past the mark
        (59, None, "━─────────"),  # something is always left
    ],
)
def test_the_bar_shrinks_to_its_mark(passed: float, renews_in: float | None, drawn: str) -> None:
    about = {
        "issued_at": NOW - passed * MINUTE,
        "expires_at": NOW + (60 - passed) * MINUTE,
        "next_renewal_at": None if renews_in is None else NOW + renews_in * MINUTE,
    }
    assert bar(grant("app", **about), NOW, Look(80), 10, Tone.GOOD) == drawn


@pytest.mark.parametrize(
    ("environ", "utf8"),
    [
        ({"LANG": "en_GB.UTF-8"}, True),
        ({"LANG": "de_DE.utf8"}, True),
        ({"LC_ALL": "C", "LANG": "en_GB.UTF-8"}, False),
        ({"LC_CTYPE": "C.UTF-8", "LANG": "C"}, True),
        ({"LANG": "de_DE.ISO-8859-1"}, False),
        ({}, False),
    ],
)
def test_the_locale_decides_about_characters(environ: dict[str, str], utf8: bool) -> None:
    assert look_of_output(environ).utf8 is utf8
