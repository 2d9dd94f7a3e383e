# Checks the unit: it is installed, enabled and running, and it starts the brokerd that this command belongs to.
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from brokerd.doctor.context import Facts
from brokerd.doctor.finding import Finding, ok, problem, warning
from brokerd.edge.systemd import service_manager
from brokerd.edge.systemd.units import Unit

NAME = "unit"
BAD_CONFIGURATION, UNAVAILABLE = "2", "4"  # exit statuses of brokerd
ENABLED = ("enabled", "enabled-runtime", "static", "indirect", "alias", "generated", "linked")


def unit(facts: Facts) -> Iterator[Finding]:
    if not service_manager.is_running():
        yield ok(NAME, "systemd does not run here")
        return
    if facts.unit is None:
        whose = "--user" if facts.is_own else "--system"
        yield warning(NAME, "systemd has no brokerd.service", f"brokerctl install {whose}")
        return
    found = [*of_unit(facts.unit, facts), *of_program(facts.unit.program, our_programs(), facts)]
    words = f"{facts.unit.name} is {facts.unit['UnitFileState'] or 'there'} and {facts.unit['ActiveState']}"
    yield from found or [ok(NAME, words)]


def of_unit(unit: Unit, facts: Facts) -> Iterator[Finding]:
    """Pure."""
    manage = facts.systemctl
    if unit["LoadState"] != "loaded":
        analyze = f"systemd-analyze {'--user ' if unit.own else ''}verify {unit.name}"
        how = f"{manage} unmask brokerd" if unit["LoadState"] == "masked" else analyze
        yield problem(NAME, f"{unit.name} is {unit['LoadState']}", how)
        return
    if unit["NeedDaemonReload"] == "yes":
        yield warning(NAME, "its file has changed, and systemd still uses the old one", f"{manage} daemon-reload")
    # A connection starts the service, so it is enough that one of the two is enabled.
    if not any(each is not None and each["UnitFileState"] in ENABLED for each in (unit, facts.activator)):
        yield warning(NAME, f"{unit.name} is not started at boot", f"{manage} enable brokerd")
    if unit["ActiveState"] == "failed":
        yield _failed(unit, facts)
    elif unit["ActiveState"] == "inactive" and not facts.would_start:
        yield problem(NAME, f"{unit.name} is not running", f"{manage} start brokerd")


def _failed(unit: Unit, facts: Facts) -> Finding:
    again = f"{facts.systemctl} start brokerd"
    if unit["Result"] == "start-limit-hit":
        how = f"find out why: {facts.journal}; then: {facts.systemctl} reset-failed brokerd; {again}"
        return problem(NAME, f"{unit.name} has failed too often, so systemd does not start it again", how)
    if unit["Result"] == "exit-code" and unit["ExecMainStatus"] == BAD_CONFIGURATION:
        words = f"{unit.name} cannot start: brokerd refused its configuration, its key or its store"
        return problem(NAME, words, f"brokerd --config {facts.path} --check; then: {again}")
    words = f"{unit.name} has failed: {unit['Result']}, status {unit['ExecMainStatus']}"
    return problem(NAME, words, facts.journal)


def of_program(program: Path | None, ours: tuple[Path, ...], facts: Facts) -> Iterator[Finding]:
    """`ours`: where the brokerd of this command may be."""
    if program is None:
        return
    edit = f"{facts.systemctl} edit --full brokerd: ExecStart="
    if not program.exists():
        yield problem(NAME, f"it starts {program}, which does not exist", f"{edit}{next(_there(ours), 'PATH')}")
    elif not any(each.samefile(program) for each in _there(ours)):
        words = f"it starts {program}, and this command belongs to another installation"
        yield warning(NAME, words, f"{program.parent / 'brokerctl'} doctor; or: {edit}{next(_there(ours), 'PATH')}")


def our_programs() -> tuple[Path, ...]:
    """Beside this command, and beside its interpreter."""
    return tuple(Path(each).absolute().parent / "brokerd" for each in (sys.argv[0], sys.executable))


def _there(programs: tuple[Path, ...]) -> Iterator[Path]:
    return (each for each in programs if each.exists())
