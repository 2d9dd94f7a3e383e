# The port of brokerctl page by itself, without a brokerd behind it; tests/scenario/page has both.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from brokerd.ctl.browser.page_server import PATHS, PageServer
from brokerd.ctl.commands import page
from brokerd.server.http.routes import ROUTES
from tests.scenario.logins.test_browser import ask


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PageServer]:
    with closing(PageServer(str(tmp_path / "none.sock"), None)) as made:
        made.serve()
        yield made


def test_it_forwards_every_path_of_the_page_and_no_other() -> None:
    assert set(PATHS) == {"/".join(row.path) for row in ROUTES if row.path[0] in ("", "page")}
    assert all(row.method == "GET" for row in ROUTES if row.path[0] in ("", "page"))


def test_the_cookie_is_for_a_path_that_nobody_can_guess(server: PageServer, tmp_path: Path) -> None:
    _, said = ask(server.start_url)
    assert f"; Path={server.root}; HttpOnly; SameSite=Strict" in said
    assert len(server.root) > 16
    with closing(PageServer("", None)) as other:
        assert other.root != server.root


def test_a_brokerd_that_is_not_there_is_told_in_the_page(server: PageServer) -> None:
    cookie = ask(server.start_url)[1].split(";")[0]
    status, said = ask(f"http://{server.host}{server.root}", Cookie=cookie)
    assert (status, "brokerd does not answer" in said) == (502, True)


def test_it_ends_when_nobody_looks(
    server: PageServer, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(page, "LOOK", 0.0)
    server.used_at = monotonic() - page.IDLE - 1
    assert page._until_over(server, None) == 0
    assert b"nobody has looked at the page for 30 min" in capfdbinary.readouterr().out
