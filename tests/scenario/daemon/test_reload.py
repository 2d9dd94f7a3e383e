# A reload is all or nothing (law 14): what did not change goes on as if nothing had happened, what vanished lies
# dormant, and no stored token is ever sent to another origin than the one it came from (law 15).
from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.scenario.daemon.harness import CLIENT, FIVE, IMPORTED, SOON, TICK, Brokerd, Serving, at, until
from tests.servers import OAUTH2_CLIENT, OAUTH2_SECRET, OAUTH2_USER, OAuth2, Occam, oauth2

BAD: dict[str, tuple[str, tuple[str, ...]]] = {
    "no TOML": ("[grants.app\n", ("brokerd.toml", "this is not TOML")),
    "half a file": (
        '[grants.app]\nprovider = "oauth2"\n',
        ("brokerd.toml", "grants.app.provider", "expected", "oauth2"),
    ),
    "a misspelt key": ("[daemon]\nsockett = '/run/x'\n", ("brokerd.toml", "daemon", "sockett")),
    "a wrong type": ("[daemon]\nsocket = 7\n", ("brokerd.toml", "daemon.socket", "expected text", "found 7")),
    "an unknown table": ("[grant.app]\n", ("brokerd.toml", "grant", "unknown table")),
    "an unknown dialect": (
        '[providers.x]\ndialect = "ix"\nbase_url = "https://x.example"\n',
        ("brokerd.toml", "providers.x.dialect", "expected one of oauth2, ", '"ix"'),
    ),
}


