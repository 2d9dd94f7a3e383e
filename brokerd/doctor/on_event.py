# Checks the commands of [[on_event]]: whether brokerd's user can run each, and nobody else can change it.
from __future__ import annotations

from collections.abc import Iterator

from brokerd.doctor.context import Facts
from brokerd.doctor.finding import Finding, ok, problem_from
from brokerd.edge.files.ownership import faults_of_command

NAME = "on_event"


def event_commands(facts: Facts) -> Iterator[Finding]:
    if facts.configuration is None:
        return
    for command in dict.fromkeys(each.command[0] for each in facts.configuration.on_event):
        faults = faults_of_command(command, facts.account.uid)
        for fault in faults:
            yield problem_from(NAME, fault, "brokerctl test-event EVENT tries it")
        if not faults:
            yield ok(NAME, f"{command} can be run, and only root and {facts.account.name} can change it")
