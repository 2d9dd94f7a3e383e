# The lines of a whole day, counted with plain numbers: the log stays short, the audit log whole.
from __future__ import annotations

from collections import Counter
from typing import Any

from brokerd.core.events import Event
from brokerd.core.repeated_failures import Failing
from brokerd.core.timing.breaker import Breaker, failed
from brokerd.core.timing.moment import Moment
from brokerd.telemetry.event_log import EventLog

DAY, GRANTS = 86_400, 200


def at(seconds: float) -> Moment:
    return Moment(1e9 + seconds, seconds, "boot")


class Noted:
    """A logger and an audit log that remember what they are given."""

    trouble = since = None

    def __init__(self) -> None:
        self.lines: list[tuple[str, Event, dict[str, Any]]] = []
        self.audited: list[dict[str, Any]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda event, **fields: self.lines.append((level, event, fields))

    def note(self, _series: str, entry: dict[str, Any], *_: object, **__: object) -> None:
        self.audited.append(entry)

    def mark(self, *_: object) -> str:
        return "mark"

    def said(self) -> Counter[Event]:
        """What is written from the level info on."""
        return Counter(event for level, event, _ in self.lines if level != "debug")


def noted() -> tuple[Noted, EventLog]:
    made: Any = Noted()
    return made, EventLog(made, made)


def fails(events: EventLog, grant: str, now: Moment, reason: str = "no answer", **details: object) -> None:
    about = {"state": "retrying", "reason": reason, **details}
    events.exchanged(grant, "corp", "renew", "postponed", now=now, **about)  # type: ignore[arg-type]


def test_a_provider_that_is_down_for_a_day_is_a_handful_of_lines_and_whole_in_the_audit_log() -> None:
    made, events = noted()
    breaker, tries, now = Breaker(), 0, at(0)
    while now.boot < DAY:
        breaker = failed(breaker, now, 0.5)
        failing = Failing(at(0), breaker.failures, GRANTS)
        if breaker.is_open:
            events.provider_down("corp", "no answer", failing, now)
        fails(events, f"g{tries % GRANTS}", now, because_down=breaker.is_open)
        tries, now = tries + 1, now.after(max(1.0, breaker.wait(now)))
    assert tries > 200
    assert made.said() == {Event.RENEWAL_FAILED: 4, Event.PROVIDER_DOWN: 1, Event.PROVIDER_STILL_DOWN: 5}
    assert sum(each["event"] == "renewal_failed" for each in made.audited) == tries
    last = [fields for _, event, fields in made.lines if event is Event.PROVIDER_STILL_DOWN][-1]
    assert (last["grants"], last["failing_for"], last["since"]) == (GRANTS, "20 h", "2001-09-09T01:46:40Z")
    events.provider_up("corp", GRANTS, now)
    assert made.lines[-1][2]["failing_for"] == "24 h"
    made.lines.clear()
    events.provider_up("corp", GRANTS, now)
    assert made.lines == []


def test_the_level_debug_has_every_failure() -> None:
    made, events = noted()
    for second in range(100):
        fails(events, "app", at(second))
        fails(events, "other", at(second), because_down=True)
    assert (len(made.lines), made.said()) == (200, {Event.RENEWAL_FAILED: 1})


def test_a_grant_that_works_again_says_how_long_it_did_not() -> None:
    made, events = noted()
    for minute in range(5):
        fails(events, "app", at(60 * minute))
    events.exchanged("app", "corp", "renew", "issued", now=at(300), state="ready")
    fields = made.lines[-1][2]
    assert (fields["tries"], fields["failing_for"], fields["since"]) == (5, "5 min", "2001-09-09T01:46:40Z")
    events.exchanged("app", "corp", "renew", "issued", now=at(400), state="ready")
    assert "failing_for" not in made.lines[-1][2]


def test_a_downscoped_token_and_a_revocation_fail_for_themselves() -> None:
    made, events = noted()
    fails(events, "app", at(0))
    fails(events, "app", at(1), variant="scope read")
    events.exchanged("app", "corp", "revoke", "postponed", now=at(2), state="revoked", reason="no answer")
    assert made.said() == {Event.RENEWAL_FAILED: 2, Event.REVOCATION_NOT_TOLD: 1}


def test_who_must_log_in_is_told_each_time() -> None:
    made, events = noted()
    for second in range(3):
        rejected = {"state": "needs_login", "reason": "invalid_grant"}
        events.exchanged("app", "corp", "renew", "rejected", now=at(second), **rejected)  # type: ignore[arg-type]
    assert made.said() == {Event.GRANT_NEEDS_LOGIN: 3}
