# The files of static tokens are looked at every minute, and a change is told once.
from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio

from brokerd.broker.changed_secrets import LOOK, notice_changes
from brokerd.core.grant.state import State
from brokerd.core.secret import Secret


class Broker:
    def __init__(self, *grants: Any) -> None:
        self.grants = {each.name: each for each in grants}
        self.read: list[str] = []
        self.events = SimpleNamespace(say=lambda *_, **__: None)

    def look_again(self, grant: Any) -> None:
        assert grant.credentials is None
        self.read.append(grant.name)


def grant(name: str, *, state: State = State.READY, static: bool = True, running: object = None) -> Any:
    known = {"token": Secret("key-1"), "from a command": Secret("x")}
    record = SimpleNamespace(state=state)
    return SimpleNamespace(
        name=name, settings=name, credentials=known, in_credentials=static, record=record, running=running, about={}
    )


async def test_a_file_that_changed_or_is_gone_is_noticed_within_a_minute_and_told_once(autojump_clock: object) -> None:
    broker = Broker(
        grant("same"),
        grant("changed"),
        grant("gone"),
        grant("revoked", state=State.REVOKED),
        grant("an oauth2 grant", static=False),
        grant("under way", running=object()),
    )
    files: dict[str, dict[str, Secret] | None] = {name: {"token": Secret("key-1")} for name in broker.grants}

    async def read_files(settings: Any) -> dict[str, Secret] | None:
        return files[settings]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(notice_changes, broker, read_files)
        await trio.sleep(2 * LOOK + 1)
        assert broker.read == []
        files |= {name: {"token": Secret("key-2")} for name in files if name != "same"}
        files["gone"] = None
        await trio.sleep(LOOK)
        assert sorted(broker.read) == ["changed", "gone"]
        await trio.sleep(3 * LOOK)
        assert sorted(broker.read) == ["changed", "gone"]
        broker.grants["under way"].running = None
        await trio.sleep(LOOK)
        assert sorted(broker.read) == ["changed", "gone", "under way"]
        nursery.cancel_scope.cancel()


async def test_a_disk_that_never_answers_keeps_no_other_deleted_key_alive(autojump_clock: object) -> None:
    broker = Broker(grant("hangs"), grant("gone"))

    async def read_files(settings: Any) -> None:
        if settings == "hangs":
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(notice_changes, broker, read_files)
        await trio.sleep(2 * LOOK + 1)
        assert broker.read[:1] == ["gone"]
        nursery.cancel_scope.cancel()
