# The log: one line for each event, whatever callers and providers have put into its words.
from __future__ import annotations

import pytest
import structlog

from brokerd.audit import Audit
from brokerd.core.policy import Caller, Evidence
from brokerd.edge import log


def test_a_list_is_written_as_words_and_an_empty_one_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    log.Log("info")
    structlog.get_logger("test").info("reloaded", added=["one", "two"], changed=[], removed=("three",))
    line = capsys.readouterr().err
    structlog.reset_defaults()
    assert 'event=reloaded added="one, two" removed=three' in line
    assert "changed" not in line


def test_a_denial_says_who(capsys: pytest.CaptureFixture[str]) -> None:
    read = Evidence(unit="portal.service", exe="/usr/bin/python3")
    caller = Caller(7, 1000, frozenset({1000}), "ann", evidence=read)
    log.Log("info")
    Audit().denied("get", "bank", caller, "no rule")
    Audit().rejected("bad input on a connection", Caller(8, 1001, frozenset()), reason="x")
    denied, rejected = capsys.readouterr().err.splitlines()
    structlog.reset_defaults()
    assert "user=ann uid=1000 pid=7 unit=portal.service exe=/usr/bin/python3" in denied
    assert "uid=1001 pid=8" in rejected


@pytest.mark.parametrize(
    "words", ["a\x1b[2Jb", "a\rlevel=info b", "a\x9b31mb", "a\u202eb", "a\u2028b", "a\nlevel=info b"]
)
def test_words_of_others_neither_begin_a_line_nor_steer_a_terminal(
    capsys: pytest.CaptureFixture[str], words: str
) -> None:
    log.Log("info")
    structlog.get_logger("test").warning("denied", grant=words, others=[words])
    written = capsys.readouterr().err
    structlog.reset_defaults()
    assert written.endswith("\n")
    line = written[:-1]
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert ascii(words)[1:-1].replace("\\", "") in line.replace("\\", "")
