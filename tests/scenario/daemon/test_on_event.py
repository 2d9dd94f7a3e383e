# A real daemon runs the commands of [[on_event]] when something is wrong, and brokerctl test-event tries them.
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import trio

from tests.scenario.audit.logs import lines, written
from tests.scenario.daemon.harness import IMPORTED, Brokerd, Serving, at
from tests.servers import OAuth2


async def brokerctl(brokerd: Brokerd, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "brokerd.ctl", "--socket", str(brokerd.socket), *words]
    done = await trio.run_process(command, check=False, capture_stdout=True, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode()


def with_command(brokerd: Brokerd, page: Path) -> None:
    page.write_text(f'#!/bin/sh\nenv > {page}.env\necho "$BROKERD_EVENT of $BROKERD_GRANT"\n')
    page.chmod(0o755)
    table = f'[[on_event]]\nevents = ["grant_needs_login", "audit_not_written"]\ncommand = ["{page}"]\n'
    brokerd.config.write_text(brokerd.config.read_text() + table)


def environment_of(page: Path) -> dict[str, str]:
    """Of the last run."""
    return dict(line.partition("=")[::2] for line in Path(f"{page}.env").read_text().splitlines())


async def test_a_command_is_told_that_a_grant_needs_a_login(brokerd: Brokerd, serving: Serving, folder: Path) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)})
    page = folder / "page"
    with_command(brokerd, page)
    await brokerd.start()
    await brokerd.call("import", grant="app", refresh_token="test-only-made-up")
    await brokerd.said("event=on_event_ran")
    said = next(line for line in brokerd.log.splitlines() if "event=on_event_ran" in line)
    assert f"about=grant_needs_login command={page} number=1" in said
    assert 'output="grant_needs_login of app"' in said
    found = environment_of(page)
    assert found["BROKERD_PROVIDER"] == "oauth2"
    assert found["BROKERD_REMEDY"] == "brokerctl import app"
    assert "invalid_grant" in found["BROKERD_REASON"]
    assert {name for name in found if not name.startswith("BROKERD_")} <= {"PATH", "PWD", "SHLVL", "_"}


async def test_a_person_tries_it_and_learns_what_is_wrong(brokerd: Brokerd, folder: Path) -> None:
    brokerd.configure({}, {})
    page = folder / "page"
    with_command(brokerd, page)
    await brokerd.start()
    code, said = await brokerctl(brokerd, "test-event", "audit_not_written")
    assert (code, said) == (0, f"{page}: ended with status 0\n  audit_not_written of test\n")
    assert environment_of(page)["BROKERD_TEST"] == "1"
    await written(brokerd, event="on_event_ran")
    assert lines(brokerd, event="on_event_ran")[0]["who"]["user"] == "root"
    code, said = await brokerctl(brokerd, "test-event", "bug")
    assert (code, "no command runs for bug; add it to events" in said) == (2, True)
    code, said = await brokerctl(brokerd, "test-event", "nothing")
    assert (code, "expected one of grant_needs_login" in said) == (2, True)
    page.chmod(0o757)
    await brokerd.call("lock")
    code, said = await brokerctl(brokerd, "test-event", "audit_not_written")
    assert (code, "can be written by others" in said, "1 of 1 command failed" in said) == (2, True, True)
    command = [sys.executable, "-m", "brokerd.daemon.main", "--config", str(brokerd.config), "--check"]
    checked = await trio.run_process(command, check=False, capture_stdout=True, stderr=subprocess.STDOUT)
    assert (checked.returncode, b"on_event[0].command" in checked.stdout) == (2, True), checked.stdout
