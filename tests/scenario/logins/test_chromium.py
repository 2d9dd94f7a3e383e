# The browser login in a real browser, headless Chromium. Where it is not installed that is said loudly at the end of
# the run; test_browser.py takes the same way in any case.
from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from brokerd.ctl.browser.handoff import Handoff
from brokerd.ctl.browser.loopback import Loopback
from brokerd.ctl.browser.pages import done, onward
from tests.did_not_run import did_not_run
from tests.real.servers import OidcProvider, introspect
from tests.scenario.daemon.harness import Brokerd, until
from tests.scenario.logins.chromium import PROGRAM, WITHIN, Chromium
from tests.scenario.logins.terminal import Terminal
from tests.scenario.logins.test_browser import grant, provider, start_url

pytestmark = pytest.mark.real
FILL_IN = """(() => {
    const login = document.querySelector('input[name=login]');
    if (login) { login.value = 'carol'; document.querySelector('input[name=password]').value = 'any'; }
    document.querySelector('form').submit();
})()"""
NEXT = "document.readyState === 'complete' && document.querySelector('form') !== null && location.href !== {before!r}"


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    if PROGRAM is None:
        did_not_run("A REAL BROWSER", "the login in it needs chromium")
    browser = Chromium(tmp_path)
    yield browser
    browser.close()


async def test_a_person_logs_in_with_a_real_browser(
    brokerd: Brokerd, real_oidc: OidcProvider, terminal: Callable[..., Terminal], chromium: Chromium, tmp_path: Path
) -> None:
    """From the file that brokerctl starts it with."""
    brokerd.configure({"app": grant()}, {"op": provider(real_oidc)})
    await brokerd.start()
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" >{seen}.new\nmv {seen}.new {seen}\n')
    browser.chmod(0o755)
    mine = terminal("login", "app", "--json", "--browser", BROWSER=str(browser))
    await start_url(mine)
    await until(seen.exists)
    await chromium.attach()
    assert seen.read_text().startswith("file:///")
    await chromium.open(seen.read_text())
    before = ""
    for _ in ("login", "consent"):
        await chromium.until(NEXT.format(before=before))
        before = await chromium.run("location.href")
        await chromium.run(FILL_IN)
    await chromium.until("document.title === 'Done – brokerd'")
    assert "carol" in await chromium.run("document.querySelector('main').innerText")
    assert await chromium.run("getComputedStyle(document.querySelector('main')).borderTopColor") == "rgb(31, 122, 77)"
    assert await chromium.run("document.cookie") == "", "no script can read the cookie"
    if folder := os.environ.get("BROKERD_PICTURES"):
        (Path(folder) / "login-done.png").write_bytes(await chromium.picture())
    assert (await mine.json())["done"]["subject"] == "carol"
    assert await mine.end() == 0
    assert introspect(real_oidc, await brokerd.get("app"))["sub"] == "carol"


async def test_a_browser_that_wants_https_everywhere_goes_from_the_file_to_the_port(tmp_path: Path) -> None:
    """It is strict with HTTP, and with cookies of other sites; a loopback address is what it makes an exception for."""
    if PROGRAM is None:
        did_not_run("A REAL BROWSER", "the way from the file needs chromium")
    preferences = {"https_only_mode_enabled": True, "profile": {"cookie_controls_mode": 1}}
    profile = tmp_path / "profile"
    (profile / "Default").mkdir(parents=True)
    (profile / "Default/Preferences").write_text(json.dumps(preferences))
    with closing(Loopback("http://127.0.0.1/callback", None)) as loopback:
        loopback.ready(f"http://{loopback.host}/callback?code=test-only-code&state=test-only-state", "test-only-state")
        handoff, browser = Handoff(onward("app", loopback.start_url)), Chromium(profile)
        try:
            await browser.attach()
            await browser.open(handoff.path.as_uri())
            with trio.fail_after(WITHIN):
                await trio.lowlevel.wait_readable(loopback.woken)
            assert not loopback.alarmed
            answer = loopback.answers.get_nowait()
            assert answer.fields["code"] == "test-only-code"
            answer.show(done("app", None))
            await browser.until("document.title === 'Done – brokerd'")
        finally:
            browser.close()
            handoff.close()
