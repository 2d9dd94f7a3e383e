# What a person can do about a grant that fails, where its error does not say it: for `status`, the page and the log. In
# brokerd's errors a remedy follows a semicolon; what providers say has none. Pure.
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from brokerd.core.exchange.outcomes import Cause, Misconfigured, Outcome, RetryLater
from brokerd.core.grant.record import Record
from brokerd.core.grant.state import State

BY_CAUSE = {
    Cause.UNREACHABLE: "see what keeps this machine from the provider: brokerctl doctor",
    Cause.UNANSWERED: "ask the provider's operator whether it has a problem",
    Cause.UNAVAILABLE: "ask the provider's operator whether it has a problem",
    Cause.LIMITED: "ask the provider's operator for a higher limit, or use fewer grants",
}
OTHERWISE = "change what the error names, then: brokerctl reload"
GOES_ON = "brokerd tries again by itself"
# An error as brokerd words it: the remedy follows a semicolon, and the first cause of the trouble comes last.
ERROR = re.compile(r"(?P<what>.*?)(?:; (?:to fix: )?(?P<remedy>.*?))?(?P<first> \(at first: .*\))?", re.DOTALL)


def split(error: str) -> tuple[str, str | None]:
    """What is wrong, and what brokerd itself advises."""
    found = ERROR.fullmatch(error)
    assert found is not None, "the expression matches any text"
    return f"{found['what']}{found['first'] or ''}", found["remedy"]


def cause_of(record: Record) -> Cause | None:
    """Why its last exchange failed; None: that is not known, or a person must change something."""
    return next((each for each in Cause if each.label == record.cause), None)


def of_record(record: Record, state: State) -> str | None:
    """The advice about a grant whose last exchange failed so. `state`: as people see it."""
    if record.error is None:
        return None
    if state is State.MISCONFIGURED:
        return advice(record.name, record.error, None)
    cause = cause_of(record) or Cause.STRANGE
    return advice(record.name, record.error, cause) if state in (State.RETRYING, State.RENEWING) else None


def remedy(grant: Mapping[str, Any]) -> str | None:
    """What to do about a grant, as `status` answers of it: brokerctl status, the page and doctor say the same."""
    own = split(grant["last_error"])[1] if grant["last_error"] else None
    otherwise = OTHERWISE if grant["state"] == State.MISCONFIGURED else None
    return grant.get("remedy") or own or grant.get("advice") or otherwise


def after(name: str, outcome: Outcome) -> str | None:
    """The advice after an exchange of that grant."""
    match outcome:
        case RetryLater(reason, cause):
            return advice(name, reason, cause)
        case Misconfigured(reason):
            return advice(name, reason, None)
    return None


def advice(name: str, error: str, cause: Cause | None) -> str | None:
    """None: the error says it, or it is about the store, whose own trouble does. `cause`: of the last failure; None: it
    is not known, or a person must change something."""
    if "; " in error or cause is Cause.POSTPONED:
        return None
    if "this machine's clock is" in error:
        return f"set the clock of this machine: timedatectl status; then: brokerctl refresh {name}"
    if "the certificate expired" in error:
        return f"ask the provider's operator for a new certificate, or look at this machine's date: date; {GOES_ON}"
    if cause is None:
        return f"{OTHERWISE}; see what is sent: brokerctl trace {name}"
    return f"{BY_CAUSE.get(cause, f'see what is sent and answered: brokerctl trace {name}')}; {GOES_ON}"
