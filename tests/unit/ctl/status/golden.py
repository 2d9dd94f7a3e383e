# The pictures of brokerctl status, as text: python -m tests.unit.ctl.status.golden writes them again. Look at them
# before you commit them.
from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from brokerd.ctl.status.look import Look
from brokerd.ctl.status.one_grant import one_grant
from brokerd.ctl.status.overview import overview
from tests.unit.ctl.status.answers import FAILING_GRANT, IN_FLEET, LOCKED, NIGHT, NOW, QUIET, WELL_GRANT

FOLDER = Path(__file__).parent / "golden"
WIDTHS = (60, 80, 200)


def pictures() -> Iterator[tuple[str, list[str]]]:
    """Each with its name. The time zone must be UTC."""
    for columns in WIDTHS:
        yield f"night-{columns}", overview(NIGHT, NOW, Look(columns))
        yield f"failing-grant-{columns}", one_grant(FAILING_GRANT, NOW, Look(columns))
    yield "night-80-ascii", overview(NIGHT, NOW, Look(80, utf8=False))
    yield "night-80-colour", overview(NIGHT, NOW, Look(80, colour=True))
    yield "night-problems-80", overview(NIGHT, NOW, Look(80), problems=True)
    yield "well-grant-80", one_grant(WELL_GRANT, NOW, Look(80))
    yield "locked-80", overview(LOCKED, NOW, Look(80))
    yield "locked-grant-80", one_grant({**LOCKED, "grants": LOCKED["grants"][:1]}, NOW, Look(80))
    yield "fleet-80", overview(IN_FLEET, NOW, Look(80))
    yield "fleet-grant-80", one_grant({**IN_FLEET, "grants": IN_FLEET["grants"][:1]}, NOW, Look(80))
    yield "one-80", overview(QUIET, NOW, Look(80))


if __name__ == "__main__":
    os.environ["TZ"] = "UTC"
    time.tzset()
    FOLDER.mkdir(exist_ok=True)
    for name, lines in pictures():
        (FOLDER / f"{name}.txt").write_text("\n".join((*lines, "")))
