# What brokerd tells the service manager (sd_notify(3)): that it is ready, its status in one line, that its loops run,
# and how long it needs to stop. Without a service manager brokerd does the same things.
from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping

import trio

from brokerd.broker.broker import EVERY, TokenBroker
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.renewal_schedule import LOOK_AGAIN, TURN
from brokerd.core.exchange.steps import ANSWER_TIMEOUT
from brokerd.core.grant.state import State
from brokerd.core.timing.moment import Moment

READY_WITHIN = 20.0  # seconds; then brokerd is ready even if grants have no token, so that other units can start
STATUS_EVERY = 1.0  # seconds between two status lines, at least
NAMED = 3  # grants that a status line names
LONGER = 60.0  # seconds to connect, to send and to store, added to the time for an answer

Notify = Callable[..., None]


def summary(kinds: Mapping[str, list[str]]) -> str:
    """The state of all grants in one line: `41 grants fresh, 1 needs login: reports`. `kinds`: names by kind."""
    fresh = len(kinds.get("fresh", ()))
    others = [_named(kind, sorted(names)) for kind in KINDS if (names := kinds.get(kind))]
    return ", ".join((f"{fresh} grant{'' if fresh == 1 else 's'} fresh", *others))


def _named(kind: str, names: list[str]) -> str:
    return f"{len(names)} {kind}: {', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''}"


def _kind(grant: LiveGrant, now: Moment) -> str:
    if grant.blocked or grant.record.state is State.MISCONFIGURED:
        return "misconfigured"
    if grant.record.state in (State.NEEDS_LOGIN, State.REVOKED):
        return {State.NEEDS_LOGIN: "needs login", State.REVOKED: "revoked"}[grant.record.state]
    if grant.serves(now) is not None:
        return "fresh"
    return "on demand" if grant.settings.pace.on_demand else "without a token"


def is_settled(grant: LiveGrant, now: Moment) -> bool:
    """Whether there is nothing to wait for: it has a token, or its first try has ended, or none will be made."""
    if _kind(grant, now) != "without a token" or grant.record.failures > 0:
        return True
    return grant.running is None and grant.plan(now, for_caller=True) is None


class Readiness:
    """Reports for the running daemon. `environ`: the process's environment, where systemd sets WATCHDOG_USEC."""

    def __init__(self, broker: TokenBroker, notify: Notify, environ: Mapping[str, str] = os.environ) -> None:
        self._broker = broker
        self._notify = notify
        self._beat = _beat_every(environ)
        self._changed = trio.Event()

    async def run(self) -> None:
        """Runs as long as the daemon serves."""
        async with trio.open_nursery() as nursery:
            if self._beat is not None:
                nursery.start_soon(self._send_watchdog, self._beat)
            with trio.move_on_after(READY_WITHIN):
                await self._until_settled()
            await self.ready()
            await self._report_changes()

    async def ready(self) -> None:
        """Report READY=1: at the start, and at the end of a reload."""
        self._notify("READY=1", f"STATUS={await self._line()}")

    def stopping(self) -> None:
        """Ask for more time if exchanges are under way: one that has sent a stored token is not cancelled, and may take
        longer than the service manager would wait."""
        running = [grant for grant in self._broker.grants.values() if grant.running is not None]
        if under_way := len(running):
            answers = max(grant.provider.settings.answer_timeout or ANSWER_TIMEOUT for grant in running)
            self._notify(
                "STOPPING=1",
                f"STATUS={under_way} exchange{'' if under_way == 1 else 's'} under way",
                f"EXTEND_TIMEOUT_USEC={int((answers + LONGER) * 1e6)}",
            )
        else:
            self._notify("STOPPING=1", "STATUS=stopping")

    async def _line(self) -> str:
        if self._broker.locked:
            return "locked: brokerctl unlock"
        kinds: dict[str, list[str]] = {}
        async for grant, now in self._each():
            kinds.setdefault(_kind(grant, now), []).append(grant.name)
        trouble = self._broker.store.trouble
        return summary(kinds) + (f"; store: {trouble}" if trouble else "")

    async def _each(self) -> AsyncIterator[tuple[LiveGrant, Moment]]:
        """Every grant. Other tasks run in between, because there may be ten thousand."""
        for number, grant in enumerate(tuple(self._broker.grants.values()), 1):
            yield grant, self._broker.now()
            if number % TURN == 0:
                await trio.lowlevel.checkpoint()

    async def _until_settled(self) -> None:
        self._broker.watch(EVERY, self._tell)
        while True:
            self._changed = trio.Event()
            if all([is_settled(grant, now) async for grant, now in self._each()]):
                return
            await self._changed.wait()

    async def _report_changes(self) -> None:
        reported = await self._line()
        while True:
            with trio.move_on_after(LOOK_AGAIN):  # an expired token changes the line without an event
                await self._changed.wait()
            self._changed = trio.Event()
            await trio.sleep(STATUS_EVERY)
            if (line := await self._line()) != reported:
                reported = line
                self._notify(f"STATUS={line}")

    def _tell(self, _name: str) -> None:
        self._changed.set()

    async def _send_watchdog(self, every: float) -> None:
        """Report WATCHDOG=1 as long as the event loop runs, which this task shows, and the renewal schedule runs
        too."""
        while True:
            if self._broker.schedule.runs:
                self._notify("WATCHDOG=1")
            await trio.sleep(every)


def _beat_every(environ: Mapping[str, str]) -> float | None:
    """A third of the interval that systemd asks for, in seconds; None if it asks for none."""
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
    if not text.isdigit() or not int(text) or (pid is not None and pid != str(os.getpid())):
        return None
    return int(text) / 3e6


KINDS = ("needs login", "misconfigured", "revoked", "without a token", "on demand")
