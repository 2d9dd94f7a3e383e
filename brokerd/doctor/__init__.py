# brokerctl doctor: looks at everything that brokerd stands on, and says what is wrong and what mends it. Changes
# nothing, sends no credential, and needs neither a daemon nor root: what it could not see it says.
from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import trio

from brokerd.config import ProviderSettings
from brokerd.doctor import files, listening, machine, network, store
from brokerd.doctor.finding import Finding, exit_code, problem, unseen
from brokerd.doctor.scene import Scene, look_round
from brokerd.doctor.units import unit
from brokerd.edge.clock import SystemClock

__all__ = ["CHECKS", "Finding", "examine", "exit_code"]

WITHIN = 15.0  # seconds for each check
SETTLED = 1.0  # seconds; what is known by then is told in order
Tell = Callable[[Finding], None]
CHECKS: dict[str, Callable[[Scene], Iterable[Finding]]] = {
    "configuration": files.configuration,
    "rules": files.rules,
    "secrets": files.secrets,
    "permissions": files.permissions,
    "key": store.key,
    "disk": machine.disk,
    "clock": machine.clock,
    "memory": machine.memory,
    "user": machine.user,
    "unit": unit,
    "socket": listening.socket,
    "proxy": network.proxy,
}


async def examine(
    path: str,
    socket: str | None,
    tell: Tell,
    *,
    offline: bool,
    state: Path | None = None,
    named: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """In the order of CHECKS, providers last. What hangs delays its own findings alone: it is not waited for longer
    than SETTLED before the others are told. `offline`: no provider is asked. `named`: somebody has named this
    configuration, so that its own socket is looked at; `environ`: by which its brokerd knows its state directory."""
    scene = await trio.to_thread.run_sync(lambda: look_round(path, socket, state, environ, named=named))
    settings = () if scene.configuration is None or offline else tuple(scene.configuration.providers.values())
    clock, ordered = SystemClock(), _Ordered(tell)
    async with trio.open_nursery() as waiting:
        waiting.start_soon(ordered.settle_later)
        async with trio.open_nursery() as nursery:
            for name, check in CHECKS.items():
                nursery.start_soon(_look, scene, name, check, ordered.place())
            for each in settings:
                nursery.start_soon(_ask, each, scene, clock, ordered.place())
        waiting.cancel_scope.cancel()
    ordered.settle()


async def _look(scene: Scene, name: str, check: Callable[[Scene], Iterable[Finding]], tell: Tell) -> None:
    """Blocking checks run in threads: a disk that hangs holds one."""
    try:
        with trio.fail_after(WITHIN):
            found = await trio.to_thread.run_sync(lambda: list(check(scene)), abandon_on_cancel=True)
    except PermissionError as error:
        found = [unseen(name, str(error.filename or name))]
    except trio.TooSlowError:
        found = [late(name)]
    except OSError as error:  # whatever somebody put where something else belongs
        words = f"{error.filename or name}: {error.strerror or error}"
        found = [
            problem(name, words, f"ls -ld {shlex.quote(str(error.filename))}" if error.filename else "dmesg | tail")
        ]
    for finding in found:
        tell(scene.addressed(finding))


async def _ask(provider: ProviderSettings, scene: Scene, clock: SystemClock, tell: Tell) -> None:
    try:
        with trio.fail_after(WITHIN):
            await network.ask(provider, scene.environ, clock, lambda finding: tell(finding.of(provider.name)))
    except trio.TooSlowError:
        tell(late("endpoint").of(provider.name))


def late(check: str) -> Finding:
    return problem(check, f"not known after {WITHIN:g} s", "try again: brokerctl doctor")


class _Ordered:
    """What is told until `settle` is told in the order of the places, from then on as it comes."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._places: list[list[Finding]] = []
        self._settled = False

    def place(self) -> Tell:
        mine: list[Finding] = []
        self._places.append(mine)
        return lambda finding: self._tell(finding) if self._settled else mine.append(finding)

    def settle(self) -> None:
        for finding in [each for place in self._places for each in place] if not self._settled else ():
            self._tell(finding)
        self._settled = True

    async def settle_later(self) -> None:
        await trio.sleep(SETTLED)
        self.settle()
