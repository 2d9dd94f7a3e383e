# The level of a running daemon's log, set by a person: brokerctl log-level.
from __future__ import annotations

import subprocess
import sys

import trio

from tests.scenario.audit.logs import lines, written
from tests.scenario.daemon.harness import Brokerd


async def brokerctl(brokerd: Brokerd, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "brokerd.ctl", "--socket", str(brokerd.socket), *words]
    done = await trio.run_process(command, check=False, capture_stdout=True, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode()


async def test_it_is_shown_and_set_while_brokerd_runs_and_a_restart_sets_it_back(brokerd: Brokerd) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    assert await brokerctl(brokerd, "log-level") == (0, "debug\n")
    assert await brokerctl(brokerd, "log-level", "error") == (0, "error; debug again after a restart\n")
    await brokerd.said("event=log_level_set")
    await brokerd.call("backup")
    assert "event=backup_made" not in brokerd.log
    await written(brokerd, event="log_level_set")
    (line,) = lines(brokerd, event="log_level_set")
    assert (line["before"], line["after"], line["who"]["user"]) == ("debug", "error", "root")
    await brokerd.call("lock")
    code, said = await brokerctl(brokerd, "log-level", "info", "--for", "10m")
    assert (code, said.startswith("info; debug again in ")) == (0, True), said
    code, said = await brokerctl(brokerd, "log-level", "--for", "10m")
    assert (code, "expected a level before --for" in said) == (2, True)
    code, said = await brokerctl(brokerd, "log-level", "info", "--for", "soon")
    assert (code, 'expected a time, such as "90s"' in said) == (2, True)
    await brokerd.restart()
    assert await brokerctl(brokerd, "log-level") == (0, "debug\n")
