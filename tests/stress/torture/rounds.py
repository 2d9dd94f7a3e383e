# One round: the daemon dies as planned and is started again; every grant works, or is the case that nobody can mend.
from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import trio
from brokerd_client.errors import BrokerError, NeedsLogin, Unavailable

from tests.forked import Forked
from tests.scenario.daemon.harness import Brokerd, Executed, until
from tests.stress.torture.daemon import DIED, POINTS
from tests.stress.torture.plan import ANSWER, ANY_MOMENT, SIGTERM, WATCHDOG, Death, Round
from tests.stress.torture.world import Grant, Mends, World

DIES_WITHIN = 30.0  # seconds until a failpoint is met: each grant is renewed every second or two
LANDS_WITHIN = ANSWER + 15.0  # seconds from SIGTERM, where a provider keeps its answer for so long
WORKS_WITHIN = 40.0  # seconds from a start; 30 are the longest backoff after a few failures
PAUSE = 0.05  # seconds between a caller's tries
EXCHANGED = re.compile(r"event=\S+ grant=(\S+) provider=\S+ message=.* operation=(\w+) outcome=(\w+)(.*)")
LOSES_NOTHING = ("at before-journal", "at before-send", "at after-commit")
MODULE = "tests.stress.torture.daemon"


class Broken(AssertionError):
    """A round that did not end as it has to."""


class Mortal(Brokerd):
    """A daemon that can be started with a failpoint."""

    failpoint: Death | None = None

    def _begin(self, arguments: list[str], output: int, module: str = "brokerd.daemon.main") -> Executed | Forked:
        if self.failpoint is None:
            return super()._begin(arguments, output, module)
        words = f"{self.failpoint.kind}:{self.failpoint.hits}"
        return super()._begin([words, *arguments], output, MODULE)


