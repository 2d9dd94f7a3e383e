# Runs doctor for the tests: on an installation in a folder, without the environment of whoever runs them.
from __future__ import annotations

from brokerd.doctor import examine
from brokerd.doctor.finding import Finding, Level
from tests.scenario.daemon.harness import Brokerd


async def findings(brokerd: Brokerd, *, offline: bool = False) -> list[Finding]:
    found: list[Finding] = []
    await examine(str(brokerd.config), str(brokerd.socket), found.append, offline=offline)
    return found


async def troubles(brokerd: Brokerd, *, offline: bool = False) -> list[Finding]:
    """What is not as it should be."""
    return [each for each in await findings(brokerd, offline=offline) if each.level is not Level.OK]
