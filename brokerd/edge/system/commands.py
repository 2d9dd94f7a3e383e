# Runs a command for a limited time, without a shell, and gives each line of its output away. The command gets only what
# it needs of the environment. What it leaves behind is killed.
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence

import trio

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED_ON = ("HOME", "LANG", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
LONGEST_LINE = 2_000  # bytes; of a longer one comes one byte more, and the rest is cut off
MOST_LINES = 50


async def run(
    command: Sequence[str], within: float, line: Callable[[str], None], environ: Mapping[str, str] | None = None
) -> str | None:
    """Why it did not end well; None: it ended with 0. `environ`: its whole environment, if not the usual one."""
    if environ is None:
        environ = {"PATH": PATH, **{name: os.environ[name] for name in PASSED_ON if name in os.environ}}
    output, its = os.pipe()
    try:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=its,
            stderr=its,
            env=environ,
            start_new_session=True,
        )
    except OSError as error:
        os.close(output)
        return f"cannot be run: {error.strerror}"
    finally:
        os.close(its)
    end = os.pidfd_open(process.pid)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read, trio.lowlevel.FdStream(output), line)
        try:
            with trio.move_on_after(within) as limit:
                await trio.lowlevel.wait_readable(end)
        finally:
            os.close(end)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # before wait(), so no other process can have this pid
            with trio.CancelScope(shield=True):
                await process.wait()
        nursery.cancel_scope.deadline = (
            trio.current_time() + 1.0
        )  # the pipe may be held by a process of another session
    if limit.cancelled_caught:
        return f"did not end within {within:g} s"
    return None if process.returncode == 0 else f"ended with status {process.returncode}"


async def _read(stream: trio.lowlevel.FdStream, line: Callable[[str], None]) -> None:
    """Give away the first lines; read on after that, so that the command never waits."""
    left, rest = MOST_LINES, b""
    async with stream:
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[: LONGEST_LINE + 1]
            for each in lines[: max(0, left)]:
                line(each[: LONGEST_LINE + 1].decode(errors="replace"))
            left -= len(lines)
    if rest and left > 0:
        line(rest.decode(errors="replace"))
