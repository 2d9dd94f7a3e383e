# Runs what is to run after a change. Files with the same on_change share it: it starts at most once a second, the last
# change is always followed by a run, and what fails is tried again.
from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import trio

from brokerd.config.token_files import OnChange
from brokerd.core.events import Event
from brokerd.core.exchange.redaction import reason
from brokerd.core.files.decisions import RunPace
from brokerd.core.secret import Secret
from brokerd.edge.system import commands

WITHIN = 30.0  # seconds for a run
VERBS = {"reload": "reload", "restart": "try-restart"}
DENIED = ("authentication required", "Access denied", "Permission denied")  # as systemctl words it
STOPPED = ("inactive", "failed", "deactivating")  # it reads the file when it starts


class ChangeRunner:
    """One on_change. `pending`: the files that have changed since the last run began. `user`: units are those of the
    user's own systemd. `secrets_of`: what must not be logged; `ran`: is told of the files whose run ended well."""

    def __init__(
        self,
        what: OnChange,
        say: Callable[..., None],
        secrets_of: Callable[[Iterable[Path]], list[Secret]],
        ran: Callable[[Iterable[Path]], Awaitable[None]],
        *,
        user: bool,
    ) -> None:
        self.what = what
        self.pending: set[Path] = set()
        self.problem = ""
        self._secrets_of = secrets_of
        self._ran = ran
        self._say = say
        self._systemctl = ("systemctl", *(("--user",) if user else ()), "--no-ask-password")
        self._pace = RunPace()
        self._wake = trio.Event()

    def changed(self, path: Path) -> None:
        self.pending.add(path)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            while not self.pending:
                self._wake = trio.Event()
                await self._wake.wait()
            await trio.sleep_until(self._pace.next_start)
            await self.once(goes_on=True)

    async def once(self, *, goes_on: bool) -> None:
        """Run it now. `goes_on`: what fails is tried again."""
        taken, self.pending = self.pending, set()
        self._pace = self._pace.start(trio.current_time())
        output: list[str] = []
        failure = await self._start(output)
        secrets = _with_lines(self._secrets_of(taken))
        cut = (len(each.encode(errors="replace")) > commands.LONGEST_LINE for each in output)
        said = [
            line for each, is_cut in zip(output, cut, strict=True) if (line := reason(each, secrets, is_cut=is_cut))
        ]
        self._pace = self._pace.ended(well=failure is None)
        if failure is None:
            self.problem = ""
            self._say(Event.ON_CHANGE_RAN, run=self.what.name, output=said)
            await self._ran(taken - self.pending)
            return
        self.pending |= taken
        self.problem = f"{self.what.name} failed: {failure}"
        again = max(self._pace.next_start - trio.current_time(), 0)
        words = f"{failure}; it is tried again {f'in {again:.0f} s' if goes_on else 'at the next call'}"
        self._say(Event.ON_CHANGE_FAILED, run=self.what.name, reason=words, output=said)

    async def _start(self, output: list[str]) -> str | None:
        """Why it failed; None: it did not."""
        if self.what.command:
            return await commands.run(self.what.command, WITHIN, output.append)
        unit, shown = self.what.unit, list[str]()
        show = (*self._systemctl, "show", "--property=LoadState,ActiveState", "--", unit)
        if (failure := await commands.run(show, WITHIN, shown.append)) is not None:
            output += shown
            return f"cannot be asked for: systemctl {failure}"
        states = dict(line.partition("=")[::2] for line in shown)
        if states.get("LoadState") == "not-found":
            return "failed: there is no such unit; correct on_change"
        if states.get("ActiveState") in STOPPED:
            output.append(f"{unit} does not run: it will read the file when it starts")
            return None
        failure = await commands.run((*self._systemctl, VERBS[self.what.verb], "--", unit), WITHIN, output.append)
        is_denied = failure is not None and any(words in line for line in output for words in DENIED)
        return f"{failure}; see The right to reload a unit in brokerd-files.toml(5)" if is_denied else failure


def _with_lines(secrets: Iterable[Secret]) -> list[Secret]:
    """The secrets and each line of those that have several, because the output of a command comes line by line."""
    return [Secret(text) for each in secrets for text in {each.reveal(), *each.reveal().splitlines()}]
