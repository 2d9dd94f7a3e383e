# SIGTERM starts no exchange; it ends in ten seconds but for exchanges that spend a token, which are seen to their end
# (law 3). What they bring is durable, and the next start goes on with it.
from __future__ import annotations

import signal

import pytest
import trio
from brokerd_client.errors import BrokerError

from tests.scenario.daemon.harness import FIVE, IMPORTED, Brokerd, Serving, at, every
from tests.servers import OAUTH2_CLIENT, OAUTH2_SECRET, OAUTH2_USER, OAuth2

LANDING = 10.0  # seconds


async def test_an_idle_daemon_ends_at_once_and_leaves_nothing_behind(brokerd: Brokerd, serving: Serving) -> None:
    fleet = await serving.all(3600)
    brokerd.configure(FIVE, every(fleet.by_name))
    brokerd.executed = True
    await brokerd.start()
    found = await brokerd.call("get_many", grants=list(FIVE))
    start = trio.current_time()
    async with brokerd.caller() as caller:
        assert await brokerd.stop() == 0
        assert trio.current_time() - start < 3
        await caller.closed()
    assert not brokerd.socket.exists()
    assert sorted(brokerd.bytes_of_state()) == ["audit-0001.jsonl", "brokerd.db", "lock"]
    assert "event=stopped" in brokerd.log
    assert "ResourceWarning" not in brokerd.log, "something was left open"
    await brokerd.start()
    assert await brokerd.call("get_many", grants=list(FIVE), wait=0) == found


async def test_an_exchange_that_spends_is_seen_to_its_end_and_the_rotated_token_is_durable(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": IMPORTED, "other": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    token = provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read",))
    await brokerd.call("import", grant="app", refresh_token=token.value)
    await brokerd.get("app")
    await brokerd.get("other")
    sent = provider.count()
    with provider.hold("refresh") as gate:
        async with brokerd.caller() as caller, brokerd.caller() as idle:
            await caller.send("refresh", grant="app")
            await gate.reached()
            brokerd.signal(signal.SIGTERM)
            await caller.closed()  # callers are let go at once
            await idle.closed()
            with trio.move_on_after(1):
                await brokerd.ended()
                raise AssertionError("it did not wait for the answer")
            assert brokerd.proc("stat").exists()
            gate.release()
            assert await brokerd.ended() == 0
    assert provider.count() == sent + 1
    await brokerd.start()
    status = await brokerd.status("app")
    assert (status["interrupted"], status["renewals"]) == (None, 2)
    assert await brokerd.get("app", wait=0)
    await brokerd.call("refresh", grant="app")
    assert provider.statuses("refresh") == [200, 200, 200]
    assert provider.counts.families_killed == 0


@pytest.mark.slow
async def test_an_exchange_that_spends_nothing_is_given_up_after_ten_seconds(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"], "due": FIVE["oauth2"]}, {"oauth2": at(provider, concurrency=1)})
    with provider.hold("issue") as gate:
        await brokerd.start()
        await gate.reached()
        start = trio.current_time()
        brokerd.signal(signal.SIGTERM)
        assert await brokerd.ended(within=LANDING + 3) == 0
        assert trio.current_time() - start > LANDING - 1
    assert provider.count() == 1, "an exchange was begun after SIGTERM"
    await brokerd.start()
    assert await brokerd.get("app")


async def test_who_connects_while_it_is_ending_is_not_kept_waiting(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    with provider.hold("refresh") as gate:
        async with brokerd.caller() as caller:
            await caller.send("refresh", grant="app")
            await gate.reached()
            brokerd.signal(signal.SIGTERM)
            await caller.closed()
            with trio.fail_after(2), pytest.raises((OSError, EOFError, trio.BrokenResourceError, BrokerError)):
                await brokerd.get("app")
        gate.release()
        assert await brokerd.ended() == 0


async def test_a_socket_that_a_dead_daemon_left_is_replaced_and_a_file_is_not(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.kill()
    assert brokerd.socket.is_socket()
    await brokerd.start()
    assert await brokerd.get("app")
    assert await brokerd.stop() == 0
    brokerd.socket.write_text("somebody's")
    status, said = await brokerd.refuses_to_start()
    assert (status, "exists and is no socket" in said) == (2, True)
    assert brokerd.socket.read_text() == "somebody's"


async def test_commands_for_secrets_are_waited_for(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    program = brokerd.write(f"#!/bin/sh\necho {OAUTH2_SECRET}\n", "secret.sh")
    program.chmod(0o700)
    grant = {**FIVE["oauth2"], "credentials": {"client_id": OAUTH2_CLIENT, "client_secret": {"command": [program]}}}
    brokerd.configure({"app": grant}, {"oauth2": at(provider)})
    await brokerd.start()
    assert await brokerd.get("app")  # the harness looks for zombies and for what is left
    program.write_text("#!/bin/sh\nexit 3\n")
    await brokerd.call("reload")
    error = await brokerd.error("refresh", grant="app")
    assert (error["code"], f"command {program} ended with status 3" in error["message"]) == ("misconfigured", True)
