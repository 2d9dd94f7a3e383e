# What brokerd tells the service manager of itself (sd_notify(3)): ready, how it is in a line, that its loops run, when
# it needs longer to stop. It decides nothing: without a manager brokerd does the same things.
from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping

import trio

from brokerd.broker import EVERY, Broker
from brokerd.core.exchange import ANSWER_TIMEOUT
from brokerd.core.grant import State
from brokerd.core.moment import Moment
from brokerd.held import HeldGrant
from brokerd.refresher import LOOK_AGAIN, TURN

READY_WITHIN = 20.0  # seconds; what needs longer than that is said, and does not keep other units from starting
SAID_AGAIN = 1.0  # seconds between two status lines at least
STUCK = 2 * LOOK_AGAIN  # seconds without a look of the refresher, which looks every LOOK_AGAIN
NAMED = 3  # grants that a status line names
LONGER = 60.0  # seconds to connect and to send, and some for the store, besides those for an answer

Notify = Callable[..., None]


def summary(kinds: Mapping[str, list[str]]) -> str:
    """How the grants are, in one line, of their names by kind: `41 grants fresh, 1 needs login: reports`."""
    fresh = len(kinds.get("fresh", ()))
    others = [_named(kind, sorted(names)) for kind in KINDS if (names := kinds.get(kind))]
    return ", ".join((f"{fresh} grant{'' if fresh == 1 else 's'} fresh", *others))


def _named(kind: str, names: list[str]) -> str:
    return f"{len(names)} {kind}: {', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''}"


def _kind(held: HeldGrant, now: Moment) -> str:
    if held.blocked or held.record.state is State.MISCONFIGURED:
        return "misconfigured"
    if held.record.state in (State.NEEDS_LOGIN, State.REVOKED):
        return {State.NEEDS_LOGIN: "needs login", State.REVOKED: "revoked"}[held.record.state]
    if held.serves(now) is not None:
        return "fresh"
    return "on demand" if held.settings.pace.on_demand else "without a token"


def is_settled(held: HeldGrant, now: Moment) -> bool:
    """Whether waiting longer would not help: it has a token, or its first try has ended, or none will be made."""
    if _kind(held, now) != "without a token" or held.record.failures > 0:
        return True
    return held.flight is None and held.plan(now, for_caller=True) is None


class Service:
    """One for a running daemon. `environ` is the process's: WATCHDOG_USEC is systemd's."""

    def __init__(self, broker: Broker, notify: Notify, environ: Mapping[str, str] = os.environ) -> None:
        self._broker = broker
        self._notify = notify
        self._beat = _beat_every(environ)
        self._changed = trio.Event()

    async def run(self) -> None:
        """For as long as the daemon serves."""
        async with trio.open_nursery() as nursery:
            if self._beat is not None:
                nursery.start_soon(self._beat_on, self._beat)
            with trio.move_on_after(READY_WITHIN):
                await self._until_settled()
            await self.ready()
            await self._keep_saying()

    async def ready(self) -> None:
        """At the start, and at the end of a reload."""
        self._notify("READY=1", f"STATUS={await self._line()}")

    def stopping(self) -> None:
        """What spends a refresh token is seen to its end, which may take longer than the manager would wait."""
        flying = [held for held in self._broker.grants.values() if held.flight is not None]
        if under_way := len(flying):
            answers = max(held.provider.settings.answer_timeout or ANSWER_TIMEOUT for held in flying)
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
        async for held, now in self._each():
            kinds.setdefault(_kind(held, now), []).append(held.name)
        trouble = self._broker.store.trouble
        return summary(kinds) + (f"; store: {trouble}" if trouble else "")

    async def _each(self) -> AsyncIterator[tuple[HeldGrant, Moment]]:
        """Every grant, other tasks having their turns: there may be ten thousand."""
        for number, held in enumerate(tuple(self._broker.grants.values()), 1):
            yield held, self._broker.now()
            if number % TURN == 0:
                await trio.lowlevel.checkpoint()

    async def _until_settled(self) -> None:
        self._broker.watch(EVERY, self._tell)
        while True:
            self._changed = trio.Event()
            if all([is_settled(held, now) async for held, now in self._each()]):
                return
            await self._changed.wait()

    async def _keep_saying(self) -> None:
        said = await self._line()
        while True:
            with trio.move_on_after(LOOK_AGAIN):  # a token that died changes the line too
                await self._changed.wait()
            self._changed = trio.Event()
            await trio.sleep(SAID_AGAIN)
            if (line := await self._line()) != said:
                said = line
                self._notify(f"STATUS={line}")

    def _tell(self, _name: str) -> None:
        self._changed.set()

    async def _beat_on(self, every: float) -> None:
        """That this runs shows that the event loop does; the refresher's loop is asked for its last look."""
        while True:
            if trio.current_time() - self._broker.flights.looked < STUCK:
                self._notify("WATCHDOG=1")
            await trio.sleep(every)


def _beat_every(environ: Mapping[str, str]) -> float | None:
    """A third of the interval that systemd asks for, in seconds; None where it asks for none."""
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
    if not text.isdigit() or not int(text) or (pid is not None and pid != str(os.getpid())):
        return None
    return int(text) / 3e6


KINDS = ("needs login", "misconfigured", "revoked", "without a token", "on demand")
