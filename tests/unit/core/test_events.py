# Every line of the log has its row: the code, core/events.py and docs/events.md say the same.
from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from brokerd.core.events import Event
from brokerd.core.exchange_events import exchange_event
from brokerd.core.remedies import remedy_for
from brokerd.edge.systemd.journal import LONGEST_QUEUE

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "events.md").read_text()
SAY = {"say", "say_now", "rejected", "_say", "_write"}  # what takes an event and fields
PRINT = ("ctl", "doctor", "setup")  # they speak to a person, and have no log
LOGGERS = {"debug", "info", "warning", "error", "critical", "exception"}
AT_CALLS = {"operation", "exc_info", "remedy", "grant", "provider"}  # explained once for all events


def rows() -> dict[str, tuple[str, str, str]]:
    """By event: level, meaning and what to do, of the page."""
    found = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \| (.*) ?\|$", PAGE, re.MULTILINE)
    return {name: (level, meaning, to_do.strip()) for name, level, meaning, to_do in found}


@cache
def calls() -> list[tuple[str, ast.Call]]:
    return list(_calls())


def _calls() -> Iterator[tuple[str, ast.Call]]:
    """Each call of something that may write a line, and where."""
    for file in sorted((ROOT / "brokerd").rglob("*.py")):
        if file.relative_to(ROOT / "brokerd").parts[0] in PRINT:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
                if name in SAY | LOGGERS:
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", node


def event_of(call: ast.Call) -> Event | None:
    """The event that the call names, if it names one."""
    match call.args[:1]:
        case [ast.Attribute(value=ast.Name(id="Event"), attr=name)]:
            return Event[name]
    return None


@pytest.mark.parametrize(
    ("operation", "outcome", "state", "event"),
    [
        ("renew", "issued", "ready", Event.RENEWED),
        ("issue", "issued", "ready", Event.RENEWED),
        ("renew", "postponed", "retrying", Event.RENEWAL_FAILED),
        ("issue", "misconfigured", "misconfigured", Event.RENEWAL_FAILED),
        ("renew", "rejected", "ready", Event.RENEWAL_FAILED),
        ("renew", "rejected", "needs_login", Event.GRANT_NEEDS_LOGIN),
        ("revoke", "done", "revoked", Event.REVOCATION_TOLD),
        ("revoke", "postponed", "revoked", Event.REVOCATION_NOT_TOLD),
        ("revoke", "unsupported", "revoked", Event.REVOCATION_NOT_TOLD),
        ("verify", "done", "ready", Event.VERIFIED),
        ("verify", "postponed", "needs_login", Event.VERIFICATION_FAILED),
    ],
)
def test_an_exchange_is_told_by_how_it_ended(operation: str, outcome: str, state: str, event: Event) -> None:
    assert exchange_event(operation, outcome, state) is event


def test_an_event_is_named_alike_everywhere() -> None:
    assert [each for each in Event if each != each.name.lower()] == []


def test_who_is_warned_is_told_what_to_do() -> None:
    assert [each for each in Event if each.level in ("warning", "error") and not each.remedy] == []


def test_every_event_is_written_somewhere() -> None:
    source = "".join(file.read_text() for file in (ROOT / "brokerd").rglob("*.py"))
    assert {each.name for each in Event} - set(re.findall(r"\bEvent\.([A-Z_]+)", source)) == set()


def test_no_line_is_free_text() -> None:
    free = [at for at, call in calls() if call.args and isinstance(call.args[0], ast.Constant | ast.JoinedStr)]
    logger = [at for at, call in calls() if ast.unparse(call.func).rpartition(".")[0].endswith("log")]
    assert free == []
    assert {at.partition(":")[0] for at in logger} == {"brokerd/telemetry/event_log.py"}


def test_the_page_has_every_event_with_its_level_and_what_to_do() -> None:
    assert list(rows()) == [str(each) for each in Event]
    for each in Event:
        level, _, to_do = rows()[each]
        assert (level, to_do.replace("`", "").replace("\\|", "|")) == (each.level, each.remedy or ""), each


def test_the_page_has_every_field_that_a_call_names() -> None:
    missing = []
    for at, call in calls():
        if (event := event_of(call)) is not None:
            named = {each.arg for each in call.keywords if each.arg} - AT_CALLS
            missing += [f"{at}: {event} {name}" for name in sorted(named) if f"`{name}`" not in rows()[event][1]]
    assert missing == []


def test_every_id_is_described_once_and_no_other() -> None:
    ids = {each.id: [other for other in Event if other.id == each.id] for each in Event if each.id}
    said = [f"| `{number}` | {', '.join(f'`{each}`' for each in events)} |" for number, events in ids.items()]
    assert re.findall(r"^\| `[0-9a-f]{32}` \|.*$", PAGE, re.MULTILINE) == said
    assert f"up to {LONGEST_QUEUE:,} messages" in PAGE


def test_a_remedy_names_what_the_line_is_about() -> None:
    assert remedy_for(Event.GRANT_NEEDS_LOGIN, {"grant": "app"}) == "brokerctl login app, or brokerctl import app"
    assert remedy_for(Event.DENIED, {"grant": "app", "pid": 41}) == "to see why: brokerctl explain app --pid 41"
    assert remedy_for(Event.ON_EVENT_FAILED, {"about": Event.BUG}) == (
        "correct what reason names, then try it: brokerctl test-event bug"
    )
    assert remedy_for(Event.STORE_ADOPTED, {"grant": "app"}) is None


@pytest.mark.parametrize("grant", ["x; rm -rf ~", "$(reboot)", "a b", "--socket=/tmp/x", "`id`", "", None])
def test_what_a_caller_chose_gets_into_no_command(grant: str | None) -> None:
    """The name in a denial is the caller's: somebody copies the remedy into a root shell."""
    assert remedy_for(Event.DENIED, {"grant": grant, "pid": 41}) == "to see why: brokerctl explain GRANT --pid 41"


def test_no_remedy_has_another_placeholder() -> None:
    words = {word for event in Event for word in re.findall(r"\b[A-Z]{3,}\b", event.remedy or "")}
    assert words - {"GRANT", "PID", "EVENT"} == set()
