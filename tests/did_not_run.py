"""Lists at the end of the run what could not run on this machine, each thing once. The reason of a skip carries it, so
that it reaches the summary from every test process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import pytest

SAID = " DID NOT RUN: "
_said: list[str] = []  # by the test that runs; pytest-trio keeps the skip of a test in a nursery, and loses its reason


def did_not_run(what: str, reason: str, *, required: bool = False) -> NoReturn:
    """Skips the test that asked for `what`, or fails it where that is required."""
    said = f"{what}{SAID}{reason}"
    if required:
        pytest.fail(f"{said}\nBROKERD_REQUIRE_REAL=1 demands it", pytrace=False)
    _said.append(said)
    pytest.skip(said)


def with_reason(report: pytest.TestReport) -> pytest.TestReport:
    """The report of a skip with the reason that the test gave."""
    if report.skipped and isinstance(report.longrepr, tuple) and _said and SAID not in report.longrepr[2]:
        path, line, _ = report.longrepr
        report.longrepr = path, line, f"Skipped: {_said[-1]}"
    _said.clear()
    return report


def announcements(skipped: Iterable[pytest.TestReport]) -> list[str]:
    reasons = (report.longrepr[2].removeprefix("Skipped: ") for report in skipped if isinstance(report.longrepr, tuple))
    return list(dict.fromkeys(reason for reason in reasons if SAID in reason))
