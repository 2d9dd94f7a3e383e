# How the tests let doctor look: at an installation in a folder, without the environment of whoever runs them.
from __future__ import annotations

from brokerd.doctor import Finding, examine
from brokerd.doctor.finding import Level
from tests.daemon.harness import Brokerd


async def findings(brokerd: Brokerd, *, offline: bool = False) -> list[Finding]:
    found: list[Finding] = []
    await examine(str(brokerd.config), str(brokerd.socket), found.append, offline=offline)
    return found


async def troubles(brokerd: Brokerd, *, offline: bool = False) -> list[Finding]:
    """What is not as it should be."""
    return [each for each in await findings(brokerd, offline=offline) if each.level is not Level.OK]