async def test_a_bad_file_changes_nothing_and_the_error_names_file_key_and_remedy(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value, before = await brokerd.get("app"), await brokerd.status("app")
    for what, (text, words) in BAD.items():
        brokerd.write(text)
        error = await brokerd.error("reload")
        assert error["code"] == "misconfigured"
        for word in ("nothing has changed", str(brokerd.config), *words):
            assert word in error["message"], f"{what}: {error['message']}"
    times = len(BAD) + 1
    brokerd.signal(signal.SIGHUP)
    await brokerd.said("the configuration was not reloaded; nothing has changed", times=times)
    brokerd.write("[one]\n[two]\n[three]\n")
    error = await brokerd.error("reload")
    assert error["message"].endswith(f"; to see 2 more errors: brokerd --config {brokerd.config} --check")
    brokerd.write("[grants.other]\n", "conf.d/bad.toml")
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    error = await brokerd.error("reload")
    assert "conf.d/bad.toml" in error["message"]
    brokerd.config.unlink()
    assert "there is no such file" in (await brokerd.error("reload"))["message"]
    assert await brokerd.status("app") == before
    assert await brokerd.get("app", wait=0) == value
    assert provider.count() == 1


async def test_a_reload_says_which_secret_file_is_missing_and_what_happens_now(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    secret = brokerd.write(OAUTH2_SECRET, "secret")
    served = {**FIVE["oauth2"], "credentials": {**CLIENT, "client_secret": {"file": secret}}}
    gone = brokerd.etc / "gone"
    never = {**FIVE["oauth2"], "credentials": {**CLIENT, "client_secret": {"file": gone}}}
    brokerd.configure({"served": served}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("served")
    assert (await brokerd.call("reload"))["unreadable"] == []
    secret.unlink()
    brokerd.configure({"served": served, "never": never}, {"oauth2": at(provider)})
    found = {each["grant"]: each for each in (await brokerd.call("reload"))["unreadable"]}
    assert f"credentials.client_secret: {secret}: " in found["served"]["reason"]
    assert "its token is served until it expires (20" in found["served"]["then"]
    assert f"credentials.client_secret: {gone}: " in found["never"]["reason"]
    assert "it serves nothing until the file can be read" in found["never"]["then"]
    for name in ("served", "never"):
        assert f"event=secret_unreadable grant={name} provider=oauth2" in brokerd.log
    for name in ("secret", "gone"):
        brokerd.write(OAUTH2_SECRET, name)
    assert (await brokerd.call("reload"))["unreadable"] == []


async def test_a_configuration_on_a_disk_that_never_answers_delays_no_renewal(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    silent = brokerd.write("", "conf.d/silent.toml")
    silent.unlink()
    os.mkfifo(silent, 0o600)  # reading it takes until somebody writes to it
    async with brokerd.caller() as caller:
        reload = await caller.send("reload")
        writer = await reader_of(silent)
        try:
            with trio.fail_after(SOON):
                assert await brokerd.get("app", refused=value) != value  # a new token was stored
        finally:
            os.close(writer)
        assert (await caller.answer(reload))[0] is None


async def test_sigterm_stops_brokerd_during_a_reload_from_a_disk_that_never_answers(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    silent = brokerd.write("", "conf.d/silent.toml")
    silent.unlink()
    os.mkfifo(silent, 0o600)
    brokerd.signal(signal.SIGHUP)
    writer = await reader_of(silent)
    try:
        assert await brokerd.stop() == 0
    finally:
        os.close(writer)


async def reader_of(pipe: Path) -> int:
    """A descriptor that writes to the pipe, once somebody reads from it."""
    with trio.fail_after(SOON):
        while True:
            with contextlib.suppress(OSError):
                return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            await trio.sleep(TICK)


async def test_a_daemon_table_that_changed_counts_from_the_next_start_and_says_so(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, socket_mode="0600")
    done = await brokerd.call("reload")
    assert (done["restart"], done["later"], done["tables"]) == (True, ["daemon"], [])
    await brokerd.said("event=restart_needed")


async def test_rules_that_changed_are_said_and_count_at_once(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    rule = {"grants": ["app"], "caller": {"uid": 60_950}, "actions": ["get"]}
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, allow=[rule])
    done = await brokerd.call("reload")
    assert (done["restart"], done["later"], done["tables"]) == (False, [], ["rules"])
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, allow=[rule], http=True)
    done = await brokerd.call("reload")
    assert (done["restart"], done["later"], done["tables"]) == (True, ["http"], [])
    store = {"etcd": ["https://192.0.2.1:2379"], "fleet": "test-only", "name": "one"}
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)}, allow=[rule], store=store)
    done = await brokerd.call("reload")
    assert (done["restart"], done["later"], done["tables"]) == (True, ["store"], [])


async def test_unchanged_grants_keep_tokens_and_timers_and_the_others_change(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    providers = {"oauth2": at(provider)}
    brokerd.configure({"same": FIVE["oauth2"], "goes": FIVE["oauth2"]}, providers)
    await brokerd.start()
    value, before = await brokerd.get("same"), await brokerd.status("same")
    await brokerd.get("goes")
    brokerd.configure({"same": FIVE["oauth2"], "comes": FIVE["oauth2"]}, providers)
    assert await brokerd.call("reload") == {
        "added": ["comes"],
        "changed": [],
        "removed": ["goes"],
        "tables": [],
        "later": [],
        "restart": False,
        "unreadable": [],
    }
    assert await brokerd.status("same") == before
    assert await brokerd.get("same", wait=0) == value
    assert (await brokerd.error("get", grant="goes"))["code"] == "unknown_grant"
    assert await brokerd.get("comes")
    assert await brokerd.call("reload") == {
        "added": [],
        "changed": [],
        "removed": [],
        "tables": [],
        "later": [],
        "restart": False,
        "unreadable": [],
    }
    brokerd.signal(signal.SIGHUP)
    await brokerd.said("event=reloaded", times=3)
    assert await brokerd.status("same") == before
    assert provider.count() == 3


async def test_rules_take_effect_for_open_connections(brokerd: Brokerd, serving: Serving, other_user: Any) -> None:
    provider = await serving(OAuth2())
    everything: dict[str, Any] = {
        "grants": {"app": FIVE["oauth2"]},
        "providers": {"oauth2": at(provider)},
        "socket_mode": "0666",
    }
    rule = {"grants": ["app"], "caller": {"uid": other_user.uid}}
    brokerd.configure(**everything, allow=[rule])
    await brokerd.start()
    await brokerd.get("app")
    async with other_user.connected(brokerd) as connection:
        assert "value" in await connection.call("get", grant="app")
        brokerd.configure(**everything)
        await brokerd.call("reload")
        assert (await connection.call("get", grant="app"))["code"] == "unknown_grant"
        brokerd.configure(**everything, allow=[rule])
        await brokerd.call("reload")
        assert "value" in await connection.call("get", grant="app")


async def test_a_grant_that_vanished_lies_dormant_and_goes_on_when_it_is_back(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    providers = {"oauth2": at(provider)}
    brokerd.configure({"app": IMPORTED, "other": FIVE["oauth2"]}, providers)
    await brokerd.start()
    await give(brokerd, provider)
    value = await brokerd.get("app")
    async with brokerd.caller() as watcher:
        await watcher.call("watch", grants=["app"])
        assert (await watcher.event())[0] == "token"
        brokerd.configure({"other": FIVE["oauth2"]}, providers)
        assert (await brokerd.call("reload"))["removed"] == ["app"]
        name, gone = await watcher.event()
        assert (name, gone["code"]) == ("gone", "unknown_grant")
    for method in ("get", "refresh", "revoke"):
        assert (await brokerd.error(method, grant="app"))["code"] == "unknown_grant"
    await brokerd.restart()
    assert (await brokerd.error("get", grant="app"))["code"] == "unknown_grant"
    brokerd.configure({"app": IMPORTED, "other": FIVE["oauth2"]}, providers)
    assert (await brokerd.call("reload"))["added"] == ["app"]
    assert await brokerd.get("app", wait=0) == value
    await brokerd.call("refresh", grant="app")
    brokerd.configure({"other": FIVE["oauth2"]}, providers)
    await brokerd.call("reload")
    assert await brokerd.call("forget", grant="app") == {"grant": "app", "forgotten": 1}
    assert (await brokerd.error("forget", grant="app"))["code"] == "unknown_grant"
    brokerd.configure({"app": IMPORTED, "other": FIVE["oauth2"]}, providers)
    await brokerd.call("reload")
    assert (await brokerd.error("get", grant="app"))["code"] == "needs_login"
    assert provider.counts.families_killed == 0


async def test_a_grant_that_vanishes_during_its_exchange_and_comes_back_has_one_exchange_still(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    providers = {"oauth2": at(provider)}
    grants = {"app": IMPORTED, "other": FIVE["oauth2"]}
    brokerd.configure(grants, providers)
    await brokerd.start()
    with provider.hold("refresh") as gate:
        await give(brokerd, provider)
        await gate.reached()
        brokerd.configure({"other": FIVE["oauth2"]}, providers)
        await brokerd.call("reload")
        brokerd.configure(grants, providers)
        await brokerd.call("reload")
        assert (await brokerd.error("get", grant="app", wait=0.3))["code"] == "unavailable"
        assert provider.count("refresh") == 1, "the same refresh token is on its way twice (law 1)"
        gate.release()
    assert await brokerd.get("app")
    await brokerd.call("refresh", grant="app")
    assert provider.counts.families_killed == 0
    assert set(provider.statuses("refresh")) == {200}


async def test_a_new_secret_keeps_the_tokens_and_is_used_from_then_on(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value, before = await brokerd.get("app"), await brokerd.status("app")
    old, new = provider.settings.clients[OAUTH2_CLIENT], "test-only-another-secret"
    provider.settings.clients[OAUTH2_CLIENT] = oauth2.Client(old.id, new)
    changed = {**FIVE["oauth2-password"]}
    changed["credentials"] = {**changed["credentials"], "client_secret": new}
    brokerd.configure({"app": changed}, {"oauth2": at(provider)})
    assert (await brokerd.call("reload"))["changed"] == ["app"]
    after = await brokerd.status("app")
    assert after == before | {"next_renewal_at": pytest.approx(before["next_renewal_at"], abs=0.1)}
    assert await brokerd.get("app", wait=0) == value
    await brokerd.call("refresh", grant="app")
    assert provider.statuses() == [200, 200]


async def test_a_new_scope_renews_at_once_and_keeps_the_old_token_until_then(
    brokerd: Brokerd, serving: Serving, api: Any
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": {**FIVE["oauth2"], "scope": ["read"]}}, {"oauth2": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    with provider.hold("issue") as gate:
        brokerd.configure({"app": {**FIVE["oauth2"], "scope": ["read", "write"]}}, {"oauth2": at(provider)})
        await brokerd.call("reload")
        await gate.reached()
        assert await brokerd.get("app", wait=0) == value
        gate.release()
    await brokerd.until("app", lambda status: status["renewals"] == 2)
    _, about = await api.me(provider, await brokerd.get("app", wait=0))
    assert about["scopes"] == ["read", "write"]
    assert provider.count() == 2


async def test_after_an_edited_address_nothing_old_is_sent_to_the_new_origin_and_back_it_goes_on(
    brokerd: Brokerd, serving: Serving
) -> None:
    old, new = await serving(OAuth2()), await serving(OAuth2())
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(old)})
    await brokerd.start()
    await give(brokerd, old)
    value = await brokerd.get("app")
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(new)})
    assert (await brokerd.call("reload"))["changed"] == ["app"]
    assert (await brokerd.error("get", grant="app"))["code"] == "needs_login"
    assert (await brokerd.error("refresh", grant="app"))["code"] == "needs_login"
    await brokerd.restart()
    assert (await brokerd.error("get", grant="app"))["code"] == "needs_login"
    assert new.count() == 0
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(old)})
    await brokerd.restart()
    assert await brokerd.get("app", wait=0) == value
    await brokerd.call("refresh", grant="app")
    assert old.counts.families_killed == 0


