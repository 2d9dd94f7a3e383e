from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from brokerd_client import Denied, Gone, NoDaemon, ProtocolError, Token, Unavailable, UnknownGrant
from brokerd_client.on_trio import Broker, _TrioConnection
from brokerd_client.request import LONGEST_REFUSED

from tests.unit.client.daemon import Daemon, Hangup


def hold(daemon: Daemon) -> threading.Event:
    """From now on a get of "slow" is answered when the event is set."""
    over = threading.Event()
    daemon.answers["get"] = lambda params: (params["grant"] != "slow" or over.wait(10)) and daemon.token(params)
    return over


async def calls(daemon: Daemon, count: int) -> None:
    await trio.to_thread.run_sync(daemon.wait_for_calls, count)


async def test_a_get_brings_a_token(daemon: Daemon) -> None:
    async with Broker() as broker:
        token = await broker.get("ix", min_ttl=60, scope=["a"])
    assert token.header == {"Authorization": "Bearer token-of-ix"}
    assert daemon.calls == [("get", {"grant": "ix", "min_ttl": 60, "scope": ["a"]})]


async def test_a_token_of_another_grant_is_not_taken(daemon: Daemon) -> None:
    daemon.answers["get"] = lambda params: daemon.token({"grant": "other"})
    with pytest.raises(ProtocolError, match="grant 'ix', found one of 'other'"):
        async with Broker() as broker:
            await broker.get("ix")


async def test_an_error_leaves_the_broker_as_itself_and_not_in_a_group(daemon: Daemon) -> None:
    with pytest.raises(UnknownGrant):
        async with Broker() as broker:
            await broker.get("nope")


async def test_an_error_is_not_lost_to_a_cancellation_at_the_same_time(daemon: Daemon) -> None:
    async def fail(scope: trio.CancelScope) -> None:
        async with Broker() as broker:
            try:
                await broker.get("nope")
            finally:
                scope.cancel()

    with trio.CancelScope() as scope, pytest.raises(UnknownGrant):
        await fail(scope)


async def test_many_requests_share_one_connection_and_are_answered_in_any_order(daemon: Daemon) -> None:
    over = hold(daemon)
    found: list[str] = []

    async def get(broker: Broker, grant: str) -> None:
        found.append((await broker.get(grant)).grant)

    async with Broker() as broker, trio.open_nursery() as nursery:
        nursery.start_soon(get, broker, "slow")
        await calls(daemon, 1)
        for n in range(50):
            nursery.start_soon(get, broker, f"g{n}")
        await calls(daemon, 51)
        while len(found) < 50:
            await trio.lowlevel.checkpoint()
        assert "slow" not in found
        over.set()
    assert found[-1] == "slow"
    assert daemon.connections == 1


async def test_cancelling_one_caller_leaves_the_others_and_the_stream_alone(daemon: Daemon) -> None:
    over = hold(daemon)
    found: list[str] = []

    async def get(broker: Broker) -> None:
        found.append((await broker.get("slow")).grant)

    async with Broker() as broker, trio.open_nursery() as nursery:
        nursery.start_soon(get, broker)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as doomed:
                doomed.start_soon(get, broker)
                await calls(daemon, 2)
                scope.cancel()
        assert (await broker.get("ix")).grant == "ix"
        over.set()
    assert found == ["slow"]
    assert daemon.connections == 1


async def test_cancelling_in_the_middle_of_a_long_message_leaves_it_whole(daemon: Daemon) -> None:
    # Many requests of nearly the largest size: more than a socket holds, so that some are sent in part.
    long = "x" * LONGEST_REFUSED
    async with Broker() as broker:
        await broker.get("ix")
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(lambda: broker.get("ix", refused=long))
            await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert (await broker.get("ix")).grant == "ix"
    assert daemon.connections == 1


async def test_a_request_that_is_alone_leaves_without_the_writing_task(daemon: Daemon) -> None:
    class Steps(trio.abc.Instrument):
        def __init__(self) -> None:
            self.tasks: set[str] = set()

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.tasks.add(task.name.rpartition(".")[2])

    async with Broker(share=False) as broker:
        await broker.get("ix")
        trio.lowlevel.add_instrument(steps := Steps())
        for _ in range(3):
            await broker.get("ix")
        trio.lowlevel.remove_instrument(steps)
    assert "read" in steps.tasks
    assert "write" not in steps.tasks


async def test_what_is_cancelled_already_is_not_sent(daemon: Daemon) -> None:
    async with Broker(share=False) as broker:
        await broker.get("ix")
        with trio.CancelScope() as scope:
            scope.cancel()
            await broker.call("import", grant="ix", refresh_token="r")
        await broker.get("ix")
    assert scope.cancelled_caught
    assert [method for method, _ in daemon.calls] == ["get", "get"]


async def test_what_the_socket_does_not_take_at_once_follows(daemon: Daemon) -> None:
    long = "x" * LONGEST_REFUSED
    async with Broker(share=False) as broker:
        await broker.get("ix")
        connection = broker._connection
        assert isinstance(connection, _TrioConnection)
        connection._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sent: list[int] = []
        send = connection._send
        connection._send = lambda data: sent.append(send(data)) or sent[-1]
        assert (await broker.get("ix", refused=long)).grant == "ix"
    assert 0 < sent[0] < len(long)
    assert daemon.calls[1:] == [("get", {"grant": "ix", "refused": long})]


