# The page as HTTP answers it, without a browser: what it costs, and what its headers allow.
from __future__ import annotations

import json
import re

import pytest
import trio

from brokerd.core.access.admission import ARREARS, BURST, DRAWN, LOOK
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.scenario.http.conftest import curl, with_http
from tests.servers import OAuth2

RATE = 700  # requests a second


@pytest.mark.parametrize("path", ["/", "/?as=3d", "/page/rows?grant=app", "/page/style.css", "/page/live.js"])
async def test_a_browser_may_load_nothing_but_what_is_ours(brokerd: Brokerd, serving: Serving, path: str) -> None:
    await with_http(brokerd, serving)
    answer = await curl(brokerd, path)
    policy = answer.headers["content-security-policy"]
    for part in ("default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert part in policy
    assert set(re.findall(r"'[^']+'|https?:|data:|\*", policy)) == {"'none'", "'self'"}
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.status == 200
    body = answer.body.decode()
    assert not re.search(r"<script(?! src=\"page/)|<style| style=| on\w+=|https?://(?!www.w3.org/2000/svg)", body)


async def test_a_wrong_question_is_told_what_would_be_right(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    assert "expected as=2h or as=12h or as=3d" in (await curl(brokerd, "/?as=5h")).json["message"]
    assert (await curl(brokerd, "/", "-H", "Origin: https://evil.example")).status == 403


async def test_a_locked_brokerd_shows_its_grants_and_says_how_to_unlock(brokerd: Brokerd, serving: Serving) -> None:
    await with_http(brokerd, serving)
    await brokerd.get("app")
    await brokerd.call("lock")
    page = (await curl(brokerd, "/")).body.decode()
    assert "brokerd is locked and serves nothing" in page
    assert "brokerctl unlock" in page
    assert 'data-grant="app"' in page


async def test_what_is_drawn_is_charged_and_changes_are_told_once_a_second(
    brokerd: Brokerd, serving: Serving, other_user: object
) -> None:
    """Root has no limits, so another user asks: its pages of 50 grants take as long as its rate says."""
    provider = await serving(OAuth2())
    rule = {"caller": {"uid": 60_900}, "grants": ["*"], "actions": ["status"]}
    names = [f"g{number}" for number in range(50)]
    settings = {"socket_mode": "0666", "max_rate_per_user": RATE}
    brokerd.configure(
        dict.fromkeys(names, FIVE["oauth2"]), {"oauth2": at(provider)}, http=True, allow=[rule], **settings
    )
    await brokerd.start()
    begun = trio.current_time()
    pages, cost = 4, 50 * (DRAWN + LOOK)
    assert cost / RATE < ARREARS, "who is so far behind gets no new connection"
    for _ in range(pages):
        assert (await curl(brokerd, "/", user=other_user)).status == 200
    least = ((pages - 1) * cost - BURST) / RATE
    assert trio.current_time() - begun > least > 0
    told = await changes(brokerd, names)
    assert [set(each["grants"]) <= set(names) for each in told] == [True] * len(told)
    assert len(told) == 2, "the first at once, the others together a second later"
    assert told[0]["grants"] == names[:1]


async def changes(brokerd: Brokerd, names: list[str]) -> list[dict[str, list[str]]]:
    """What a stream of the page is told while one grant is revoked and then all change in one moment."""
    told: list[dict[str, list[str]]] = []
    async with await trio.open_unix_socket(str(brokerd.http_socket)) as stream:
        await stream.send_all(b"GET /page/events HTTP/1.1\r\nHost: brokerd\r\n\r\n")
        assert b"text/event-stream" in await stream.receive_some()
        seen: set[str] = set()
        await brokerd.call("revoke", grant=names[0], local=True)
        with trio.fail_after(20):
            while seen != set(names):
                if len(told) == 1:
                    await brokerd.call("reload")
                for line in re.findall(rb"data: (.*)", await stream.receive_some()):
                    told.append(json.loads(line))
                    seen |= set(told[-1]["grants"])
    return told
