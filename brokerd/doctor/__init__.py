# brokerctl doctor: checks everything that brokerd depends on, and says what is wrong and how to fix it. It changes
# nothing, sends no credential, and needs neither a running daemon nor root. It says what it was not allowed to see.
from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import trio

from brokerd.config.settings import ProviderSettings, StoreSettings
from brokerd.doctor import etcd, files, machine, network, store
from brokerd.doctor import socket as listening
from brokerd.doctor.context import Facts, gather
from brokerd.doctor.finding import Finding, hidden, problem
from brokerd.doctor.helpers import credential_helpers
from brokerd.doctor.on_event import event_commands
from brokerd.doctor.optional_sockets import credentials, http, metrics
from brokerd.doctor.proxies import forwarded
from brokerd.doctor.units import unit
from brokerd.edge.system.clock import SystemClock

WITHIN = 15.0  # seconds for each check
SETTLED = 1.0  # seconds after which the findings so far are shown, in order
Tell = Callable[[Finding], None]
CHECKS: dict[str, Callable[[Facts], Iterable[Finding]]] = {
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
    "http": http,
    "metrics": metrics,
    "credentials": credentials,
    "helpers": credential_helpers,
    "on_event": event_commands,
    "proxies": forwarded,
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
    """Show the findings in the order of CHECKS, providers last. A check that hangs delays only its own findings: after
    SETTLED, the others are shown without it. `offline`: ask neither providers nor etcd. `named`: the user named this
    configuration, so its own socket is checked. `environ`: the environment that tells its brokerd where the state
    directory is."""
    facts = await trio.to_thread.run_sync(lambda: gather(path, socket, state, environ, named=named))
    settings = () if facts.configuration is None or offline else tuple(facts.configuration.providers.values())
    shared = None if facts.configuration is None or offline else facts.configuration.store
    clock, ordered = SystemClock(), _Ordered(tell)
    async with trio.open_nursery() as waiting:
        waiting.start_soon(ordered.settle_later)
        async with trio.open_nursery() as nursery:
            for name, check in CHECKS.items():
                nursery.start_soon(_look, facts, name, check, ordered.place())
            if shared is not None:
                nursery.start_soon(_ask_etcd, shared, facts, clock, ordered.place())
            for each in settings:
                nursery.start_soon(_ask, each, facts, clock, ordered.place())
        waiting.cancel_scope.cancel()
    ordered.settle()


async def _look(facts: Facts, name: str, check: Callable[[Facts], Iterable[Finding]], tell: Tell) -> None:
    """Checks block, so each runs in a thread: a disk that hangs blocks only that."""
    try:
        with trio.fail_after(WITHIN):
            found = await trio.to_thread.run_sync(lambda: list(check(facts)), abandon_on_cancel=True)
    except PermissionError as error:
        found = [hidden(name, str(error.filename or name))]
    except trio.TooSlowError:
        found = [late(name)]
    except OSError as error:  # for example a file in the place of a directory
        words = f"{error.filename or name}: {error.strerror or error}"
        found = [
            problem(name, words, f"ls -ld {shlex.quote(str(error.filename))}" if error.filename else "dmesg | tail")
        ]
    for finding in found:
        tell(facts.with_configuration(finding))


async def _ask(provider: ProviderSettings, facts: Facts, clock: SystemClock, tell: Tell) -> None:
    try:
        with trio.fail_after(WITHIN):
            await network.ask(provider, facts.environ, clock, lambda finding: tell(finding.of(provider.name)))
    except trio.TooSlowError:
        tell(late("endpoint").of(provider.name))


async def _ask_etcd(shared: StoreSettings, facts: Facts, clock: SystemClock, tell: Tell) -> None:
    try:
        with trio.fail_after(WITHIN):
            await etcd.ask(shared, facts, clock, lambda finding: tell(facts.with_configuration(finding)))
    except trio.TooSlowError:
        tell(late(etcd.NAME))


def late(check: str) -> Finding:
    return problem(check, f"no result after {WITHIN:g} s", "try again: brokerctl doctor")


class _Ordered:
    """Shows what is found before `settle` in the order of the places, and everything later at once."""

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
