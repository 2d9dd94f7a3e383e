# on_change: at most once a second and no change lost, tried again, no secret in output, arguments or environment.
from __future__ import annotations

import sys
import time

import trio

from tests.scenario.daemon.harness import Brokerd, until
from tests.scenario.files.conftest import renew
from tests.scenario.files.process import Files
from tests.servers import OAuth2


async def test_of_fifty_renewals_in_a_second_none_is_lost_and_few_are_told(
    brokerd: Brokerd, imported: OAuth2, files: Files
) -> None:
    files.describe({"on_change": files.tells()})
    await files.start()
    await until(lambda: len(files.runs_of_on_change) == 1)
    began = time.monotonic()
    last = await renew(brokerd, imported, 50)
    took = time.monotonic() - began
    await files.holds(last)
    await until(lambda: files.runs_of_on_change[-1][1] == last)
    runs = files.runs_of_on_change
    assert len(runs) <= max(took, runs[-1][0] - runs[0][0]) + 3, "more than one a second"


async def test_files_with_the_same_on_change_share_it(brokerd: Brokerd, provider: OAuth2, files: Files) -> None:
    tells = files.tells("b")
    files.describe(*({"path": name, "on_change": tells} for name in "abcdef"))
    await files.start()
    await until(lambda: len(files.runs_of_on_change) >= 1)
    await brokerd.call("refresh", grant="app")
    last = await brokerd.get("app")
    await until(lambda: files.runs_of_on_change[-1][1] == last)
    assert len(files.runs_of_on_change) <= 4


async def test_what_fails_is_told_without_secrets_and_tried_again(
    brokerd: Brokerd, provider: OAuth2, files: Files
) -> None:
    files.hook.write_text(
        "import os, pathlib, sys\n"
        "token = pathlib.Path(sys.argv[1]).read_text()\n"
        "told = pathlib.Path(sys.argv[2])\n"
        "about = pathlib.Path('/proc/self/cmdline').read_bytes() + pathlib.Path('/proc/self/environ').read_bytes()\n"
        "print('the token is', token, 'and', os.environ.get('NOTIFY_SOCKET'), token.encode() in about, flush=True)\n"
        "n = len(told.read_text()) if told.exists() else 0\n"
        "told.write_text('x' * (n + 1))\n"
        "sys.exit(7 if n < 2 else 0)\n"
    )
    files.describe({"on_change": files.tells()})
    await files.start()
    await files.said("ended with status 7; it is tried again in 2 s")
    await files.said("ended with status 7; it is tried again in 4 s")
    await files.said("event=on_change_ran")
    assert files.told.read_text() == "xxx"
    assert await brokerd.get("app") not in files.log
    assert files.log.count("the token is *** and None False") == 3


async def test_a_run_that_a_kill_prevented_comes_after_the_restart(
    brokerd: Brokerd, provider: OAuth2, files: Files
) -> None:
    """What is due is remembered before the file has its name."""
    files.hook.write_text("import sys\nsys.exit(1)\n")
    files.describe({"on_change": files.tells()})
    await files.start()
    await files.said("on_change failed")
    await files.kill()
    files.hook.write_text("import pathlib, sys\npathlib.Path(sys.argv[2]).write_text('ran')\n")
    await files.start()
    await until(lambda: files.told.exists() and files.told.read_text() == "ran")
    await files.said("event=on_change_ran")
    await until(lambda: not any('"due": true' in path.read_text() for path in files.state.glob("*.json")))


async def test_a_command_that_cannot_be_run_is_named(brokerd: Brokerd, provider: OAuth2, files: Files) -> None:
    files.describe({"on_change": {"command": ["/nowhere/reload-me"]}})
    await files.start()
    await files.said("cannot be run: No such file or directory")


async def test_a_command_that_hangs_is_killed_with_its_children(files: Files, nursery: trio.Nursery) -> None:
    from brokerd.edge.system import commands

    script = "import subprocess, time; subprocess.Popen(['sleep', '987']); print('begun', flush=True); time.sleep(99)"
    lines: list[str] = []
    with trio.fail_after(20):
        said = await commands.run((sys.executable, "-S", "-c", script), 1.5, lines.append)
    assert (said, lines) == ("did not end within 1.5 s", ["begun"])