class Torture:
    """Plays rounds, and counts what became of the grants."""

    def __init__(self, brokerd: Mortal, world: World) -> None:
        self.brokerd = brokerd
        self.world = world
        self.rounds: Counter[str] = Counter()
        self.deaths: Counter[str] = Counter()
        self.worked: Counter[str] = Counter()  # by kind of death, of grants
        self.mended: Counter[tuple[str, str]] = Counter()  # a lost answer, by kind of death and by what came to help
        self.unmendable: Counter[tuple[str, str]] = Counter()  # likewise, and by whether it was at the failpoint

    async def prepare(self) -> None:
        """Configure everything and log in everywhere."""
        for name, text in self.world.recipes.items():
            self.brokerd.write(text, f"recipes/{name}.toml")
        grants = {name: grant.table for name, grant in self.world.grants.items()}
        self.brokerd.configure(grants, self.world.providers)
        await self.brokerd.start()
        for grant in self.world.grants.values():
            if grant.mends is not Mends.CREDENTIALS:
                await self._log_in(grant)
            await self.brokerd.get(grant.name)

    async def play(self, round_: Round) -> str:
        """One round; a line about it. Raises Broken."""
        if self.brokerd.runs and await self.brokerd.stop() != 0:
            raise Broken("an idle daemon did not end with 0 at SIGTERM")
        begun = len(self.brokerd.log)
        lost: dict[str, tuple[str, str]] = {}
        for death in round_.deaths:
            for name, where in (await self._live_until(death, round_.grants)).items():
                lost.setdefault(name, (death.kind, where))
            self.deaths[death.kind] += 1
        await self.brokerd.start()
        found: dict[str, str] = {}
        async with trio.open_nursery() as nursery:
            for grant in self.world.grants.values():
                nursery.start_soon(self._judge, grant, grant.name in lost, begun, found)
        self._assert_discreet(begun)
        self.rounds[round_.kind] += 1
        for name, verdict in found.items():
            if verdict == Mends.PERSON:
                self.unmendable[lost[name]] += 1
            else:
                self.worked[round_.kind] += 1
                if verdict:
                    self.mended[lost[name][0], verdict] += 1
        deaths = ", then ".join(map(str, round_.deaths))
        helped = [f"{name} by {verdict}" for name, verdict in sorted(found.items()) if verdict]
        return f"{deaths}; {len(round_.grants)} grants asked for; mended: {', '.join(helped) or 'none had to be'}"

    def report(self) -> str:
        """What was counted."""
        rounds, deaths = sum(self.rounds.values()), sum(self.deaths.values())
        lines = [f"{rounds} rounds, {deaths} deaths: " + _counts(self.deaths)]
        lines.append(f"{sum(self.worked.values())} grants worked: " + _counts(self.worked))
        for words, counts in (("of them mended", self.mended), ("grants that nobody can mend", self.unmendable)):
            lines.append(f"{sum(counts.values())} {words}: " + _counts(counts))
        return "\n".join(lines)

    # -- deaths

    async def _live_until(self, death: Death, grants: tuple[str, ...]) -> dict[str, str]:
        """A daemon's life, its grants asked for all the time, and its death. The grants whose provider sent a new
        refresh token that this daemon is not known to have stored, and where in the exchange each was."""
        brokerd, begun = self.brokerd, len(self.brokerd.log)
        before = self._rotations()
        async with trio.open_nursery() as callers:
            brokerd.failpoint = death if death.kind in POINTS else None
            try:
                brokerd.launch()
            finally:
                brokerd.failpoint = None
            for grant in grants:
                callers.start_soon(_ask, brokerd, grant)
            await self._die(death)
            callers.cancel_scope.cancel()
        for relay in self.world.relays:
            relay.slow = 0.0
        await until(lambda: all(relay.is_settled for relay in self.world.relays))
        log = brokerd.log[begun:]
        stored = Counter(
            name
            for name, operation, outcome, _ in EXCHANGED.findall(log)
            if (operation, outcome) == ("renew", "issued")
        )
        stored.update(name for point, name in DIED.findall(log) if point == "after-commit")
        at = {name: f"at {point}" for point, name in DIED.findall(log)}
        lost = {name: at.get(name, "under way") for name in self._rotations() - before - stored}
        for name, where in lost.items():
            if death.kind == SIGTERM or where in LOSES_NOTHING:
                raise Broken(f"{name}: its new refresh token was lost {where} by {death}")
        return lost

    async def _die(self, death: Death) -> None:
        brokerd = self.brokerd
        if death.kind in POINTS:
            self._expect(await brokerd.ended(DIES_WITHIN), -signal.SIGKILL)
            if not DIED.findall(brokerd.log):
                raise Broken("the daemon died elsewhere than at its failpoint")
            return
        if death.kind == ANY_MOMENT:
            await trio.sleep(death.delay)
            await brokerd.kill()
            return
        for relay in self.world.relays:
            relay.slow = ANSWER
        await until(lambda: any(relay.holding for relay in self.world.relays), within=DIES_WITHIN)
        await trio.sleep(death.delay)
        if death.kind == SIGTERM:
            brokerd.signal(signal.SIGTERM)
            self._expect(await brokerd.ended(LANDS_WITHIN), 0)
        elif death.kind == WATCHDOG:
            brokerd.signal(signal.SIGABRT)  # what systemd sends where a beat is missed (WatchdogSignal=)
            self._expect(await brokerd.ended(), -signal.SIGABRT)

    def _expect(self, status: int, expected: int) -> None:
        if status != expected:
            raise Broken(f"the daemon was to end with {expected} and ended with {status}")

    def _rotations(self) -> Counter[str]:
        return sum((relay.rotations for relay in self.world.relays), Counter[str]())

    # -- what became of the grants

    async def _judge(self, grant: Grant, lost: bool, begun: int, found: dict[str, str]) -> None:
        """Until the grant serves a token that came after the death and that its provider confirms; or it has to be the
        one case. `found`: what had to help, if anything."""
        rejected = partial(self._rejections, grant.name, begun)
        try:
            with trio.fail_after(WORKS_WITHIN):
                await self._works(grant)
            helped = rejected() or (lost and grant.mends is Mends.GRACE)
            found[grant.name] = str(grant.mends) if helped else ""
            was_risked = lost and all("interrupted at " in line for line in rejected())
            if rejected() and not (was_risked and grant.mends is Mends.CREDENTIALS):
                raise Broken(f"{grant.name}: rejected, and that is not for an interruption: {rejected()}")
        except NeedsLogin as error:
            if not lost:
                raise Broken(f"{grant.name}: its provider replaced nothing, and {error}") from None
            if grant.mends is not Mends.PERSON:
                raise Broken(f"{grant.name}: {grant.mends} would have mended it, and {error}") from None
            await self._says_so(grant, error, begun)
            await self._log_in(grant)
            with trio.fail_after(WORKS_WITHIN):
                await self._works(grant)
            found[grant.name] = str(Mends.PERSON)
        except trio.TooSlowError:
            status = await self.brokerd.status(grant.name)
            raise Broken(f"{grant.name}: no living token within {WORKS_WITHIN:g} s: {status}") from None

    async def _works(self, grant: Grant) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                await self.brokerd.call("refresh", grant=grant.name)
                value = await self.brokerd.get(grant.name, wait=0)
                if await trio.to_thread.run_sync(grant.is_alive, value):
                    return
            await trio.sleep(PAUSE)

    async def _says_so(self, grant: Grant, error: NeedsLogin, begun: int) -> None:
        """Answers, status and audit log name the interruption, the state and the command that mends it."""
        remedy = f"brokerctl import {grant.name}"
        status = (await self._brokerctl("status", "--json", grant.name))["grants"][0]
        said = {
            "the answer": "interrupted at " in error.message and remedy in error.message,
            "status, the state": status["state"] == "needs_login",
            "status, the interruption": "interrupted at " in (status["last_error"] or ""),
            "status, the remedy": status["remedy"] == remedy,
            "audit, the interruption": f"event=exchange_interrupted grant={grant.name} " in self.brokerd.log[begun:],
            "audit, the end": any(
                f"grant={grant.name} " in line
                and all(words in line for words in ("state=needs_login", "interrupted at ", f'remedy="{remedy}"'))
                for line in self.brokerd.log[begun:].splitlines()
            ),
        }
        if missing := [what for what, is_said in said.items() if not is_said]:
            raise Broken(f"{grant.name}: {', '.join(missing)} was not said: {error}; {status}")

    def _rejections(self, grant: str, begun: int) -> list[str]:
        """What the audit log says of rejected refresh tokens."""
        found = EXCHANGED.findall(self.brokerd.log[begun:])
        return [
            rest
            for name, operation, outcome, rest in found
            if (name, operation, outcome) == (grant, "renew", "rejected")
        ]

    def _assert_discreet(self, begun: int) -> None:
        said = self.brokerd.log[begun:]
        if any(secret in said for secret in self.world.secrets):
            raise Broken("a secret is in the log")

    # -- what a person does

    async def _log_in(self, grant: Grant) -> None:
        """A login, and the command that brokerd asks for."""
        token = await trio.to_thread.run_sync(grant.login)
        grant.relay.imports(grant.name, token)
        await self._brokerctl("import", grant.name, given=token)

    async def _brokerctl(self, *words: str, given: str = "") -> Any:
        command = [sys.executable, "-m", "brokerd.ctl", "--socket", str(self.brokerd.socket), *words]
        done = await trio.run_process(
            command, stdin=given.encode(), capture_stdout=True, capture_stderr=True, check=False
        )
        if done.returncode != 0:
            raise Broken(f"brokerctl {' '.join(words)} ended with {done.returncode}: {done.stderr.decode()}")
        return json.loads(done.stdout) if "--json" in words else None


async def _ask(brokerd: Brokerd, grant: str) -> None:
    """A caller who wants a new token again and again, and does not mind that the daemon dies."""
    while True:
        with contextlib.suppress(OSError, EOFError, trio.BrokenResourceError, BrokerError):
            await brokerd.call("refresh", grant=grant)
        await trio.sleep(PAUSE)


def _counts(counts: Mapping[Any, int]) -> str:
    """The counts of words, or of several, as a line."""
    shown = {key if isinstance(key, str) else ": ".join(key): number for key, number in counts.items()}
    return ", ".join(f"{key} {number}" for key, number in sorted(shown.items())) or "none"
