# The configuration is read in a thread of its own (law 13), because its files may be on a disk that never answers.
from __future__ import annotations

import contextlib
import os
from pathlib import Path

import trio

from brokerd.edge.store.store import in_thread
from brokerd.setup.installation import read_configuration


async def test_reading_takes_neither_the_thread_of_the_store_nor_a_shared_one(tmp_path: Path) -> None:
    main, silent = tmp_path / "brokerd.toml", tmp_path / "conf.d" / "silent.toml"
    silent.parent.mkdir()
    main.write_text("")
    os.mkfifo(silent, 0o600)  # reading it takes until somebody writes to it
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_configuration, str(main))
            writer = await reader_of(silent)
            try:
                assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
                with trio.fail_after(2):
                    assert await in_thread(lambda: "the store works on") == "the store works on"
            finally:
                os.close(writer)


async def test_reading_that_nobody_waits_for_any_more_keeps_nobody(tmp_path: Path) -> None:
    main, silent = tmp_path / "brokerd.toml", tmp_path / "conf.d" / "silent.toml"
    silent.parent.mkdir()
    main.write_text("")
    os.mkfifo(silent, 0o600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(speaks_late, silent)
        with trio.move_on_after(0.1) as waited:
            await read_configuration(str(main))
        assert waited.cancelled_caught
        nursery.cancel_scope.cancel()
    os.close(await reader_of(silent))


async def speaks_late(pipe: Path) -> None:
    """So that a reading that cannot be left ends, and its test with it."""
    await trio.sleep(5)
    os.close(await reader_of(pipe))


async def reader_of(pipe: Path) -> int:
    """A descriptor that writes to the pipe, once somebody reads from it."""
    while True:
        with contextlib.suppress(OSError):
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        await trio.sleep(0.01)
