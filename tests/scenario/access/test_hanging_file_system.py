# A caller's program lies on a file system that never answers: only that caller waits (law 13).
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenario.access.hanging_file_system import Disk, disk
from tests.scenario.access.world import APP, OTHER, SPECIAL, World, request

REFUSED = {"denied", "unknown_grant"}


@pytest.fixture
def silent(here: World) -> Iterator[Disk]:
    with disk(here.folder / "disk", "portal", Path(here.portal).read_bytes()) as made:
        yield made
        made.speak()
        here.end_processes()


@pytest.mark.parametrize("forged", [False, True], ids=["at-its-own-path", "with-the-path-of-the-right-program"])
def test_a_program_on_a_disk_that_never_answers_keeps_nobody_waiting(here: World, silent: Disk, forged: bool) -> None:
    def right_one() -> str:
        return here.process(APP).connect().execute(here.portal, "portal").shell_asks("exe")

    assert right_one() == "token"
    caller, program = here.process(APP), str(silent.path)
    if forged:
        caller.unshare("user", "mount").map(0, APP, APP).bind(program, here.portal)
        program = here.portal
    caller.connect().execute(program, "portal")
    silent.fall_silent()
    caller.shell_sends(request("exe"))
    assert silent.asked.wait(10)
    assert right_one() == "token"
    assert here.process(OTHER, SPECIAL).connect().asks("group") == "token"
    silent.speak()
    assert caller.reply() in REFUSED
