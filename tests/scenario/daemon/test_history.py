# The history of a grant as a caller of the real daemon sees it: newest first, over a restart, a full rotation of the
# keys and a restored backup.
from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import trio

from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import OAuth2


async def history(brokerd: Brokerd) -> list[dict[str, Any]]:
    (grant,) = (await brokerd.call("status", grants=["app"], history=True))["grants"]
    found: list[dict[str, Any]] = grant["history"]
    return found


async def brokerctl(brokerd: Brokerd, *words: object) -> None:
    await trio.run_process([sys.executable, "-m", "brokerd.ctl", "--socket", str(brokerd.socket), *map(str, words)])


async def test_the_history_outlives_restart_rotation_and_restore(
    brokerd: Brokerd, serving: Serving, folder: Path
) -> None:
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(await serving(OAuth2()))})
    await brokerd.start()
    await brokerd.get("app")
    await brokerd.call("refresh", grant="app")
    newest, oldest = await history(brokerd)
    assert (newest["operation"], oldest["operation"]) == ("renew", "issue")
    assert oldest["at"] <= newest["at"] == newest["last"]
    assert {key: newest[key] for key in ("count", "outcome", "reason", "target")} == {
        "count": 1,
        "outcome": "issued",
        "reason": None,
        "target": None,
    }
    assert 0 < newest["seconds"] < 60
    (grant,) = (await brokerd.call("status", grants=["app"], history=True))["grants"]
    assert (grant["next"]["operation"], grant["next"]["reason"]) == ("renew", "lifetime")
    assert abs(grant["next"]["at"] - grant["next_renewal_at"]) < 1
    assert "history" not in (await brokerd.call("status", grants=["app"]))["grants"][0]
    await brokerd.call("rotate_key", full=True)
    await brokerctl(brokerd, "backup", folder / "backup")
    await brokerd.stop()
    await brokerctl(brokerd, "restore", folder / "backup", "--state-dir", brokerd.state, "--force")
    await brokerd.start()
    assert await history(brokerd) == [newest, oldest]


async def test_a_history_is_asked_for_by_name(brokerd: Brokerd, serving: Serving) -> None:
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(await serving(OAuth2()))})
    await brokerd.start()
    for grants in ({}, {"grants": ["app"] * 65}):
        error = await brokerd.error("status", history=True, **grants)
        assert error["code"] == "bad_request"
        assert "grants, with history" in error["message"]
