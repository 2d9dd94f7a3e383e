# Keeps one file: takes what brokerd says of its token, and writes, removes and remembers. core/files/decisions.py says
# what is due. A file whose disk hangs delays no other one.
from __future__ import annotations

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import trio
from brokerd_client import Gone, Token

from brokerd.config.token_files import TokenFile
from brokerd.core.events import Event
from brokerd.core.files.contents import Values
from brokerd.core.files.decisions import UNKNOWN, Held, WantedContent, after_loss, due, wakes_at, write_delay
from brokerd.core.files.template import Unfit
from brokerd.core.secret import Secret
from brokerd.edge.files import replaced_file
from brokerd.edge.files.kept_files import KeptFile, KeptFiles
from brokerd.files.sources import News

CLOCK_AGAIN = 10.0  # seconds between two looks at the clock, which somebody may set
REMEMBERED = 8  # secrets of a file that are masked in the output of its on_change
NOT_YET = "brokerd has not answered yet"


@dataclass(frozen=True, slots=True)
class Tools:
    """What all keepers of a process share. `changed`: the file has changed, so its on_change is to run."""

    kept: KeptFiles
    threads: trio.CapacityLimiter
    say: Callable[..., None]
    changed: Callable[[Keeper], None]
    is_due: Callable[[Keeper], bool]


