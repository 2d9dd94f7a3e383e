# brokerctl status --watch on a terminal: the alternate screen, drawn again without being cleared, so that it does not
# flicker. What does not fit is scrolled with the keys. overview.py and one_grant.py make the lines.
from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from brokerd_client import BrokerError

from brokerd.ctl.status.look import Look, look_of_output
from brokerd.ctl.status.one_grant import one_grant
from brokerd.ctl.status.overview import body, ending, error_lines, troubles

PAUSE = 1.0  # seconds between two calls
SHARE = 4.0  # a call that takes long is repeated after so many times its duration: it must not load the daemon
KEYS = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\x1b[5~": "page up",
    b"b": "page up",
    b"\x1b[6~": "page down",
    b" ": "page down",
    b"\x1b[H": "first",
    b"\x1bOH": "first",
    b"g": "first",
    b"\x1b[F": "last",
    b"\x1bOF": "last",
    b"G": "last",
    b"q": "end",
}


class Picture(NamedTuple):
    """`head` and `foot` stay where they are; `rows` are scrolled between them."""

    head: list[str]
    rows: list[str]
    foot: list[str]


@dataclass
class Scroll:
    """`first`: the row that is shown first."""

    first: int = 0
    page: int = 1
    has_ended: bool = False

    def press(self, key: str) -> None:
        step = max(1, self.page - 1)
        if key == "end":
            self.has_ended = True
        else:
            moves = {"up": -1, "down": 1, "page up": -step, "page down": step}
            self.first = {"first": 0, "last": sys.maxsize}.get(key, self.first + moves.get(key, 0))

    def window(self, picture: Picture, look: Look, height: int) -> list[str]:
        """The lines of the screen. A sentence at its end says what is not shown."""
        head, rows, foot = picture
        head = head[: max(0, height // 2)]
        self.page = height - len(head) - len(foot)
        if len(rows) <= self.page:
            self.first = 0
            return [*head, *rows, *foot]
        self.page = max(1, self.page - 1)
        self.first = max(0, min(self.first, len(rows) - self.page))
        last = self.first + self.page
        keys = "↑ ↓ Page Up/Down" if look.utf8 else "arrows, Page Up/Down"
        words = f"lines {self.first + 1:,} to {last:,} of {len(rows):,}: {keys}; q ends"
        return [*head, *rows[self.first : last], look.paint(words[: look.columns], "dim"), *foot]


@dataclass
class View:
    """What was last heard. While the daemon does not answer, that stays, below the error."""

    problems: bool
    found: dict[str, Any] | None = None
    at: float = 0.0
    error: BrokerError | None = None
    scroll: Scroll = field(default_factory=Scroll)

    def picture(self, look: Look) -> Picture:
        head = error_lines(self.error, look) if self.error else []
        if self.found is None:
            return Picture(head, [], [])
        if len(self.found["grants"]) == 1 and "history" in self.found["grants"][0]:
            return Picture(head, one_grant(self.found, self.at, look), [])
        lines = body(self.found, self.at, look, problems=self.problems)
        head += troubles(self.found, self.at, look)
        return Picture([*head, *lines[:1]], lines[1:], ending(self.found, self.at, look))


def watch(call: Callable[[], dict[str, Any]], *, problems: bool) -> int:
    """Until q or Ctrl-C. Raises BrokerError if there is no answer at the beginning."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    view = View(problems, call(), time.time())
    console = Console(markup=False, highlight=False)
    with _keys() as read_key, Live(console=console, screen=True, auto_refresh=False) as live:
        pause = PAUSE
        while not view.scroll.has_ended:
            look = look_of_output(os.environ)._replace(columns=console.width)
            picture, until = view.picture(look), time.monotonic() + pause
            while not view.scroll.has_ended:
                lines = view.scroll.window(picture, look, console.height)
                overflow: Literal["ellipsis", "crop"] = "ellipsis" if look.utf8 else "crop"
                text = Text.from_ansi("\n".join(lines), no_wrap=True, overflow=overflow)
                live.update(text, refresh=True)
                if (key := read_key(until - time.monotonic())) is None:
                    break
                view.scroll.press(key)
            pause = _ask(view, call)
    return 0


def _ask(view: View, call: Callable[[], dict[str, Any]]) -> float:
    """Returns the seconds until the next call."""
    began = time.monotonic()
    try:
        view.found, view.at, view.error = call(), time.time(), None
    except BrokerError as error:
        view.error = error
    return max(PAUSE, SHARE * (time.monotonic() - began))


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str | None]]:
    """Reads the next key that means something, for so many seconds at most. Without a terminal there are none."""
    if sys.stdin is None or not sys.stdin.isatty():

        def wait(seconds: float) -> None:
            time.sleep(max(0.0, seconds))

        yield wait
        return
    import termios
    import tty

    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    try:
        tty.setcbreak(file)
        yield lambda seconds: _key(file, seconds)
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)


def _key(file: int, seconds: float) -> str | None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and select.select([file], [], [], left)[0]:
        if not (typed := os.read(file, 32)):  # nobody can type any more
            time.sleep(max(0.0, until - time.monotonic()))
            return None
        if (key := KEYS.get(typed)) is not None:
            return key
    return None