async def test_a_restarted_daemon_is_not_noticed(daemon: Daemon) -> None:
    async with Broker() as broker:
        await broker.get("ix")
        await trio.to_thread.run_sync(daemon.restart)
        assert (await broker.get("ix")).grant == "ix"


async def test_a_connection_that_ends_again_is_given_up(daemon: Daemon) -> None:
    def never(params: dict[str, Any]) -> Any:
        raise Hangup

    daemon.answers["get"] = daemon.answers["import"] = never
    async with Broker() as broker:
        with pytest.raises(NoDaemon):
            await broker.get("ix")
        with pytest.raises(NoDaemon, match="unknown"):
            await broker.call("import", grant="ix", refresh_token="r")
    assert [method for method, _ in daemon.calls] == ["get", "get", "import"]


async def test_all_waiting_requests_survive_a_restart_on_one_new_connection(daemon: Daemon) -> None:
    over = hold(daemon)
    found: list[str] = []

    async def get(broker: Broker) -> None:
        found.append((await broker.get("slow")).grant)

    async with Broker(share=False) as broker, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(get, broker)
        await calls(daemon, 5)
        for connection in daemon.open:
            connection.hang_up()
        await calls(daemon, 10)
        over.set()
    assert found == ["slow"] * 5
    assert daemon.connections == 2


async def test_a_daemon_that_never_answers_hangs_nobody(daemon: Daemon, autojump_clock: trio.testing.MockClock) -> None:
    over = hold(daemon)
    async with Broker() as broker:
        before = trio.current_time()
        with pytest.raises(Unavailable, match="within 35 s"):
            await broker.get("slow", wait=30)
        assert trio.current_time() - before == pytest.approx(35)
        over.set()


async def test_a_daemon_that_never_accepts_hangs_nobody(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    async def get(broker: Broker) -> None:
        with pytest.raises(Unavailable):
            await broker.get("ix")

    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        before = trio.current_time()
        async with Broker(path) as broker, trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(get, broker)
        assert trio.current_time() - before == pytest.approx(15)


async def test_a_busy_daemon_is_waited_for(tmp_path: Path) -> None:
    async def get(broker: Broker) -> None:
        assert (await broker.get("ix")).grant == "ix"

    path = tmp_path / "busy.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        async with Broker(path) as broker, trio.open_nursery() as nursery:
            nursery.start_soon(get, broker)
            await trio.testing.wait_all_tasks_blocked()
            path.unlink()
            daemon = Daemon(path)
            daemon.start()
    daemon.stop()


async def test_without_a_daemon_the_path_and_a_remedy_are_told() -> None:
    async with Broker("/nowhere/at.sock") as broker:
        with pytest.raises(NoDaemon, match=r"no socket at /nowhere/at.sock: is brokerd running"):
            await broker.get("ix")


async def test_it_is_used_inside_its_block(daemon: Daemon) -> None:
    broker = Broker()
    with pytest.raises(RuntimeError, match="async with"):
        await broker.get("ix")
    async with broker:
        await broker.get("ix")
    with pytest.raises(RuntimeError, match="async with"):
        await broker.get("ix")


async def test_many_tokens_come_at_once(daemon: Daemon) -> None:
    daemon.answers["get_many"] = lambda params: [
        {"error": {"code": "denied", "message": "no"}} for _ in params["grants"]
    ]
    async with Broker() as broker:
        assert isinstance((await broker.get_many(["no"]))["no"], Denied)


async def test_a_watch_brings_events_and_goes_on_after_a_restart(daemon: Daemon) -> None:
    def watching(params: dict[str, Any]) -> Any:
        daemon.notify("token", daemon.token({"grant": "ix"}))
        return {"watching": params["grants"]}

    daemon.answers["watch"] = watching
    async with Broker() as broker, broker.watch("ix") as events:
        assert isinstance(await anext(events), Token)
        await trio.to_thread.run_sync(daemon.restart)
        assert isinstance(await anext(events), Token)
        daemon.notify("gone", {"grant": "ix", "code": "revoked", "message": "over"})
        assert isinstance(await anext(events), Gone)


async def test_a_cancelled_watcher_loses_no_event(daemon: Daemon) -> None:
    daemon.answers["watch"] = lambda params: daemon.notify("token", daemon.token({"grant": "a"})) or {"watching": []}
    async with Broker() as broker, broker.watch("a", "b") as events:
        await anext(events)
        with trio.move_on_after(0):
            await anext(events)
        daemon.notify("token", daemon.token({"grant": "b"}))
        assert (await anext(events)).grant == "b"


async def test_of_several_tokens_that_nobody_took_the_last_is_kept(daemon: Daemon) -> None:
    def watching(params: dict[str, Any]) -> Any:
        for n in range(1000):
            daemon.notify("token", {**daemon.token({"grant": "ix"}), "value": str(n)})
        return {"watching": params["grants"]}

    daemon.answers["watch"] = watching
    async with Broker() as broker, broker.watch("ix") as events:
        async for event in events:
            if isinstance(event, Token) and event.value == "999":
                break


async def test_a_closed_watch_leaves_the_broker_usable(daemon: Daemon) -> None:
    daemon.answers["watch"] = lambda params: daemon.notify("token", daemon.token({"grant": "ix"})) or {"watching": []}
    async with Broker() as broker:
        async with broker.watch("ix") as events:
            await anext(events)
        assert (await broker.get("ix")).grant == "ix"
