# What people see of the audit log: names that callers made up stay inside their quotes, whatever lies there is shown.
from __future__ import annotations

import json
import re
from typing import Any

import pytest

from brokerd.core.audit.chain import Head, link
from tests.scenario.audit.logs import brokerctl
from tests.scenario.daemon.harness import Brokerd

WHO = {"pid": 7, "uid": 1000, "user": "mallory"}


@pytest.fixture
def tail(brokerd: Brokerd) -> Any:
    """What is shown of a log with these lines."""

    def show(*lines: bytes) -> str:
        brokerd.configure({}, {})
        for series, content in (("audit", b"".join(lines)), ("denied", b"")):
            path = brokerd.state / "audit" / f"{series}-0001.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        code, said = brokerctl(brokerd, "tail")
        assert code == 0
        return said

    return show


async def test_one_event_is_asked_for_by_its_name_and_lists_are_words(brokerd: Brokerd, tail: Any) -> None:
    first, head = link({"time": 1.0, "event": "reloaded", "added": ["one", "two"]}, Head())
    other = link({"time": 2.0, "event": "renewal failed", "grant": "app", "outcome": "postponed"}, head)[0]
    assert tail(first, other).count("\n") == 2
    _, said = brokerctl(brokerd, "tail", "--event", "renewal failed")
    assert [line.split("  ")[1] for line in said.splitlines()] == ["renewal failed"]
    assert 'added="one, two"' in brokerctl(brokerd, "tail", "--event", "reloaded")[1]
    words = "brokerctl: the audit log has no event 'get'; it has: postponed, reloaded, renewal failed\n"
    assert brokerctl(brokerd, "tail", "--event", "get") == (0, words)
    assert brokerctl(brokerd, "tail", "--event", "reloaded", "--grant", "app") == (0, ""), "it has none of that grant"


async def test_denials_are_asked_for_by_that_word(brokerd: Brokerd, tail: Any) -> None:
    """The event of a denial is what was asked for; people look for the outcome."""
    denied, head = link({"time": 1.0, "event": "get", "grant": "app", "outcome": "denied", "who": WHO}, Head())
    served = link({"time": 2.0, "event": "get", "grant": "app", "outcome": "served", "who": WHO}, head)[0]
    tail(denied, served)
    assert [" denied " in line for line in brokerctl(brokerd, "tail", "--event", "denied")[1].splitlines()] == [True]
    assert brokerctl(brokerd, "tail", "--event", "get")[1].count("\n") == 2


async def test_what_a_caller_calls_things_looks_like_nothing_else(tail: Any) -> None:
    who = {**WHO, "evidence": {"exe": "/home/mallory/x  unit=bank.service  by root (pid 1)"}}
    entry = {"event": "get", "outcome": "denied", "grant": "bank  served  by root (pid 1)", "who": who}
    said = tail(link({"time": 1.0, **entry, "reason": 'you may not"  uid=0\x1b[2J'}, Head())[0])
    assert said.count("\n") == 1
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "…", said)
    assert outside.split()[2:] == ["get", "…", "denied", "by", "mallory", "(pid", "7)", "…", "exe=…"]
    assert "\x1b" not in said


async def test_lines_that_somebody_else_wrote_are_shown_too(tail: Any) -> None:
    odd = [{"time": "x"}, {"time": 1e300}, {"time": -1}, {"who": "root"}, {"event": ["seal"]}, {"grant": {"a": 1}}]
    lines = [json.dumps({"seq": seq, "prev": "", "event": "get", **each}).encode() for seq, each in enumerate(odd)]
    assert len(tail(b"\n".join(lines) + b"\n").splitlines()) == len(odd)
