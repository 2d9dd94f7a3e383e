# Runs the commands of [[on_event]]: one run of a command at a time, without a shell, with the facts as its environment.
# core/alerts.py decides what is run for what.
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import trio

from brokerd.core.alerts import FACTS, Alert, Batch, OnEvent, Waiting, alert, environment
from brokerd.core.events import Event
from brokerd.core.exchange.redaction import reason
from brokerd.edge.files.ownership import faults_of_command
from brokerd.edge.system import commands
from brokerd.telemetry.event_log import EventLog

WITHIN = 30.0  # seconds for a run
EARLY = 1_000  # alerts from before the start has read what is to be run


class _Command:
    """One [[on_event]] table and its runs."""

    def __init__(self, wanted: OnEvent, events: EventLog) -> None:
        self.wanted = wanted
        self.scope = trio.CancelScope()
        self._waiting = Waiting(wanted)
        self._events = events
        self._wake = trio.Event()
        self._running = trio.Lock()

    def add(self, found: Alert) -> None:
        self._waiting.add(found, trio.current_time())
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        with self.scope:
            while True:
                self._wake = trio.Event()
                with trio.move_on_at(self._waiting.next_at):
                    await self._wake.wait()
                if (batch := self._waiting.take(trio.current_time())) is not None:
                    await self.once(batch)

    async def once(self, batch: Batch, *, test: bool = False) -> tuple[str | None, list[str]]:
        """One run: why it failed, or None; and what it printed."""
        async with self._running:
            output: list[str] = []
            path = self.wanted.command[0]
            failure = next(iter(await trio.to_thread.run_sync(faults_of_command, path)), None)
            if failure is None:
                environ = {"PATH": commands.PATH, **environment(batch, test=test)}
                failure = await commands.run(self.wanted.command, WITHIN, output.append, environ)
        said = [line for each in output if (line := reason(each, is_cut=len(each) > commands.LONGEST_LINE))]
        about = {"about": batch.first.event, "command": path, "number": batch.number}
        if failure is None:
            self._events.say(Event.ON_EVENT_RAN, **about, output=said)
        else:
            self._events.say(Event.ON_EVENT_FAILED, **about, reason=failure, output=said)
        return failure, said


class AlertCommands:
    """All commands. It is given every line of the log."""

    _nursery: trio.Nursery

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._commands: dict[OnEvent, _Command] = {}
        self._early: list[Alert] | None = []  # what happened before it is known whom to tell
        events.noticed = self.noticed

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled, which ends the runs too. `configure` needs it."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def configure(self, wanted: Iterable[OnEvent]) -> None:
        """These commands from now on. What waits for a command that stays goes on waiting."""
        before, self._commands = self._commands, {}
        for each in wanted:
            if (known := before.pop(each, None)) is None:
                known = _Command(each, self._events)
                self._nursery.start_soon(known.run, name="on_event")
            self._commands[each] = known
        for gone in before.values():
            gone.scope.cancel()
        early, self._early = self._early, None
        for found in early or ():
            self._tell(found)

    def noticed(self, event: Event, fields: Mapping[str, Any]) -> None:
        if (self._commands or self._early is not None) and (found := alert(event, fields)) is not None:
            if self._early is None:
                self._tell(found)
            elif len(self._early) < EARLY:
                self._early.append(found)

    def _tell(self, found: Alert) -> None:
        for each in self._commands.values():
            each.add(found)

    async def test(self, event: Event) -> list[dict[str, object]]:
        """Run every command of that event now, with facts that are marked as a test."""
        facts: dict[str, Any] = dict.fromkeys(FACTS[:2], "test")
        found = alert(event, {**facts, "reason": "brokerctl test-event: nothing is wrong"})
        runs: list[dict[str, object]] = []
        if found is None:
            return runs
        batch = Batch(found, ("test",), 1)

        async def run(command: _Command) -> None:
            failure, output = await command.once(batch, test=True)
            runs.append({"command": command.wanted.command[0], "reason": failure, "output": output})

        async with trio.open_nursery() as nursery:
            for each in self._commands.values():
                if event in each.wanted.events:
                    nursery.start_soon(run, each)
        return runs
