# What a check found: a value, and the words of it. Pure.
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """`remedy`: what to do, a command where there is one; None where nothing is to be done. `about`: the provider."""

    check: str
    level: Level
    found: str
    remedy: str | None = None
    about: str | None = None

    def of(self, provider: str) -> Finding:
        return replace(self, about=provider)

    def as_map(self) -> dict[str, str | None]:
        return {
            "check": self.check,
            "provider": self.about,
            "level": str(self.level),
            "found": self.found,
            "remedy": self.remedy,
        }


def ok(check: str, found: str) -> Finding:
    return Finding(check, Level.OK, found)


def warning(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Level.WARNING, found, remedy)


def problem(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Level.PROBLEM, found, remedy)


def unseen(check: str, what: str) -> Finding:
    """Neither good nor bad: who looks may not."""
    return warning(check, f"{what} cannot be looked at by you", LOOK_AS_ROOT)


def told(check: str, text: str, otherwise: str) -> Finding:
    """A problem in brokerd's own words, whose remedy stands after the last semicolon."""
    found, _, remedy = text.rpartition("; ")
    return problem(check, found, remedy) if found else problem(check, remedy, otherwise)


LOOK_AS_ROOT = "sudo brokerctl doctor"
NETWORK = frozenset({"dns", "connection", "proxy", "tls", "endpoint"})
TO_MEND, UNREACHABLE, NO_DAEMON = 2, 4, 6  # as brokerctl's other commands end


def exit_code(findings: Iterable[Finding]) -> int:
    """0 without a problem; 2 where something here needs a change, 6 where no daemon answers and that is all but for
    the network, 4 where it is the network or providers alone."""
    checks = {each.check for each in findings if each.level is Level.PROBLEM}
    if checks - NETWORK - {"socket"}:
        return TO_MEND
    if "socket" in checks:
        return NO_DAEMON
    return UNREACHABLE if checks else 0
