# The unit: installed, enabled, running, and starting the brokerd that this command belongs to.
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from brokerd.doctor.finding import Finding, ok, problem, warning
from brokerd.doctor.scene import Scene
from brokerd.edge import service_manager
from brokerd.edge.units import Unit

NAME = "unit"
BAD_CONFIGURATION, UNAVAILABLE = "2", "4"  # exit statuses of brokerd
ENABLED = ("enabled", "enabled-runtime", "static", "indirect", "alias", "generated", "linked")


def unit(scene: Scene) -> Iterator[Finding]:
    if not service_manager.is_running():
        yield ok(NAME, "there is no systemd here")
        return
    if scene.unit is None:
        whose = "--user" if scene.is_own else "--system"
        yield warning(NAME, "systemd knows no brokerd.service", f"brokerctl install {whose}")
        return
    found = [*of_unit(scene.unit, scene), *of_program(scene.unit.program, our_programs(), scene)]
    words = f"{scene.unit.name} is {scene.unit['UnitFileState'] or 'there'} and {scene.unit['ActiveState']}"
    yield from found or [ok(NAME, words)]


def of_unit(unit: Unit, scene: Scene) -> Iterator[Finding]:
    """Pure."""
    manage = scene.systemctl
    if unit["LoadState"] != "loaded":
        analyze = f"systemd-analyze {'--user ' if unit.own else ''}verify {unit.name}"
        how = f"{manage} unmask brokerd" if unit["LoadState"] == "masked" else analyze
        yield problem(NAME, f"{unit.name} is {unit['LoadState']}", how)
        return
    if unit["NeedDaemonReload"] == "yes":
        yield warning(NAME, "its file has changed, and systemd works with the old one", f"{manage} daemon-reload")
    # Who connects starts the service, so either of the two enabled is enough.
    if not any(each is not None and each["UnitFileState"] in ENABLED for each in (unit, scene.activator)):
        yield warning(NAME, f"{unit.name} is not started at boot", f"{manage} enable brokerd")
    if unit["ActiveState"] == "failed":
        yield _failed(unit, scene)
    elif unit["ActiveState"] == "inactive" and not scene.would_start:
        yield problem(NAME, f"{unit.name} is not running", f"{manage} start brokerd")


def _failed(unit: Unit, scene: Scene) -> Finding:
    again = f"{scene.systemctl} start brokerd"
    if unit["Result"] == "start-limit-hit":
        how = f"{scene.journal}; then: {scene.systemctl} reset-failed brokerd; {again}"
        return problem(NAME, f"{unit.name} has failed too often and is not tried again", how)
    if unit["Result"] == "exit-code" and unit["ExecMainStatus"] == BAD_CONFIGURATION:
        words = f"{unit.name} has refused its configuration, its key or its store"
        return problem(NAME, words, f"brokerd --config {scene.path} --check; then: {again}")
    words = f"{unit.name} has failed: {unit['Result']}, status {unit['ExecMainStatus']}"
    return problem(NAME, words, scene.journal)


def of_program(program: Path | None, ours: tuple[Path, ...], scene: Scene) -> Iterator[Finding]:
    """`ours`: where the brokerd that belongs to this command may be."""
    if program is None:
        return
    edit = f"{scene.systemctl} edit --full brokerd: ExecStart="
    if not program.exists():
        yield problem(NAME, f"it starts {program}, which is not there", f"{edit}{next(_there(ours), 'PATH')}")
    elif not any(each.samefile(program) for each in _there(ours)):
        words = f"it starts {program}, and this command belongs to another installation"
        yield warning(NAME, words, f"{program.parent / 'brokerctl'} doctor; or: {edit}{next(_there(ours), 'PATH')}")


def our_programs() -> tuple[Path, ...]:
    """Beside this command, and beside its interpreter."""
    return tuple(Path(each).absolute().parent / "brokerd" for each in (sys.argv[0], sys.executable))


def _there(programs: tuple[Path, ...]) -> Iterator[Path]:
    return (each for each in programs if each.exists())
