# The page in a real browser, headless Chromium, beside a real daemon with 1, 40 and 1,000 grants. One test and one
# browser, because starting both takes longer than all that is asked of them.
from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio

from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, Table, at
from tests.scenario.logins.chromium import Chromium
from tests.scenario.logins.terminal import Terminal
from tests.scenario.page.conftest import opened
from tests.servers import OAuth2
from tests.servers.http import Request, Response, Server, json_response

pytestmark = pytest.mark.real
HOSTILE = "</title></bdi><script>document.title='owned'</script>\u202egnp.exe"
ROWS = "document.querySelectorAll('tbody[data-grant]').length"
CLIPPED = """[...document.querySelectorAll('body *')].filter(each => !each.closest('.unseen, .skip, svg')
    && each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 80)).join()"""
STROKES = "(document.querySelector('tbody[data-grant=g000] .ok')?.getAttribute('d') ?? '').split('M').length"
EMPTIED = "(field => { field.value = ''; field.dispatchEvent(new Event('input')); })(document.getElementById('filter'))"


async def test_the_page_in_a_real_browser(
    brokerd: Brokerd, serving: Serving, terminal: Callable[..., Terminal], chromium: Chromium
) -> None:
    provider, hostile = await serving(OAuth2()), Hostile()
    await serving(hostile)  # type: ignore[type-var]
    configure(brokerd, provider, hostile, 1)
    await brokerd.start()
    await brokerd.until("bad", lambda status: status["state"] == "misconfigured")
    mine = await opened(terminal, "--no-browser")
    await chromium.attach()
    for domain in ("Page", "Runtime", "Log", "Network"):
        await chromium.call(f"{domain}.enable")
    await chromium.open(mine.start)
    await chromium.until(f"location.pathname.endsWith('/') && {ROWS} === 2")
    page = await chromium.run("location.href")
    await hostile_reasons_are_text(chromium)
    await it_is_live(brokerd, chromium)
    await it_works_with_the_keyboard(chromium)
    await grows(brokerd, chromium, 40, lambda number: configure(brokerd, provider, hostile, number))
    for width in (390, 1280):
        await it_fits(chromium, width)
    await it_prints(chromium)
    await it_can_be_read_without_scripts(chromium, page)
    await grows(brokerd, chromium, 1_000, lambda number: configure(brokerd, provider, hostile, number))
    assert await chromium.run("document.documentElement.scrollWidth <= innerWidth")
    assert faults(chromium.events, page) == []


async def grows(brokerd: Brokerd, chromium: Chromium, number: int, configure: Callable[[int], None]) -> None:
    """A reload brings so many grants, and the open page shows them."""
    configure(number)
    await brokerd.call("reload")
    await chromium.until(f"{ROWS} === {number + 1}")


class Hostile:
    """A provider whose every answer is an error with markup, marks that turn the text, and 10 kB more."""

    prefix, down = "/hostile", False

    def mounted(self, server: Server, url: str) -> None:
        self.token_url = f"{url}/token"

    async def answer(self, request: Request, /) -> Response:
        return json_response(401, {"error": "invalid_client", "error_description": HOSTILE + "x" * 10_000})


def configure(brokerd: Brokerd, provider: OAuth2, hostile: Hostile, number: int) -> None:
    """So many grants that work, and one that does not."""
    grants: dict[str, Table] = {f"g{each:03}": FIVE["oauth2"] for each in range(number)}
    grants["bad"] = {**FIVE["oauth2"], "provider": "bad"}
    providers = {"oauth2": at(provider), "bad": {"dialect": "oauth2", "token_url": hostile.token_url}}
    brokerd.configure(grants, providers, http=True)


async def hostile_reasons_are_text(chromium: Chromium) -> None:
    await chromium.until("document.querySelector('#problems tbody[data-grant=bad]') !== null")
    said = await chromium.run("document.querySelector('tbody[data-grant=bad]').innerText")
    assert "</title></bdi><script>document.title='owned'</script>" in said
    assert "To fix: check client_id, client_secret and client_auth" in said
    assert await chromium.run("document.title") == "brokerd: 1 problem"
    assert await chromium.run("document.querySelectorAll('script').length") == 1


