# A secret file that can be read again is noticed within seconds, however long the backoff is. A missing one costs only
# a look.
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio

from brokerd.broker.missing_secrets import LOOK, notice_secrets


class Broker:
    def __init__(self, *helds: Any) -> None:
        self.grants = {each.name: each for each in helds}
        self.looked: list[str] = []
        self.events = SimpleNamespace(say=lambda *_, **__: None)

    def look_again(self, grant: Any) -> None:
        self.looked.append(grant.name)


def grant(name: str, *, lacks: bool = True, blocked: str | None = None, running: object = None) -> Any:
    about = {"grant": name, "provider": "p"}
    return SimpleNamespace(name=name, settings=name, lacks_secret=lacks, blocked=blocked, running=running, about=about)


@pytest.mark.parametrize("looks", [1, 3])
async def test_it_is_tried_once_as_soon_as_its_files_can_be_read(autojump_clock: object, looks: int) -> None:
    broker = Broker(grant("a"), grant("still away"), grant("well", lacks=False), grant("b", blocked="x"))
    admitted: list[str] = []
    there = {"well"}

    async def are_readable(settings: Any) -> bool:
        return settings in there

    async def admit(each: Any) -> None:
        admitted.append(each.name)
        broker.grants[each.name] = grant(each.name, lacks=False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(notice_secrets, broker, are_readable, admit)
        await trio.sleep(10 * LOOK + 1)
        assert (broker.looked, admitted) == ([], [])
        there |= {"a", "b"}
        await trio.sleep(looks * LOOK)
        assert (broker.looked, admitted) == (["a"], ["b"])
        nursery.cancel_scope.cancel()


async def test_an_exchange_under_way_is_left_to_its_end(autojump_clock: object) -> None:
    busy = grant("busy", running=object())
    broker = Broker(busy)

    async def are_readable(_: Any) -> bool:
        return True

    async def admit(_: Any) -> None:
        raise AssertionError("it is not blocked")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(notice_secrets, broker, are_readable, admit)
        await trio.sleep(2 * LOOK + 1)
        assert broker.looked == []
        busy.running = None
        await trio.sleep(LOOK)
        assert broker.looked == ["busy"]
        nursery.cancel_scope.cancel()
