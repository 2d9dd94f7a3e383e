# The log: one line for each event, whatever texts callers and providers have chosen.
from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from brokerd.core.access.policy import Caller, Evidence
from brokerd.core.events import Event
from brokerd.edge.system import log
from brokerd.telemetry.event_log import EventLog


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_a_list_is_written_as_words_and_an_empty_one_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    log.Log("info")
    log.say(Event.RELOADED, added=["one", "two"], changed=[], removed=("three",))
    line = capsys.readouterr().err
    assert 'event=reloaded message="the configuration was read again" added="one, two" removed=three' in line
    assert "changed" not in line


def test_a_denial_says_who(capsys: pytest.CaptureFixture[str]) -> None:
    read = Evidence(unit="portal.service", exe="/usr/bin/python3")
    caller = Caller(7, 1000, frozenset({1000}), "ann", evidence=read)
    log.Log("info")
    EventLog().denied("get", "bank", caller, "no rule")
    EventLog().rejected(Event.BAD_INPUT, Caller(8, 1001, frozenset()), reason="x")
    denied, rejected = capsys.readouterr().err.splitlines()
    assert "user=ann uid=1000 pid=7 unit=portal.service exe=/usr/bin/python3" in denied
    assert "uid=1001 pid=8" in rejected


@pytest.mark.parametrize(
    "words", ["a\x1b[2Jb", "a\rlevel=info b", "a\x9b31mb", "a\u202eb", "a\u2028b", "a\nlevel=info b"]
)
def test_words_of_others_neither_begin_a_line_nor_steer_a_terminal(
    capsys: pytest.CaptureFixture[str], words: str
) -> None:
    log.Log("info")
    log.say(Event.DENIED, grant=words, others=[words])
    written = capsys.readouterr().err
    assert written.endswith("\n")
    line = written[:-1]
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert ascii(words)[1:-1].replace("\\", "") in line.replace("\\", "")


def test_json_is_one_object_in_a_line_with_the_same_names(capsys: pytest.CaptureFixture[str]) -> None:
    log.Log("info", form="json")
    log.say(Event.RENEWAL_FAILED, reason='a\x1b[2J"b\n', grant="app", times=2)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    found = json.loads(line)
    assert list(found)[:5] == ["timestamp", "level", "event", "grant", "message"]
    assert (found["event"], found["reason"], found["times"]) == ("renewal_failed", 'a\\x1b[2J"b\n', 2)
    assert found["remedy"] == Event.RENEWAL_FAILED.remedy.replace("GRANT", "app")


def test_the_line_knows_better_what_to_do_than_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    log.Log("info")
    log.say(Event.GRANT_NEEDS_LOGIN, grant="app", remedy="brokerctl login app")
    log.say(Event.GRANT_NEEDS_LOGIN, grant="app", remedy=None)
    better, none = capsys.readouterr().err.splitlines()
    assert better.endswith('remedy="brokerctl login app"')
    assert "remedy" not in none


def test_the_level_can_change_at_any_time(capsys: pytest.CaptureFixture[str]) -> None:
    written, events = log.Log("warning"), EventLog()
    for level in ("info", "warning", "debug"):
        written.level = level
        events.say(Event.READY)
    assert capsys.readouterr().err.count("event=ready") == 2


def test_why_it_does_not_start_is_read_by_people_and_by_machines(capsys: pytest.CaptureFixture[str]) -> None:
    log.Log("info").cannot_start("the key is another")
    log.Log("info", form="json").cannot_start("the key is another")
    plain, written = capsys.readouterr().err.splitlines()
    assert plain == "brokerd: the key is another"
    assert (json.loads(written)["event"], json.loads(written)["reason"]) == ("not_started", "the key is another")