class Keeper:
    """One file. `problem`: why it does not hold a token, with the code of docs/protocol.md or "io". `settled`: it was
    written once, or it is known why not."""

    def __init__(self, file: TokenFile, kept: KeptFile | None, tools: Tools) -> None:
        self.file = file
        self.problem, self.code = NOT_YET, "unavailable"
        self.settled = trio.Event()
        self.secrets: tuple[Secret, ...] = ()
        self._tools = tools
        self._kept = kept or KeptFile(str(file.path))
        self._wanted: WantedContent | None = None
        self._held = _found(file, kept)
        self._failures = 0
        self._wake = trio.Event()
        self._writing = trio.Lock()

    def tell(self, news: News) -> None:
        """What brokerd says now."""
        if isinstance(news, Token):
            self._take(news)
        elif isinstance(news, Gone):
            self.problem, self.code = news.error.message, news.error.code
            self._wanted = after_loss(self._wanted, self.code, self.problem, self._held)
            if self.code != "unavailable" and self._held.content is None:
                self.settled.set()
        elif self._wanted is None:
            self.problem, self.code = news.message, news.code
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake = trio.Event()
            what = due(self._wanted, self._held, time.time(), failing=self._failures > 0)
            if what is None:
                with trio.move_on_after(self._until(CLOCK_AGAIN)):
                    await self._wake.wait()
            elif not await self._apply(what):
                await trio.sleep(self._until(write_delay(self._failures), tried=True))

    async def catch_up(self) -> None:
        """Do once what is due now."""
        for _ in range(2):  # where writing fails, a dead token is still to be removed
            if (what := due(self._wanted, self._held, time.time(), failing=self._failures > 0)) is not None:
                await self._apply(what)

    def look(self, inode: int | None) -> None:
        """What is at the path now. Somebody may have removed or replaced the file: a service's RuntimeDirectory= goes
        with the service. If it was we who replaced it meanwhile, writing finds that out."""
        if self._held.content is not None and self._kept.inode not in (None, inode):
            self._held = Held(None if inode is None else UNKNOWN, None if inode is None else self._held.expires_at)
            self._wake.set()

    async def on_change_ran(self) -> None:
        """It ended well, and nothing has changed since."""
        async with self._writing:
            if self._kept.due and not self._tools.is_due(self):
                with suppress(OSError):
                    await self._in_thread(self._remember, self._held.expires_at, self._kept.inode)

    def _take(self, token: Token) -> None:
        about = (token.grant, token.value, token.token_type, token.expires_at)
        values = Values(*about, token.header, token.fields)
        new = tuple(map(Secret, (token.value, *token.fields.values())))
        self.secrets = tuple(dict.fromkeys((*new, *self.secrets)))[: max(REMEMBERED, 2 * len(new))]
        try:
            self._wanted = WantedContent(self.file.contents.of(values), token.expires_at)
        except Unfit as unfit:
            self._fail(f"{unfit}", "misconfigured")
            self.settled.set()
        else:
            self.problem = self.code = ""

    async def _apply(self, what: WantedContent) -> bool:
        """Whether it could be done."""
        async with self._writing:
            try:
                changed = await self._in_thread(self._remove if what.content is None else self._write, what)
            except OSError as error:
                self._failures += 1
                self._fail(_in_words(error, self.file), "io")
                return False
        if self._failures and what.content is not None:
            self.problem = self.code = ""
            self._failures = 0
        self._held = Held(what.content, what.expires_at)
        if changed:
            self._tools.changed(self)
            if what.content is None:
                event = Event.FILE_REMOVED if self._kept.inode is None else Event.FILE_EMPTIED
                self._tools.say(event, path=str(self.file.path), grant=self._grant, reason=what.why)
            else:
                self._tools.say(Event.FILE_WRITTEN, path=str(self.file.path), grant=self._grant)
        if what.content is None and not self.problem:
            self.problem, self.code = what.why, "unavailable"
        self.settled.set()
        return True

    # In a thread:

    def _write(self, what: WantedContent) -> bool:
        assert what.content is not None
        file = self.file
        if replaced_file.holds(file.path, what.content, file.mode, file.group):
            self._remember(what.expires_at, replaced_file.inode_of(file.path))
            return False
        living = [each for each in (what.expires_at, self._held.expires_at) if each is not None]
        inode = replaced_file.replace(
            file.path,
            what.content,
            file.mode,
            file.group,
            before=lambda: self._remember(min(living, default=None), None, due=True),
        )
        with suppress(OSError):  # what was remembered before is right, only less exact
            self._remember(what.expires_at, inode, due=True)
        return True

    def _remove(self, _what: WantedContent) -> bool:
        file, was_there = self.file, replaced_file.inode_of(self.file.path) is not None
        inode = None
        if file.empties:
            if replaced_file.holds(file.path, b"", file.mode, file.group):
                return False
            with suppress(OSError):  # the disk is full: then the file goes
                inode = replaced_file.replace(file.path, b"", file.mode, file.group)
        if inode is None:
            replaced_file.remove(file.path)
        with suppress(OSError):
            self._remember(None, inode, due=was_there)
        return was_there

    def _remember(self, expires_at: float | None, inode: int | None, *, due: bool = False) -> None:
        due = self.file.on_change is not None and (due or self._tools.is_due(self))
        kept = KeptFile(str(self.file.path), expires_at, inode, due)
        if kept != self._kept:
            self._tools.kept.save(kept)
            self._kept = kept

    # Waiting and complaining:

    def _until(self, longest: float, *, tried: bool = False) -> float:
        """Seconds until the held token expires, but at most `longest`. `tried`: it could not be removed then."""
        left = longest if (at := wakes_at(self._held)) is None else at - time.time()
        return longest if tried and left <= 0 else max(0.0, min(longest, left))

    def _fail(self, problem: str, code: str) -> None:
        if problem != self.problem:
            self._tools.say(Event.FILE_NOT_WRITTEN, path=str(self.file.path), grant=self._grant, reason=problem)
        self.problem, self.code = problem, code

    async def _in_thread(self, work: Callable[..., Any], *arguments: object) -> Any:
        return await trio.to_thread.run_sync(work, *arguments, limiter=self._tools.threads)

    @property
    def _grant(self) -> str:
        return self.file.source.grant


def _found(file: TokenFile, kept: KeptFile | None) -> Held:
    """What is at the path when we start."""
    inode = replaced_file.inode_of(file.path)
    if inode is None:
        return Held()
    ours = kept is not None and kept.inode in (None, inode)
    return Held(UNKNOWN, kept.expires_at if ours and kept is not None else None)


def _in_words(error: OSError, file: TokenFile) -> str:
    words = error.strerror or str(error)
    folder = file.path.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{words}; make room in {folder}, and where brokerctl files keeps its state"
    if error.errno == errno.ENOENT:
        return f"the folder {folder} does not exist; create it, or start the service that creates it"
    if error.errno == errno.EROFS:
        return f"{words}; let the unit write there: a drop-in with [Service] ReadWritePaths={folder}"
    if error.errno in (errno.EACCES, errno.EPERM) and file.group is not None:
        return f"{words}; this user must be able to write in {folder} and be in the group {file.group}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{words}; let this user write in {folder}, or name another folder"
    return words
