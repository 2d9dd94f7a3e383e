# The log: one line for each event, whatever callers and providers have put into its words.
from __future__ import annotations

import pytest
import structlog

from brokerd.edge import log


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
