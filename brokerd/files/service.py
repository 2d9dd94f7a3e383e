# The process of `brokerctl files`: joins sources, keepers and on_change, reads FILE.toml again after SIGHUP, and tells
# the service manager how it goes.
from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio
from brokerd_client import BrokerError
from brokerd_client.on_trio import Broker

from brokerd.config.token_files import OnChange, Source, TokenFile
from brokerd.core.events import Event
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError
from brokerd.edge.files import replaced_file
from brokerd.edge.files.kept_files import KeptFiles
from brokerd.edge.systemd.notify import beats
from brokerd.files import sources
from brokerd.files.keeper import Keeper, Tools
from brokerd.files.on_change import ChangeRunner

READY_WITHIN = 20.0  # seconds; then the units that are ordered after this one can start all the same
STATUS_EVERY = 1.0  # seconds between two status lines, at least
THREADS = 8  # that write files at the same time
LOOK_AGAIN = 5.0  # seconds between two looks whether somebody has removed or replaced a file
ONCE_WAIT = 10.0  # seconds that --once waits for a provider
NAMED = 2  # problems that the status line names

Load = Callable[[], Sequence[TokenFile]]


class FilesService:
    """`load` reads FILE.toml and raises ConfigError; `in_words` says such an error; `notify` tells systemd."""

    def __init__(
        self,
        load: Load,
        kept: KeptFiles,
        say: Callable[..., None],
        notify: Callable[..., None],
        in_words: Any,
        *,
        user: bool,
    ) -> None:
        self._load = load
        self._notify = notify
        self._in_words = in_words
        self._user = user
        self._keepers: dict[Path, Keeper] = {}
        self._runners: dict[OnChange, ChangeRunner] = {}
        self._by_source: dict[Source, list[Keeper]] = {}
        self._begin_runner: Callable[[ChangeRunner], None] = lambda _: None
        self._begun = trio.Event()
        self._away = ""  # why brokerd cannot be asked
        self._tools = Tools(kept, trio.CapacityLimiter(THREADS), say, self._on_change, self._is_due)

    async def once(self, broker: Broker) -> list[str]:
        """Write every file once. The codes of the files that hold no token now; "io" for what the system refused."""
        await self._read(self._load())
        await sources.ask_once(broker, self._by_source, self._tell, ONCE_WAIT)
        for keeper in self._keepers.values():
            await keeper.catch_up()
        for runner in self._runners.values():
            if runner.pending:
                await runner.once(goes_on=False)
        failed = ["io" for each in self._runners.values() if each.problem]
        return [keeper.code for keeper in self._keepers.values() if keeper.problem] + failed

    async def run(self, broker: Broker) -> None:
        """Until SIGTERM or SIGINT. SIGHUP reads FILE.toml again, all or nothing."""
        files: Sequence[TokenFile] | None = self._load()
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                self._begin_runner = lambda runner: nursery.start_soon(runner.run)
                nursery.start_soon(self._report)
                nursery.start_soon(self._beat, os.environ)
                while files is not None:
                    async with trio.open_nursery() as generation:
                        await self._read(files)
                        for keeper in self._keepers.values():
                            generation.start_soon(keeper.run)
                        generation.start_soon(self._look)
                        sources.begin(broker, self._by_source, self._tell, generation)
                        self._begun.set()
                        files = await self._next(signals)
                        generation.cancel_scope.cancel()
                self._notify("STOPPING=1")
                nursery.cancel_scope.cancel()

    async def _next(self, signals: Any) -> Sequence[TokenFile] | None:
        """The files of the next reload; None: stop."""
        async for number in signals:
            if number != signal.SIGHUP:
                return None
            try:
                files = await trio.to_thread.run_sync(self._load)
            except ConfigError as error:
                for each in (error, *error.others):
                    self._tools.say(Event.NOT_RELOADED, reason=self._in_words(each))
                continue
            self._tools.say(Event.RELOADED, files=len(files))
            return files
        return None

    async def _read(self, files: Sequence[TokenFile]) -> None:
        """Keepers for these files. What an earlier FILE.toml named and this one does not is removed."""
        kept = await trio.to_thread.run_sync(self._tools.kept.read)
        paths = {file.path for file in files}
        await trio.to_thread.run_sync(replaced_file.sweep, paths | kept.keys())
        for path, each in kept.items():
            if path not in paths:
                await trio.to_thread.run_sync(self._drop, path, each.inode)
        self._keepers = {file.path: Keeper(file, kept.get(file.path), self._tools) for file in files}
        self._by_source = {}
        for path, keeper in self._keepers.items():
            self._by_source.setdefault(keeper.file.source, []).append(keeper)
            if path in kept and kept[path].due:
                self._on_change(keeper)

    async def _look(self) -> None:
        """All files in one thread: one for each would cost more than everything else."""
        while True:
            await trio.sleep(LOOK_AGAIN)
            for path, inode in (await trio.to_thread.run_sync(_inodes, tuple(self._keepers))).items():
                self._keepers[path].look(inode)

    def _drop(self, path: Path, inode: int | None) -> None:
        """In a thread."""
        found = replaced_file.inode_of(path)
        try:
            if found is not None and inode in (None, found):
                replaced_file.remove(path)
                self._tools.say(Event.FILE_REMOVED, path=str(path), reason="it is no longer configured")
            self._tools.kept.forget(path)
        except OSError as error:
            self._tools.say(Event.FILE_NOT_WRITTEN, path=str(path), reason=f"cannot be removed: {error}")

    def _tell(self, source: Source, news: sources.News) -> None:
        away = news.message if isinstance(news, BrokerError) else ""
        if away and not self._away:
            self._tools.say(Event.BROKERD_AWAY, reason=away)
        elif self._away and not away:
            self._tools.say(Event.BROKERD_BACK)
        self._away = away
        for keeper in self._by_source.get(source, ()):
            keeper.tell(news)

    def _on_change(self, keeper: Keeper) -> None:
        if (what := keeper.file.on_change) is None:
            return
        if what not in self._runners:
            self._runners[what] = ChangeRunner(what, self._tools.say, self._secrets_of, self._ran, user=self._user)
            self._begin_runner(self._runners[what])
        self._runners[what].changed(keeper.file.path)

    def _is_due(self, keeper: Keeper) -> bool:
        runner = self._runners.get(keeper.file.on_change) if keeper.file.on_change else None
        return runner is not None and keeper.file.path in runner.pending

    def _secrets_of(self, paths: Iterable[Path]) -> list[Secret]:
        return [secret for path in paths if path in self._keepers for secret in self._keepers[path].secrets]

    async def _ran(self, paths: Iterable[Path]) -> None:
        for path in paths:
            if path in self._keepers:
                await self._keepers[path].on_change_ran()

    # -- what the service manager is told

    async def _report(self) -> None:
        with trio.move_on_after(READY_WITHIN):
            await self._begun.wait()
            for keeper in self._keepers.values():
                await keeper.settled.wait()
        said = self.line()
        self._notify("READY=1", f"STATUS={said}")
        self._tools.say(Event.READY, files=len(self._keepers))
        while True:
            await trio.sleep(STATUS_EVERY)
            if (line := self.line()) != said:
                said = line
                self._notify(f"STATUS={line}")

    def line(self) -> str:
        """How it goes, in one line without a secret."""
        broken = [self._away] if self._away else []
        broken += [f"{path}: {each.problem}" for path, each in self._keepers.items() if each.problem]
        broken += [each.problem for each in self._runners.values() if each.problem]
        fresh = sum(not each.problem for each in self._keepers.values())
        line = f"{fresh} file{'' if fresh == 1 else 's'} fresh"
        return "; ".join((line, *broken[:NAMED], *(["…"] if len(broken) > NAMED else [])))

    async def _beat(self, environ: Mapping[str, str]) -> None:
        """WATCHDOG=1 as long as the event loop runs."""
        while (pause := beats(environ)) is not None:
            self._notify("WATCHDOG=1")
            await trio.sleep(pause)


def _inodes(paths: Iterable[Path]) -> dict[Path, int | None]:
    return {path: replaced_file.inode_of(path) for path in paths}
