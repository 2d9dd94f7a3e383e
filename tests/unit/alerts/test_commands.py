# The commands of [[on_event]] as processes: what they get, how long they may take, and who else can change them.
from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from brokerd.alerts import commands
from brokerd.alerts.commands import AlertCommands
from brokerd.core.alerts import OnEvent
from brokerd.core.events import Event
from brokerd.edge.files.ownership import faults_of_command
from brokerd.telemetry.event_log import EventLog

SECRET = "test-only-secret-of-brokerd"


class Said:
    """A logger that remembers, and wakes who waits."""

    def __init__(self) -> None:
        self.lines: list[tuple[Event, dict[str, Any]]] = []
        self.changed = trio.Event()

    def __getattr__(self, _level: str) -> Any:
        return self._say

    def _say(self, event: Event, **fields: Any) -> None:
        self.lines.append((event, fields))
        self.changed.set()
        self.changed = trio.Event()

    async def wait(self, event: Event, times: int = 1) -> dict[str, Any]:
        with trio.fail_after(20):
            while sum(each is event for each, _ in self.lines) < times:
                await self.changed.wait()
        return [fields for each, fields in self.lines if each is event][-1]


def script(folder: Path, text: str, mode: int = 0o700) -> str:
    path = folder / "page"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return str(path)


async def begun(nursery: trio.Nursery, *wanted: OnEvent) -> tuple[AlertCommands, EventLog, Said]:
    said: Any = Said()
    events = EventLog(said)
    made = AlertCommands(events)
    await nursery.start(made.run)
    made.configure(wanted)
    return made, events, said


async def test_it_gets_the_facts_and_nothing_else_of_brokerd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "LISTEN_FDS", "CLIENT_SECRET", "LD_PRELOAD_X", "HOME"):
        monkeypatch.setenv(name, SECRET)
    inherited = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    command = script(tmp_path, f"env > {tmp_path}/env; ls -l /proc/self/fd > {tmp_path}/fds; cat; echo done")
    async with trio.open_nursery() as nursery:
        _, events, said = await begun(nursery, OnEvent((Event.GRANT_NEEDS_LOGIN,), (command, "argument")))
        events.say(Event.GRANT_NEEDS_LOGIN, grant="app; rm -rf $HOME `id`", reason="x")
        ran = await said.wait(Event.ON_EVENT_RAN)
        nursery.cancel_scope.cancel()
    os.close(inherited)
    found = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    assert found["BROKERD_GRANT"] == "app; rm -rf $HOME `id`"
    assert SECRET not in str(found)
    assert [each for each in found if not each.startswith("BROKERD_")] == [*filter({"PATH", "PWD"}.__contains__, found)]
    assert str(tmp_path) not in (tmp_path / "fds").read_text().replace(f"{tmp_path}/fds", "")
    assert (ran["output"], ran["about"], ran["number"]) == (["done"], Event.GRANT_NEEDS_LOGIN, 1)


async def test_one_run_at_a_time_and_a_storm_is_one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("brokerd.core.alerts.GAP", 0.2)
    command = script(tmp_path, f'echo "$BROKERD_MORE" >> {tmp_path}/runs')
    async with trio.open_nursery() as nursery:
        _, events, said = await begun(nursery, OnEvent((Event.GRANT_NEEDS_LOGIN,), (command,)))
        events.say(Event.GRANT_NEEDS_LOGIN, grant="first")
        await said.wait(Event.ON_EVENT_RAN)
        for number in range(10_000):
            events.say(Event.GRANT_NEEDS_LOGIN, grant=f"g{number}")
        await said.wait(Event.ON_EVENT_RAN, 2)
        nursery.cancel_scope.cancel()
    assert (tmp_path / "runs").read_text().split() == ["0", "9999"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("exit 3", "ended with status 3"), ("sleep 100", "did not end within"), ("kill -9 $$", "status")],
)
async def test_what_fails_is_an_event_with_its_output_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.setattr(commands, "WITHIN", 0.5)
    command = script(tmp_path, f"printf '\\033[2Jbad\\n'; {text}")
    async with trio.open_nursery() as nursery:
        made, _, said = await begun(nursery, OnEvent((Event.BUG,), (command,)))
        (run,) = await made.test(Event.BUG)
        nursery.cancel_scope.cancel()
    failed = await said.wait(Event.ON_EVENT_FAILED)
    assert words in failed["reason"]
    assert (failed["output"], run["reason"]) == (["[2Jbad"], failed["reason"])


async def test_what_others_can_change_is_not_run(tmp_path: Path) -> None:
    command = script(tmp_path, f"touch {tmp_path}/ran", 0o777)
    async with trio.open_nursery() as nursery:
        made, _, said = await begun(nursery, OnEvent((Event.BUG,), (command,)))
        (run,) = await made.test(Event.BUG)
        nursery.cancel_scope.cancel()
    assert "can be written by others" in str(run["reason"])
    assert not (tmp_path / "ran").exists()
    assert await said.wait(Event.ON_EVENT_FAILED)


async def test_what_happened_before_the_start_knew_whom_to_tell_is_told(tmp_path: Path) -> None:
    command, said = script(tmp_path, "true"), Said()
    events = EventLog(said)
    made = AlertCommands(events)
    events.say(Event.AUDIT_NOT_WRITTEN, reason="no space")
    async with trio.open_nursery() as nursery:
        await nursery.start(made.run)
        made.configure([OnEvent((Event.AUDIT_NOT_WRITTEN,), (command,))])
        await said.wait(Event.ON_EVENT_RAN)
        made.configure([])
        events.say(Event.AUDIT_NOT_WRITTEN, reason="no space")
        assert await made.test(Event.AUDIT_NOT_WRITTEN) == []
        nursery.cancel_scope.cancel()


def test_a_program_is_refused_that_others_could_exchange(tmp_path: Path) -> None:
    """By its own mode, by a link's target, by a folder on the way, by its owner."""
    tmp_path.chmod(0o755)
    command = script(tmp_path, "true")
    assert faults_of_command(command) == []
    link = tmp_path / "link"
    link.symlink_to(command)
    Path(command).chmod(0o770)
    assert "can be written by others" in faults_of_command(command)[0]
    assert "can be written by others" in faults_of_command(str(link))[0]
    Path(command).chmod(0o600)
    assert "is not a program" in faults_of_command(command)[0]
    Path(command).chmod(0o700)
    tmp_path.chmod(0o777)
    assert "can be written by others" in faults_of_command(command)[0]
    tmp_path.chmod(0o755)
    assert "No such file" in faults_of_command(f"{command}-none")[0]
    assert "is not a program" in faults_of_command(str(tmp_path))[0]
    if os.geteuid() == 0:
        os.chown(command, 12_345, -1)
        assert "belongs to 12345" in faults_of_command(command)[0]
        assert stat.S_IMODE(Path(command).stat().st_mode) == 0o700
