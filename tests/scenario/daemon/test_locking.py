# Locked and unlocked while it runs: nothing is served, nothing that was spent is lost, and whoever guesses waits longer
# each time.
from __future__ import annotations

import functools
import resource
import signal
from typing import Any

from brokerd.edge.store import key_file
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, Table, at, until
from tests.servers import OAuth2

PASSPHRASE = "test-only-correct-horse"
NOT_READY = 'brokerd_grant_ready{grant="app",provider="oauth2",state="locked"} 0\n'


def spending(provider: OAuth2) -> tuple[dict[str, Table], dict[str, Table]]:
    return {"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)}


async def test_a_locked_daemon_serves_nothing_and_says_how_to_unlock_it(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure(*spending(provider))
    await brokerd.start()
    value = await brokerd.get("app")
    before = await brokerd.status("app")
    async with brokerd.caller() as watcher:
        await watcher.call("watch", grants=["app"])
        assert (await watcher.event())[1]["value"] == value
        assert await brokerd.call("lock") == {"locked": True}
        assert await brokerd.call("lock") == {"locked": False}
        method, said = await watcher.event()
        assert (method, said["code"]) == ("gone", "locked")
        for method in ("get", "refresh", "revoke"):
            error = await brokerd.error(method, grant="app")
            assert (error["code"], "brokerctl unlock" in error["message"]) == ("locked", True)
        assert (await brokerd.error("reload"))["code"] == "locked"
        brokerd.signal(signal.SIGHUP)
        found = await brokerd.call("status")
        assert found["daemon"]["locked"] is True
        nothing = {"issued_at": None, "expires_at": None, "next_renewal_at": None}
        locked = {"state": "locked", "remedy": "brokerctl unlock"}
        assert found["grants"][0] == {**before, **nothing, **locked}, "what was known is remembered"
        series = [
            each for each in (await brokerd.call("metrics"))["text"].splitlines() if each.startswith("brokerd_grant")
        ]
        assert series == [NOT_READY.strip()], "a dashboard shows that nobody gets a token"
        requests = len(provider.statuses())
        assert await brokerd.call("unlock") == {"unlocked": True}
        assert await brokerd.call("unlock") == {"unlocked": False}
        assert (await watcher.event())[1]["value"] == value
    assert await brokerd.get("app") == value
    assert len(provider.statuses()) == requests, "the stored token goes on being served"
    await brokerd.call("refresh", grant="app")


async def test_an_exchange_that_spends_is_seen_to_its_end_before_the_keys_go(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure(*spending(provider))
    await brokerd.start()
    value = await brokerd.get("app")
    async with brokerd.caller() as caller, brokerd.caller() as admin:
        with provider.hold("refresh") as gate:
            refresh = await caller.send("refresh", grant="app")
            await gate.reached()
            lock = await admin.send("lock")
            await until(functools.partial(is_locked, brokerd))
            assert (await brokerd.error("get", grant="app"))["code"] == "locked", "from that moment on"
            assert (await brokerd.error("grant_ready", grant="app"))["code"] == "locked"
            assert (await brokerd.status("app"))["state"] == "locked"
            assert NOT_READY in (await brokerd.call("metrics"))["text"]
            gate.release()
        assert (await admin.answer(lock))[1] == {"locked": True}
        error, _ = await caller.answer(refresh)
        assert (error or {})["code"] == "locked"
    await brokerd.call("unlock")
    assert await brokerd.get("app") != value
    assert (await brokerd.status("app"))["interrupted"] is None
    await brokerd.call("refresh", grant="app")
    assert provider.statuses() == [200, 200, 200], "the newest refresh token was there"


async def is_locked(brokerd: Brokerd) -> bool:
    found: bool = (await brokerd.call("status"))["daemon"]["locked"]
    return found


async def wrong_and_right(brokerd: Brokerd) -> list[dict[str, Any] | None]:
    """The errors of an attempt with a wrong passphrase and one with the right one at the same moment."""
    async with brokerd.caller() as caller:
        numbers = [await caller.send("unlock", passphrase=each) for each in ("test-only-wrong-staple", PASSPHRASE)]
        return [(await caller.answer(number))[0] for number in numbers]


async def test_a_passphrase_unlocks_and_wrong_ones_cost_time(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure(*spending(provider), key={"passphrase": True})
    await brokerd.start()
    assert (await brokerd.error("get", grant="app"))["code"] == "locked"
    (grant,) = (await brokerd.call("status"))["grants"]
    assert (grant["name"], grant["state"], grant["expires_at"]) == ("app", "locked", None), "the names are configured"
    assert "brokerctl unlock --new" in (await brokerd.error("unlock", passphrase=PASSPHRASE))["message"]
    assert "at least 8" in (await brokerd.error("unlock", passphrase="short", new=True))["message"]
    assert await brokerd.call("unlock", passphrase=PASSPHRASE, new=True) == {"unlocked": True}
    value = await brokerd.get("app")
    await brokerd.restart()
    assert (await brokerd.error("unlock"))["code"] == "locked", "it wants the passphrase"
    while (answers := await wrong_and_right(brokerd))[0] is None:  # the right one had its turn first
        await brokerd.call("lock")
    wrong, early = answers
    assert (wrong["code"], wrong["retry_after"]) == ("denied", 1)
    assert (early["code"], 0 < early["retry_after"] <= 1) == ("limit", True), "the right one is not looked at either"

    await brokerd.until_unlocked(PASSPHRASE)
    assert await brokerd.get("app") == value
    assert PASSPHRASE not in brokerd.log
    assert not any(PASSPHRASE.encode() in data for data in brokerd.bytes_of_state().values())


async def test_a_key_that_is_not_there_any_more_leaves_it_locked(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure(*spending(provider))
    await brokerd.start()
    value = await brokerd.get("app")
    await brokerd.call("lock")
    key = brokerd.key.read_text()
    brokerd.key.unlink()
    assert "there is no key at" in (await brokerd.error("unlock"))["message"]
    key_file.create(brokerd.key)
    assert "the key is not the one" in (await brokerd.error("unlock"))["message"]
    brokerd.key.write_text(key)
    config = brokerd.config.read_text()
    brokerd.write(config.replace("provider", "providor", 1))
    assert (await brokerd.error("unlock"))["code"] == "misconfigured"
    assert (await brokerd.call("status"))["daemon"]["locked"]
    brokerd.write(config)
    await brokerd.call("unlock")
    assert await brokerd.get("app") == value


async def test_only_administrators_lock_and_unlock(brokerd: Brokerd, serving: Serving, other_user: User) -> None:
    provider = await serving(OAuth2())
    grants, providers = spending(provider)
    allow: Table = {"caller": {"uid": other_user.uid}, "grants": ["*"], "actions": ["get", "status"]}
    brokerd.configure(grants, providers, allow=[allow], socket_mode="0666")
    await brokerd.start()
    for method in ("lock", "unlock", "rotate_key"):
        assert (await other_user.call(brokerd, method))["code"] == "denied"
    await brokerd.call("lock")
    assert (await other_user.call(brokerd, "unlock"))["code"] == "denied"
    assert (await other_user.call(brokerd, "get", grant="app"))["code"] == "locked"


async def test_what_the_disk_does_not_take_is_not_locked_away(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure(*spending(provider))
    await brokerd.start()
    await brokerd.get("app")
    with provider.hold("refresh") as gate:
        async with brokerd.caller() as caller:
            number = await caller.send("refresh", grant="app")
            await gate.reached()
            resource.prlimit(brokerd.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            gate.release()
            assert (await caller.answer(number))[0] is None
    assert (await brokerd.status("app"))["unstored"]
    value = await brokerd.get("app")
    error = await brokerd.error("lock")
    assert (error["code"], "not locked" in error["message"]) == ("unavailable", True)
    assert await brokerd.get("app") == value
    assert (await brokerd.error("rotate_key", full=True))["code"] == "unavailable"
    resource.prlimit(brokerd.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await brokerd.until("app", lambda status: not status["unstored"])
    await brokerd.call("rotate_key", full=True)
    await brokerd.call("lock")
    await brokerd.call("unlock")
    assert await brokerd.get("app") == value
    await brokerd.restart()
    assert await brokerd.get("app") == value
