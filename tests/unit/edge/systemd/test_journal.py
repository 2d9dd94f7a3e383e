# The journal's native protocol, read by a journal of the test's own: a datagram socket that may be slow or absent.
from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.events import Event
from brokerd.core.timing.moment import Moment
from brokerd.edge.system import log
from brokerd.edge.systemd import journal
from brokerd.edge.systemd.journal import SEALS, Journal, encode
from brokerd.telemetry.event_log import EventLog

WITHIN = 20.0  # seconds for what takes none


class Journald:
    """The receiving end. It reads as the protocol's document says, both forms of a field."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(WITHIN)
        self.seals: list[int] = []

    def read(self) -> dict[str, str]:
        data, rights, _, _ = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _, _, packed in rights:
            (descriptor,) = struct.unpack("i", packed)
            self.seals.append(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS))
            with os.fdopen(descriptor, "rb") as file:
                file.seek(0)
                data = file.read()
        return parse(data)

    def close(self) -> None:
        self._socket.close()


def parse(data: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", data)
            value, end, data = data[8 : 8 + length], data[8 + length : 9 + length], data[9 + length :]
            assert end == b"\n"
        assert name.decode() not in fields, "said twice"
        fields[name.decode()] = value.decode()
    return fields


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    made = Journald(tmp_path / "socket")
    yield made
    made.close()


def message(text: str, **more: str) -> dict[str, str]:
    return {"MESSAGE": text, "PRIORITY": "6"} | more


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_no_value_forges_a_field(one: str, other: str) -> None:
    fields = message(one, GRANT=f"{other}\nMESSAGE_ID={Event.REVOKED.id}\n")
    assert parse(encode(fields)) == fields


def test_what_is_not_text_is_said_all_the_same() -> None:
    assert parse(encode(message("a \udcff b")))["MESSAGE"] == "a ? b"


def test_a_message_that_is_too_long_for_a_datagram_travels_in_sealed_memory(journald: Journald) -> None:
    fields = message("x" * 3_000_000, GRANT="reports")
    with closing(Journal(journald.path)) as made:
        made.say(fields)
        assert journald.read() == fields
    assert journald.seals == [SEALS]


def test_a_journal_that_is_behind_keeps_nobody_waiting_and_misses_nothing(journald: Journald) -> None:
    made, number = Journal(journald.path), 2_000
    saying = threading.Thread(target=lambda: [made.say(message(str(each))) for each in range(number)], daemon=True)
    saying.start()
    saying.join(WITHIN)
    assert not saying.is_alive(), "it waited for a journal that reads nothing"
    assert [journald.read()["MESSAGE"] for _ in range(number)] == [str(each) for each in range(number)]
    made.close()


def test_what_is_too_much_is_counted(journald: Journald, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "LONGEST_QUEUE", 5)
    made, number = Journal(journald.path), 2_000
    for each in range(number):
        made.say(message(str(each)))
    kept = []
    while not (found := journald.read()["MESSAGE"]).startswith("event=messages_lost"):
        kept.append(found)
    assert 5 <= len(kept) < number
    assert f" lost={number - len(kept)} " in found
    made.close()


def test_without_a_journal_lines_go_where_they_went_before(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    made = Journal(tmp_path / "nobody", writer)
    made.say(message("one"))
    made.say(message("two", PRIORITY="3"))
    with os.fdopen(reader) as lines:
        assert [lines.readline(), lines.readline()] == ["<6>one\n", "<3>two\n"]
    os.close(writer)
    made.say(message("nobody hears it, and nothing happens"))
    made.close()


def test_what_the_daemon_says_is_said_with_its_kind_and_what_it_is_about(
    journald: Journald, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = structlog.get_config()
    monkeypatch.setattr(log, "in_journal", lambda: True)
    monkeypatch.setattr(log, "Journal", lambda: Journal(journald.path))
    ours = {"SYSLOG_IDENTIFIER": "brokerd"}
    with closing(log.Log("info")) as said:
        EventLog().exchanged(
            "reports", "corp", "renew", "rejected", now=Moment(1e9, 1.0, "boot"), state="needs_login", reason="no\nmore"
        )
        EventLog().say(Event.STOPPED)
        said.cannot_start("the key is another")
        structlog.configure(**before)
        kind = Event.GRANT_NEEDS_LOGIN
        remedy = kind.remedy.replace("GRANT", "reports")
        details = "operation=renew outcome=rejected state=needs_login reason=no\\nmore"
        words = f'event={kind} grant=reports provider=corp message="{kind.words}" {details} remedy="{remedy}"'
        about = {"EVENT": kind, "GRANT": "reports", "PROVIDER": "corp", "MESSAGE_ID": kind.id}
        assert journald.read() == message(words, PRIORITY="4", **about, **ours)
        stopped = {"EVENT": "stopped", "MESSAGE_ID": Event.STOPPED.id}
        assert journald.read() == message('event=stopped message="brokerd has stopped"', **stopped, **ours)
        words = 'event=not_started message="brokerd cannot start" reason="the key is another"'
        about = {"EVENT": "not_started", "MESSAGE_ID": Event.NOT_STARTED.id}
        assert journald.read() == message(words, PRIORITY="3", **about, **ours)


def test_stderr_is_the_journal_only_where_systemd_says_so_of_this_very_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "stream").open("w") as stream, (tmp_path / "other").open("w") as other:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        for stderr, expected in ((stream, True), (other, False), (None, False)):
            monkeypatch.setattr("sys.stderr", stderr)
            assert log.in_journal() == expected
