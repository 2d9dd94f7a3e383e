"""The daemon of tests/scenario/daemon with HTTP, a brokerctl page beside it, and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import trio

from tests.did_not_run import did_not_run
from tests.scenario.daemon.conftest import as_root, brokerd, folder, other_user, serving
from tests.scenario.logins.chromium import PROGRAM, Chromium
from tests.scenario.logins.conftest import terminal
from tests.scenario.logins.terminal import Terminal
from tests.scenario.logins.test_browser import ask

__all__ = ["Opened", "as_root", "brokerd", "chromium", "folder", "opened", "other_user", "serving", "terminal"]


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    if PROGRAM is None:
        did_not_run("THE PAGE IN A REAL BROWSER", "it needs chromium")
    browser = Chromium(tmp_path)
    yield browser
    browser.close()


class Opened(NamedTuple):
    """A running brokerctl page. `start`: its one-time address."""

    brokerctl: Terminal
    start: str

    async def ask(self, url: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        return await trio.to_thread.run_sync(lambda: ask(url, method, **headers))

    async def begin(self) -> tuple[str, str]:
        """As the browser does: the address of the page, and the cookie."""
        status, said = await self.ask(self.start)
        assert status == 200, said
        assert "HttpOnly; SameSite=Strict" in said
        parts = urlsplit(self.start)
        return f"http://{parts.netloc}{parts.path.partition('start/')[0]}", said.split(";")[0]


async def opened(terminal: Callable[..., Terminal], *words: str, **environment: str) -> Opened:
    brokerctl = terminal("page", *words, **environment)
    said = await brokerctl.until("It ends with Ctrl-C")
    return Opened(brokerctl, next(word for word in said.split() if word.startswith("http://127.0.0.1:")))