async def it_is_live(brokerd: Brokerd, chromium: Chromium) -> None:
    """What changes is on the page without a reload, in about a second."""
    await chromium.run("window.mine = true")
    strokes = await chromium.run(STROKES)
    await brokerd.call("refresh", grant="g000")
    await chromium.until(f"{STROKES} > {strokes}")
    await brokerd.call("revoke", grant="g000")
    await chromium.until("document.querySelector('#others tbody[data-grant=g000]').innerText.includes('revoked')")
    await chromium.until("document.getElementById('counts').innerText.includes('1 revoked')")
    assert await chromium.run("window.mine") is True


async def it_works_with_the_keyboard(chromium: Chromium) -> None:
    await key(chromium, "Tab", 9)
    assert await chromium.run("document.activeElement.className") == "skip"
    await key(chromium, "/", 191, text="/")
    assert await chromium.run("document.activeElement.id") == "filter"
    assert await chromium.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for letter in "bad":
        await key(chromium, letter, ord(letter.upper()), text=letter)
    await chromium.until("[...document.querySelectorAll('tbody[data-grant]')].filter(row => !row.hidden).length === 1")
    assert await chromium.run("document.getElementById('shown').innerText") == "1 shown"
    await chromium.run(EMPTIED)


async def key(chromium: Chromium, name: str, code: int, **more: Any) -> None:
    for kind in ("keyDown", "keyUp"):
        params = {"type": kind, "key": name, "windowsVirtualKeyCode": code, **(more if kind == "keyDown" else {})}
        await chromium.call("Input.dispatchKeyEvent", **params)


async def it_fits(chromium: Chromium, width: int) -> None:
    """No horizontal scroll, in light and dark."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    await chromium.call("Emulation.setDeviceMetricsOverride", **size)
    grounds = set()
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await chromium.call("Emulation.setEmulatedMedia", features=features)
        assert await chromium.run("document.documentElement.scrollWidth <= innerWidth"), await chromium.run(CLIPPED)
        assert await chromium.run(CLIPPED) == ""
        grounds.add(await chromium.run("getComputedStyle(document.body).backgroundColor"))
    assert len(grounds) == 2


async def it_prints(chromium: Chromium) -> None:
    made = base64.b64decode((await chromium.call("Page.printToPDF", printBackground=True))["data"])
    assert made.startswith(b"%PDF")
    await chromium.call("Emulation.setEmulatedMedia", media="print")
    assert await chromium.run("getComputedStyle(document.querySelector('.tools')).display") == "none"
    await chromium.call("Emulation.setEmulatedMedia", media="")


async def it_can_be_read_without_scripts(chromium: Chromium, page: str) -> None:
    await chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    await chromium.open(page)
    names, roles = "", set[str]()
    with trio.fail_after(30):
        while "What the marks mean" not in names:
            tree = (await chromium.call("Accessibility.getFullAXTree"))["nodes"]
            roles = {each["role"]["value"] for each in tree if "role" in each}
            names = " ".join(str(each.get("name", {}).get("value", "")) for each in tree)
    assert {"heading", "table", "row", "rowheader", "columnheader", "image", "status", "link"} <= roles
    assert "41 grants: 39 ready, 1 misconfigured, 1 revoked" in names
    assert "Without JavaScript this page does not change" in names
    assert "last success" in names, "the pictures are said in words"
    await chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    await chromium.open(page)
    await chromium.until("document.getElementById('tools')?.hidden === false")


def faults(events: list[Mapping[str, Any]], page: str) -> list[str]:
    """Errors on the console, violations of the policy, and requests to elsewhere."""
    origin = page.split("/", 3)[2]
    found = [str(each["params"]) for each in events if each["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    sent = [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]
    assert sent
    return found + [url for url in sent if not url.startswith(f"http://{origin}/")]
