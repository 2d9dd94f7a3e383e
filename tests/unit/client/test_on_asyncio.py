from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from brokerd_client import Denied, Gone, NoDaemon, Token, Unavailable, UnknownGrant
from brokerd_client.on_asyncio import Broker
from brokerd_client.request import LONGEST_REFUSED

from tests.unit.client.daemon import Daemon, Hangup


def run(main: Callable[[Broker], Awaitable[None]], **settings: Any) -> None:
    async def inside() -> None:
        async with Broker(**settings) as broker:
            await main(broker)

    asyncio.run(inside(), debug=True)


def hold(daemon: Daemon) -> threading.Event:
    """From now on a get of "slow" is answered when the event is set."""
    over = threading.Event()
    daemon.answers["get"] = lambda params: (params["grant"] != "slow" or over.wait(10)) and daemon.token(params)
    return over


async def calls(daemon: Daemon, count: int) -> None:
    await asyncio.to_thread(daemon.wait_for_calls, count)


def test_a_get_brings_a_token(daemon: Daemon) -> None:
    async def main(broker: Broker) -> None:
        token = await broker.get("ix", min_ttl=60, scope=["a"])
        assert token.header == {"Authorization": "Bearer token-of-ix"}

    run(main)
    assert daemon.calls == [("get", {"grant": "ix", "min_ttl": 60, "scope": ["a"]})]


def test_an_error_is_raised_as_its_class(daemon: Daemon) -> None:
    async def main(broker: Broker) -> None:
        await broker.get("nope")

    with pytest.raises(UnknownGrant):
        run(main)


def test_many_requests_share_one_connection_and_are_answered_in_any_order(daemon: Daemon) -> None:
    over = hold(daemon)

    async def main(broker: Broker) -> None:
        slow = asyncio.create_task(broker.get("slow"))
        others = await asyncio.gather(*(broker.get(f"g{n}") for n in range(50)))
        assert [token.grant for token in others] == [f"g{n}" for n in range(50)]
        assert not slow.done()
        over.set()
        assert (await slow).grant == "slow"

    run(main)
    assert daemon.connections == 1


def test_cancelling_one_caller_leaves_the_others_and_the_stream_alone(daemon: Daemon) -> None:
    over = hold(daemon)

    async def main(broker: Broker) -> None:
        kept, doomed = asyncio.create_task(broker.get("slow")), asyncio.create_task(broker.get("slow"))
        await calls(daemon, 2)
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        assert (await broker.get("ix")).grant == "ix"
        over.set()
        assert (await kept).grant == "slow"

    run(main)
    assert daemon.connections == 1


def test_cancelling_in_the_middle_of_a_long_message_leaves_it_whole(daemon: Daemon) -> None:
    long = "x" * LONGEST_REFUSED

    async def main(broker: Broker) -> None:
        await broker.get("ix")
        tasks = [asyncio.create_task(broker.get("ix", refused=long)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (await broker.get("ix")).grant == "ix"

    run(main)
    assert daemon.connections == 1


def test_a_restarted_daemon_is_not_noticed(daemon: Daemon) -> None:
    async def main(broker: Broker) -> None:
        await broker.get("ix")
        await asyncio.to_thread(daemon.restart)
        assert (await broker.get("ix")).grant == "ix"

    run(main)


def test_a_connection_that_ends_again_is_given_up(daemon: Daemon) -> None:
    def never(params: dict[str, Any]) -> Any:
        raise Hangup

    async def main(broker: Broker) -> None:
        with pytest.raises(NoDaemon):
            await broker.get("ix")
        with pytest.raises(NoDaemon, match="unknown"):
            await broker.call("import", grant="ix", refresh_token="r")

    daemon.answers["get"] = daemon.answers["import"] = never
    run(main)
    assert [method for method, _ in daemon.calls] == ["get", "get", "import"]


def test_all_waiting_requests_survive_a_restart_on_one_new_connection(daemon: Daemon) -> None:
    over = hold(daemon)

    async def main(broker: Broker) -> None:
        tasks = [asyncio.create_task(broker.get("slow")) for _ in range(5)]
        await calls(daemon, 5)
        for connection in daemon.open:
            connection.hang_up()
        await calls(daemon, 10)
        over.set()
        assert [token.grant for token in await asyncio.gather(*tasks)] == ["slow"] * 5

    run(main, share=False)
    assert daemon.connections == 2


def test_a_daemon_that_never_answers_hangs_nobody(daemon: Daemon) -> None:
    over = hold(daemon)

    async def main(broker: Broker) -> None:
        with pytest.raises(Unavailable, match=r"within 0\.05 s"):
            await broker.get("slow", wait=0)
        over.set()

    run(main, timeout=0.05)


def test_a_daemon_that_never_accepts_hangs_nobody(tmp_path: Path) -> None:
    async def main(broker: Broker) -> None:
        found = await asyncio.gather(*(broker.get("ix", wait=0) for _ in range(10)), return_exceptions=True)
        assert all(isinstance(error, Unavailable) for error in found)

    path = str(tmp_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        run(main, socket=path, timeout=0.05)


def test_without_a_daemon_the_path_and_a_remedy_are_told() -> None:
    async def main(broker: Broker) -> None:
        with pytest.raises(NoDaemon, match=r"no socket at /nowhere/at.sock: is brokerd running"):
            await broker.get("ix")

    run(main, socket="/nowhere/at.sock")


def test_a_broker_belongs_to_one_event_loop(daemon: Daemon) -> None:
    broker = Broker()

    async def main() -> None:
        await broker.get("ix")

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(main())
        with pytest.raises(RuntimeError, match="another event loop"):
            second.run(main())
        first.run(broker.__aexit__())
        with pytest.raises(RuntimeError, match="closed"):
            first.run(main())


def test_many_tokens_come_at_once(daemon: Daemon) -> None:
    daemon.answers["get_many"] = lambda params: [
        {"error": {"code": "denied", "message": "no"}} for _ in params["grants"]
    ]

    async def main(broker: Broker) -> None:
        assert isinstance((await broker.get_many(["no"]))["no"], Denied)

    run(main)


def test_a_watch_brings_events_and_goes_on_after_a_restart(daemon: Daemon) -> None:
    def watching(params: dict[str, Any]) -> Any:
        daemon.notify("token", daemon.token({"grant": "ix"}))
        return {"watching": params["grants"]}

    async def main(broker: Broker) -> None:
        async with broker.watch("ix") as events:
            assert isinstance(await anext(events), Token)
            await asyncio.to_thread(daemon.restart)
            assert isinstance(await anext(events), Token)
            daemon.notify("gone", {"grant": "ix", "code": "revoked", "message": "over"})
            assert isinstance(await anext(events), Gone)

    daemon.answers["watch"] = watching
    run(main)


def test_a_cancelled_watcher_loses_no_event(daemon: Daemon) -> None:
    daemon.answers["watch"] = lambda params: daemon.notify("token", daemon.token({"grant": "a"})) or {"watching": []}

    async def main(broker: Broker) -> None:
        events = broker.watch("a", "b")
        await anext(events)
        waiting = asyncio.create_task(events.__anext__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        daemon.notify("token", daemon.token({"grant": "b"}))
        assert (await anext(events)).grant == "b"

    run(main)
