# What an operator finds in the journal of a real systemd: messages by grant and by kind of event.
from __future__ import annotations

import json
from typing import Any

import pytest

from brokerd.core.events import Event
from tests.real.systemd.box import Box

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"


def found(box: Box, *matches: str) -> list[dict[str, Any]]:
    """The messages of brokerd's unit that match, once the journal has written down what was sent to it."""
    box.run("journalctl", "--sync")
    lines = box.run("journalctl", "--no-pager", "-o", "json", "-u", "brokerd", *matches).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_messages_are_found_by_grant_provider_and_kind(box: Box) -> None:
    box.run("systemctl", "start", "brokerd.service")
    box.run(CTL, "refresh", "app")
    renewed = found(box, "GRANT=app", f"MESSAGE_ID={Event.RENEWED.id}")
    assert len(renewed) == 2  # at the start, and by hand
    for message in renewed:
        assert (message["PROVIDER"], message["PRIORITY"]) == ("oauth2", "6")
        assert (message["SYSLOG_IDENTIFIER"], message["_TRANSPORT"]) == ("brokerd", "journal")
        assert message["MESSAGE"].startswith("event=renewed grant=app")
    assert found(box, f"MESSAGE_ID={Event.READY.id}")
    assert found(box, "GRANT=nobody") == []


def test_who_is_denied_is_found_and_forges_nothing(box: Box) -> None:
    forged = f"app\nMESSAGE_ID={Event.REVOKED.id}\nPRIORITY=0"
    box.run("setpriv", "--reuid=nobody", "--regid=brokerd-callers", "--clear-groups", CTL, "get", forged, check=False)
    (denied,) = found(box, f"MESSAGE_ID={Event.DENIED.id}")
    assert (denied["GRANT"], denied["PRIORITY"]) == (forged, "4")
    assert found(box, f"MESSAGE_ID={Event.REVOKED.id}") == []


LONG = """
import sys
sys.path[:0] = ["/opt/brokerd/lib/own", "/opt/brokerd/lib/client", "/opt/brokerd/lib/packages"]
from brokerd.edge.systemd.journal import Journal
journal = Journal()
journal.say({"MESSAGE": "x" * 400_000, "PRIORITY": "6", "GRANT": "long"})
journal.close()
"""


def test_a_message_that_no_datagram_holds_is_there_whole(box: Box) -> None:
    box.run("/usr/bin/python3", "-c", LONG)
    box.run("journalctl", "--sync")
    assert box.run("journalctl", "-a", "-o", "cat", "GRANT=long").strip() == "x" * 400_000


PAGE = """#!/bin/sh
echo "$(id -un) told of $BROKERD_EVENT"
tr "\\0" "\\n" < /proc/$$/environ | grep -v ^BROKERD_
touch /etc/brokerd/mine 2> /dev/null || echo "closed"
"""


def test_a_command_of_on_event_runs_in_the_units_sandbox(box: Box) -> None:
    box.run("install", "-m", "0755", "/dev/stdin", "/usr/local/bin/page-me", input=PAGE)
    table = '[[on_event]]\nevents = ["provider_down"]\ncommand = ["/usr/local/bin/page-me"]\n'
    box.write("/etc/brokerd/conf.d/alerts.toml", table)
    box.run("systemctl", "reload", "brokerd.service")
    first, *said = box.run(CTL, "test-event", "provider_down").splitlines()
    assert first == "/usr/local/bin/page-me: ended with status 0"
    told, path, closed = map(str.strip, said)
    assert (told, path.partition("=")[0], closed) == ("brokerd told of provider_down", "PATH", "closed")
    (message,) = found(box, "EVENT=on_event_ran")
    assert message["MESSAGE_ID"] == Event.ON_EVENT_RAN.id


def test_why_it_did_not_start_is_found(box: Box) -> None:
    box.run("systemctl", "stop", "brokerd.socket", "brokerd.service")
    assert found(box, f"MESSAGE_ID={Event.STOPPED.id}")
    box.run("sh", "-c", "echo '[grants.half' > /etc/brokerd/conf.d/bad.toml")
    box.run("systemctl", "start", "brokerd.service", check=False)
    (message,) = found(box, f"MESSAGE_ID={Event.NOT_STARTED.id}")
    assert message["PRIORITY"] == "3"
    assert "/etc/brokerd/conf.d/bad.toml" in message["MESSAGE"]
