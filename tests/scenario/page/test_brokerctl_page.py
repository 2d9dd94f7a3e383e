# brokerctl page: who else is on the machine, or in the browser, gets nothing from its port; and when it ends.
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio

from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at, until
from tests.scenario.http.conftest import curl, with_http
from tests.scenario.logins.terminal import Terminal
from tests.scenario.page.conftest import opened
from tests.servers import OAuth2

Start = Callable[..., Terminal]


async def test_only_the_browser_with_the_cookie_gets_anything_and_no_token_ever(
    brokerd: Brokerd, serving: Serving, terminal: Start
) -> None:
    await with_http(brokerd, serving)
    token = await brokerd.get("app")
    mine = await opened(terminal)
    secret = mine.start.rsplit("/", 1)[1]
    root = mine.start.partition("start/")[0]
    for url in (root, f"{root}page/rows", f"{root}page/live.js", mine.start + "x", f"{root}v1/status"):
        status, said = await mine.ask(url, Cookie="brokerctl=test-only-guess")
        assert status == 403, url
        assert "app" not in said.replace("application", ""), url
    page, cookie = await mine.begin()
    assert (await mine.ask(page, Cookie=cookie))[0] == 200
    status, said = await mine.ask(page, Cookie=cookie)
    assert status == 200
    assert ">app<" in said
    assert token not in said
    for path, headers, expected in (
        ("", {"Host": "evil.example"}, 403),  # DNS rebinding
        ("", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("", {"Sec-Fetch-Site": "same-site"}, 403),  # another port of 127.0.0.1, perhaps another user's
        ("", {"Origin": "http://127.0.0.1:1"}, 403),
        ("", {"Origin": "null"}, 403),
        ("", {"Sec-Fetch-Site": "none"}, 200),
        ("page/style.css", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("v1/token/app", {}, 404),
        ("v1/status", {}, 404),
        ("metrics", {}, 404),
        ("../v1/token/app", {}, 404),
        ("page/../v1/token/app", {}, 404),
        ("page/%2e%2e/v1/token/app", {}, 404),
    ):
        status, said = await mine.ask(page + path, **({"Cookie": cookie} | headers))
        assert (status, path, headers) == (expected, path, headers)
        assert token not in said
    assert (await mine.ask(page, "POST", Cookie=cookie))[0] == 405
    assert secret not in shown_to_others(mine.brokerctl.pid)


def shown_to_others(pid: int) -> str:
    return "".join(Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "environ"))


async def test_a_second_browser_at_the_one_time_address_ends_it(
    brokerd: Brokerd, serving: Serving, terminal: Start
) -> None:
    await with_http(brokerd, serving)
    mine = await opened(terminal)
    _, cookie = await mine.begin()
    assert (await mine.ask(mine.start, Cookie=cookie))[0] == 200, "the same browser may open it again"
    assert (await mine.ask(mine.start))[0] == 410
    assert await mine.brokerctl.end() == 2
    assert "a second browser opened the one-time address" in mine.brokerctl.said


async def test_the_browser_is_started_with_a_file_that_is_gone_once_it_was_used(
    brokerd: Brokerd, serving: Serving, terminal: Start, tmp_path: Path
) -> None:
    await with_http(brokerd, serving)
    seen, browser = tmp_path / "seen", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" >{seen}.new\nmv {seen}.new {seen}\n')
    browser.chmod(0o755)
    mine = await opened(terminal, BROWSER=str(browser), DISPLAY=":test", is_tty=True)
    await until(seen.exists)
    url = seen.read_text()
    assert url.startswith("file:///")
    file = Path(url.removeprefix("file://"))
    assert mine.start in await trio.Path(file).read_text()
    await mine.begin()
    await until(lambda: not file.exists())
    mine.brokerctl.interrupt()
    assert await mine.brokerctl.end() == 130


async def test_the_page_shows_what_the_rules_let_its_caller_see(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    provider = await serving(OAuth2())
    rule = {"caller": {"uid": other_user.uid}, "grants": ["theirs"], "actions": ["status"]}
    grants = dict.fromkeys(("mine", "theirs"), FIVE["oauth2"])
    brokerd.configure(grants, {"oauth2": at(provider)}, http=True, allow=[rule], socket_mode="0666")
    await brokerd.start()
    for name in grants:
        await brokerd.get(name)
    seen = (await curl(brokerd, "/", user=other_user)).body.decode()
    assert ">theirs<" in seen
    assert "mine" not in seen
    assert "1 grant: 1 ready" in seen
    assert "user root" not in seen, "who did what is for administrators"
    assert (await curl(brokerd, "/page/rows?grant=mine", user=other_user)).status == 404
    stranger = (await curl(brokerd, "/", user=User(60_901, 60_901))).body.decode()
    assert "no grants" in stranger
    assert "theirs" not in stranger


async def test_without_an_http_socket_it_says_how_to_switch_it_on(
    brokerd: Brokerd, serving: Serving, terminal: Start
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    mine = terminal("page")
    assert await mine.end() == 2
    assert "systemctl enable brokerd-http.socket" in mine.said


async def test_the_page_of_a_brokerd_that_has_ended_says_so(
    brokerd: Brokerd, serving: Serving, terminal: Start
) -> None:
    await with_http(brokerd, serving)
    mine = await opened(terminal)
    page, cookie = await mine.begin()
    await brokerd.stop()
    status, said = await mine.ask(page, Cookie=cookie)
    assert (status, "brokerd does not answer" in said) == (502, True)
    with trio.fail_after(30):
        await brokerd.start()
        assert (await mine.ask(page, Cookie=cookie))[0] == 200
