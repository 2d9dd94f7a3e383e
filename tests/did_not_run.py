"""Lists at the end of the run what could not run on this machine, each thing once. The reason of a skip carries it, so
that it reaches the summary from every test process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import pytest

SAID = " DID NOT RUN: "


def did_not_run(what: str, reason: str, *, required: bool = False) -> NoReturn:
    """Skips the test that asked for `what`, or fails it where that is required."""
    said = f"{what}{SAID}{reason}"
    if required:
        pytest.fail(f"{said}\nBROKERD_REQUIRE_REAL=1 demands it", pytrace=False)
    pytest.skip(said)


def announcements(skipped: Iterable[pytest.TestReport]) -> list[str]:
    reasons = (report.longrepr[2].removeprefix("Skipped: ") for report in skipped if isinstance(report.longrepr, tuple))
    return list(dict.fromkeys(reason for reason in reasons if SAID in reason))
