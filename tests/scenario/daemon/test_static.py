# Static tokens in the real daemon: a key in a file is served with rules, audit and fields, is noticed when it changes,
# and is served no more when it is gone.
from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests import forked
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import Brokerd, Table, ready, until

KEY, OTHER = "test-only-static-key-1", "test-only-static-key-2"


def write(brokerd: Brokerd, value: str, name: str = "key1") -> Path:
    return brokerd.write(f"{value}\n", name)


def configure(brokerd: Brokerd, **grant: object) -> None:
    credentials: Table = {"token": {"file": brokerd.etc / "key1"}, "access_key_id": "AKID"}
    rule = {"grants": ["app"], "caller": {"uid": 60_900}, "actions": ["get"]}
    provider = {"dialect": "static"}
    brokerd.configure(
        {"app": {"provider": "p", "credentials": credentials, **grant}},
        {"p": provider},
        allow=[rule],
        socket_mode="0666",
    )


async def start(brokerd: Brokerd) -> None:
    write(brokerd, KEY)
    configure(brokerd)
    await brokerd.start()


async def test_a_static_token_is_served_with_its_fields_and_never_expires(brokerd: Brokerd, other_user: User) -> None:
    await start(brokerd)
    found = await brokerd.call("get", grant="app", min_ttl=1e9)
    assert found == {
        "grant": "app",
        "value": KEY,
        "token_type": "Bearer",
        "expires_at": None,
        "fields": {"access_key_id": "AKID"},
    }
    status = await brokerd.status("app")
    assert (status["state"], status["renewals"], status["next_renewal_at"]) == ("ready", 1, None)
    assert await other_user.call(brokerd, "get", grant="app") == found
    assert (await User(60_901, 60_901).call(brokerd, "get", grant="app"))["code"] == "unknown_grant"
    await brokerd.call("seal_audit")
    assert b'"event":"get"' in brokerd.bytes_of_state()["audit-0001.jsonl"]
    await brokerd.stop()
    assert KEY not in brokerd.log
    assert not [name for name, data in brokerd.bytes_of_state().items() if KEY.encode() in data]


async def test_a_reload_reads_the_file_again_and_watchers_are_told(brokerd: Brokerd) -> None:
    await start(brokerd)
    async with brokerd.caller() as caller:
        await caller.call("watch", grants=["app"])
        assert (await caller.event())[1]["value"] == KEY
        write(brokerd, OTHER)
        await brokerd.call("reload")
        assert (await caller.event())[1]["value"] == OTHER
        (brokerd.etc / "key1").unlink()
        await brokerd.call("reload")
        method, gone = await caller.event()
        assert (method, gone["code"]) == ("gone", "misconfigured")
        assert f"{brokerd.etc}/key1: No such file or directory; write the secret there" in gone["message"]
        assert (await brokerd.error("get", grant="app"))["code"] == "misconfigured"
        write(brokerd, KEY)
        await brokerd.call("reload")
        assert (await caller.event())[1]["value"] == KEY


@pytest.mark.parametrize("how", ["gone", "empty", "open to everybody", "two words"])
async def test_what_is_no_token_any_more_is_not_served_not_even_after_a_restart(brokerd: Brokerd, how: str) -> None:
    await start(brokerd)
    assert await brokerd.get("app") == KEY
    await brokerd.stop()
    path = brokerd.etc / "key1"
    if how == "gone":
        path.unlink()
    elif how == "open to everybody":
        path.chmod(0o644)
    else:
        path.write_text("" if how == "empty" else "two words")
    await brokerd.start()
    error = await brokerd.error("get", grant="app")
    assert error["code"] == "misconfigured"
    assert str(path) in error["message"]
    assert (await brokerd.status("app"))["issued_at"] is None


async def test_a_refused_token_is_read_again_at_once_and_nobody_can_renew_it(brokerd: Brokerd) -> None:
    await start(brokerd)
    error = await brokerd.error("get", grant="app", refused=KEY)
    assert error["code"] == "misconfigured"
    assert error["message"] == (
        f"app: its token is static, so brokerd cannot renew it; write a new one to token ({brokerd.etc}/key1), "
        "which brokerd then reads within a minute"
    )
    assert await brokerd.get("app") == KEY
    await brokerd.restart()
    write(brokerd, OTHER)
    assert await brokerd.get("app", refused=KEY) == OTHER


async def test_a_revocation_is_final_until_a_login_and_tells_nobody(brokerd: Brokerd) -> None:
    await start(brokerd)
    assert await brokerd.get("app") == KEY
    done = await brokerd.call("revoke", grant="app")
    assert (done["stored"], done["provider"]) == (True, "unsupported")
    await brokerd.restart()
    assert (await brokerd.error("get", grant="app"))["code"] == "revoked"
    write(brokerd, OTHER)
    await brokerd.call("reload")
    assert (await brokerd.error("get", grant="app"))["code"] == "revoked"
    async with brokerd.caller() as caller:
        assert (await caller.call("login", grant="app"))["done"]["stored"] is True
    assert await brokerd.get("app") == OTHER


async def test_a_scope_of_a_static_token_cannot_be_asked_for(brokerd: Brokerd) -> None:
    await start(brokerd)
    error = await brokerd.error("get", grant="app", scope=["read"])
    assert error["code"] == "bad_request"
    assert "a static token is for one thing only" in error["message"]
    assert (await brokerd.error("import", grant="app", refresh_token="x"))["code"] == "bad_request"
    assert (await brokerd.call("refresh", grant="app"))["expires_at"] is None


async def test_a_locked_brokerd_reads_the_token_again_when_it_is_unlocked(brokerd: Brokerd) -> None:
    await start(brokerd)
    await brokerd.call("lock")
    assert (await brokerd.error("get", grant="app"))["code"] == "locked"
    write(brokerd, OTHER)
    await brokerd.call("unlock")
    await until(lambda: _serves(brokerd, OTHER))


async def _serves(brokerd: Brokerd, value: str) -> bool:
    return await brokerd.get("app") == value


async def test_status_and_explain_speak_of_it_as_of_any_other(brokerd: Brokerd) -> None:
    await start(brokerd)

    def brokerctl(*words: str) -> str:
        done = forked.brokerctl("--socket", brokerd.socket, *words)
        return done.stdout + done.stderr

    await brokerd.until("app", ready)
    shown = await trio.to_thread.run_sync(brokerctl, "status")
    assert "app" in shown
    assert "ready" in shown
    assert KEY not in shown
    assert "get" in await trio.to_thread.run_sync(brokerctl, "explain", "app")
    assert KEY in await trio.to_thread.run_sync(brokerctl, "get", "app", "--header")
    assert await trio.to_thread.run_sync(brokerctl, "get", "app", "--field", "access_key_id") == "AKID\n"
