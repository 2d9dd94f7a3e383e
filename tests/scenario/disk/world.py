# What the tests of failing disks share: an installation with one grant that spends and one that does not, and the
# questions that are asked in every trouble.
from __future__ import annotations

import os
from typing import Any

from tests import forked
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at, until
from tests.servers import OAuth2, oauth2

NOTED, BACK = "event=store_not_written", "event=store_written_again"


async def started(brokerd: Brokerd, serving: Serving, **settings: Any) -> OAuth2:
    """A running brokerd with tokens for `spends` (a rotating refresh token) and `issues`; and their provider."""
    provider = await serving(OAuth2(oauth2.Settings(**settings)))
    brokerd.configure({"spends": FIVE["oauth2-password"], "issues": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("spends")
    await brokerd.get("issues")
    return provider


async def in_trouble(brokerd: Brokerd, provider: OAuth2, words: str) -> float:
    """What holds while the disk does not: nothing is spent, living tokens are served, what needs no disk goes on, and
    status and log say what is wrong and since when. Returns since when."""
    value, sent = await brokerd.get("spends", wait=0), provider.count("refresh")
    error = await brokerd.error("refresh", grant="spends", wait=1)
    assert (error["code"], "the store cannot be written" in error["message"]) == ("unavailable", True), error
    assert provider.count("refresh") == sent, "sent without a journal (law 2)"
    assert (await brokerd.status("spends"))["interrupted"] is None
    assert await brokerd.get("spends", wait=0) == value
    await brokerd.call("refresh", grant="issues")
    assert (await brokerd.status("issues"))["unstored"]
    found = await daemon(brokerd)
    assert words in found["store"]
    assert found["store_since"] > found["started_at"]
    await brokerd.said(NOTED)
    await brokerd.said(words)
    since = found["store_since"]
    assert isinstance(since, float)
    return since


async def works_again(brokerd: Brokerd, provider: OAuth2) -> None:
    """By itself: everything is stored, nothing was lost, and renewals go on; also after kill -9."""
    await until(lambda: is_well(brokerd), within=20)
    await brokerd.until("issues", lambda status: not status["unstored"], within=40)
    await brokerd.until("spends", lambda status: not status["unstored"], within=40)
    assert (await daemon(brokerd))["store_since"] is None
    await brokerd.said(BACK)
    newest = await brokerd.get("issues", wait=0)
    await brokerd.restart()
    assert await brokerd.get("issues", wait=0) == newest
    sent = provider.count("refresh")
    await brokerd.call("refresh", grant="spends")
    assert provider.count("refresh") == sent + 1
    assert provider.statuses("refresh") == [200] * (sent + 1)
    assert (provider.counts.reused, provider.counts.families_killed) == (0, 0)


async def is_well(brokerd: Brokerd) -> bool:
    return (await daemon(brokerd))["store"] is None


async def daemon(brokerd: Brokerd) -> dict[str, Any]:
    found: dict[str, Any] = (await brokerd.call("status"))["daemon"]
    return found


def brokerctl(brokerd: Brokerd, *arguments: str) -> str:
    """What an operator reads."""
    environ = {**os.environ, "BROKERD_SOCKET": str(brokerd.socket)}
    done = forked.brokerctl(*arguments, env=environ)
    done.check_returncode()
    return str(done.stdout)
