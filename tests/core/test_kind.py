# The kinds of events: which lines of the log they are given to, held to what the code says and to docs/journal.md.
from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from brokerd.core.kind import EXCHANGES, KINDS, Kind, exchange_event, kind_of
from brokerd.edge.journal import LONGEST_QUEUE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "journal.md").read_text()


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"operation": "renew", "outcome": "issued", "state": "ready"}, Kind.RENEWED),
        ({"operation": "issue", "outcome": "issued", "state": "ready"}, Kind.RENEWED),
        ({"operation": "renew", "outcome": "postponed", "state": "retrying"}, Kind.NOT_RENEWED),
        ({"operation": "issue", "outcome": "misconfigured", "state": "misconfigured"}, Kind.NOT_RENEWED),
        ({"operation": "renew", "outcome": "rejected", "state": "ready"}, Kind.NOT_RENEWED),
        ({"operation": "renew", "outcome": "rejected", "state": "needs_login"}, Kind.NEEDS_LOGIN),
        ({"operation": "revoke", "outcome": "done", "state": "revoked"}, Kind.TOLD),
        ({"operation": "revoke", "outcome": "postponed", "state": "revoked"}, Kind.NOT_TOLD),
        ({"operation": "verify", "outcome": "done", "state": "ready"}, None),
        ({"operation": "verify", "outcome": "postponed", "state": "ready"}, None),
    ],
)
def test_an_exchange_is_told_by_how_it_ended(fields: dict[str, object], kind: Kind | None) -> None:
    event = exchange_event(str(fields["operation"]), str(fields["outcome"]))
    assert kind_of({"event": event, "level": "info", **fields}) is kind


@pytest.mark.parametrize(
    ("operation", "outcome", "words"),
    [
        ("renew", "issued", "renewed"),
        ("issue", "issued", "renewed"),
        ("renew", "postponed", "renewal failed"),
        ("issue", "misconfigured", "renewal failed"),
        ("renew", "rejected", "renewal failed"),
        ("issue", "declined", "renewal failed"),
        ("revoke", "done", "provider told of the revocation"),
        ("revoke", "unsupported", "provider not told of the revocation"),
        ("verify", "done", "verified"),
    ],
)
def test_the_event_says_what_happened(operation: str, outcome: str, words: str) -> None:
    assert exchange_event(operation, outcome) == words


def test_faults_of_our_own_are_told_by_their_level_and_the_rest_by_its_words() -> None:
    assert kind_of({"event": "a connection ended in a fault of brokerd's own", "level": "error"}) is Kind.BUG
    assert kind_of({"event": "denied", "level": "warning"}) is Kind.DENIED
    assert kind_of({"event": "token fetched", "level": "debug"}) is None


def test_the_words_that_kinds_are_known_by_are_those_that_are_said() -> None:
    said = set()
    for file in (ROOT / "brokerd").rglob("*.py"):
        if file.name != "kind.py":
            nodes = ast.walk(ast.parse(file.read_text()))
            said |= {each.value for each in nodes if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    assert {*KINDS} - {each for pair in EXCHANGES.values() for each in pair} - said == set()


def test_every_id_is_described_once_and_no_other() -> None:
    assert re.findall(r"^\| `([0-9a-f]{32})` \|", PAGE, re.MULTILINE) == list(Kind)
    assert f"up to {LONGEST_QUEUE:,} messages" in PAGE
