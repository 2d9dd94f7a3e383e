# What a check found: a value, and how it is made. Pure.
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
    """`remedy`: what to do, a command if there is one; None: nothing. `about`: the provider that it is about."""

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


def hidden(check: str, what: str) -> Finding:
    """Neither good nor bad: the user of the command may not see it."""
    return warning(check, f"you may not read {what}, so it was not checked", LOOK_AS_ROOT)


def problem_from(check: str, text: str, otherwise: str) -> Finding:
    """A problem from an error message of brokerd, whose remedy is after the last semicolon, if it has one."""
    found, _, remedy = text.rpartition("; ")
    return problem(check, found, remedy) if found else problem(check, remedy, otherwise)


LOOK_AS_ROOT = "sudo brokerctl doctor"
NETWORK = frozenset({"dns", "connection", "proxy", "tls", "endpoint", "etcd"})
TO_MEND, UNREACHABLE, NO_DAEMON = 2, 4, 6  # as brokerctl's other commands end


def exit_code(findings: Iterable[Finding]) -> int:
    """0: no problem. 2: something on this machine must be changed. 6: no daemon answers, and nothing else on this
    machine is wrong. 4: the only problems are in the network or at providers."""
    checks = {each.check for each in findings if each.level is Level.PROBLEM}
    if checks - NETWORK - {"socket"}:
        return TO_MEND
    if "socket" in checks:
        return NO_DAEMON
    return UNREACHABLE if checks else 0