async def test_an_edited_address_that_is_put_back_by_a_reload_asks_for_nobody(
    brokerd: Brokerd, serving: Serving
) -> None:
    old, new = await serving(OAuth2()), await serving(OAuth2())
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(old)})
    await brokerd.start()
    await give(brokerd, old)
    value = await brokerd.get("app")
    for provider in (new, old):
        brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)})
        await brokerd.call("reload")
    assert new.count() == 0
    assert await brokerd.get("app", wait=0) == value
    await brokerd.call("refresh", grant="app")
    assert set(old.statuses("refresh")) == {200}


async def test_another_user_at_the_provider_is_another_record(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(Occam())
    provider.settings.users["second@occam.example"] = "test-only-second-password"
    first = FIVE["occam-password"]
    second = {**first, "credentials": {"username": "second@occam.example", "password": "test-only-second-password"}}
    brokerd.configure({"app": first}, {"occam": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    brokerd.configure({"app": second}, {"occam": at(provider)})
    await brokerd.call("reload")
    value = await brokerd.get("app")
    found = provider.ledger.find(value)
    assert found is not None
    assert found.who == "second@occam.example"
    assert (provider.count("issue"), provider.count("refresh")) == (2, 0)


async def test_a_new_provider_file_and_limit_take_effect_and_old_connections_are_left(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    grants = {f"app{number}": FIVE["oauth2"] for number in range(6)}
    brokerd.configure({}, {"oauth2": at(provider, concurrency=2)})
    await brokerd.start()
    with provider.hold("issue") as gate:
        brokerd.configure(grants, {"oauth2": at(provider, concurrency=2)})
        await brokerd.call("reload")
        await gate.reached(2)
        await brokerd.call("status")
        assert provider.active == 2
        brokerd.configure(grants, {"oauth2": at(provider, concurrency=4)})
        await brokerd.call("reload")
        async with trio.open_nursery() as nursery:
            for name in grants:
                nursery.start_soon(brokerd.get, name)
            await gate.reached(4)
            await brokerd.call("status")
            assert provider.active == 4
            gate.release()
    await until(lambda: provider.count() == len(grants))
    assert provider.peak == 4


async def give(brokerd: Brokerd, provider: OAuth2) -> None:
    token = provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read", "write"))
    await brokerd.call("import", grant="app", refresh_token=token.value)
