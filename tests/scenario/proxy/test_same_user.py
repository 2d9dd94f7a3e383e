# brokerd-proxy as the application's own user, which docs/proxy.md advises against: what a hostile child of the
# application cannot do to the running process, and how it gets the token all the same.
from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest
import trio

from tests.did_not_run import did_not_run
from tests.scenario.daemon.callers import User
from tests.scenario.proxy.conftest import World
from tests.scenario.proxy.test_bypasses import SEARCH, run

ATTACK = """\
import ctypes, errno, struct
uid, pid = json.loads(sys.argv[1])
become(uid)
libc = ctypes.CDLL(None, use_errno=True)
def tried(call):
    ctypes.set_errno(0)
    try:
        return "done" if call() >= 0 else errno.errorcode[ctypes.get_errno()]
    except OSError as error:
        return errno.errorcode[error.errno]
def opened(name):
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return len(file.read(1))
room = ctypes.create_string_buffer(8)
class Area(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
one = Area(ctypes.addressof(room), 8)
print(json.dumps({
    "attach": tried(lambda: libc.ptrace(16, pid, None, None)),
    "seize": tried(lambda: libc.ptrace(0x4206, pid, None, None)),
    "read": tried(lambda: libc.process_vm_readv(pid, ctypes.byref(one), 1, ctypes.byref(one), 1, 0)),
    "descriptor": tried(lambda: libc.syscall(438, os.pidfd_open(pid), 0, 0)),
    **{name: tried(lambda: opened(name)) for name in ("mem", "environ", "maps", "auxv")},
    **{name: tried(lambda: len(os.listdir(f"/proc/{pid}/{name}"))) for name in ("fd", "map_files")},
}))
"""
GET = """\
uid, path = json.loads(sys.argv[1])
sys.path[:0] = json.loads(sys.stdin.readline())
import grp
from brokerd_client.blocking import Broker
become(uid)
print(Broker(path).get("app").value)
"""


QUIETLY: dict[str, Any] = {"check": False, "capture_stdout": True, "capture_stderr": True}


@pytest.fixture
async def token(world: World, other_user: User) -> str:
    """The proxy runs as that user, and a rule gives it the token."""
    user = str(other_user.uid)
    become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups")
    if (await trio.run_process([*become, sys.executable, "-c", "import brokerd"], **QUIETLY)).returncode:
        did_not_run("BROKERD-PROXY AS THE APPLICATION'S USER", "another user may not read this checkout")
    await world.proxy.stop()
    for path in (world.proxy.config.parent, *world.proxy.config.parent.iterdir(), world.proxy.path.parent):
        os.chown(path, other_user.uid, other_user.uid)
    world.proxy.within = become
    world.proxy.describe(caller={"uid": other_user.uid})
    os.chown(world.proxy.config, other_user.uid, other_user.uid)
    await world.allow({"grants": ["app"], "caller": {"uid": other_user.uid}, "actions": ["get"]})
    await world.proxy.start()
    assert world.proxy.proc("status").read_text().split("Uid:")[1].split()[0] == user
    found: str = await world.brokerd.get("app")
    return found


async def test_no_process_of_the_same_user_can_look_into_the_proxy(world: World, other_user: User, token: str) -> None:
    done = await run(ATTACK, [other_user.uid, world.proxy.pid])
    assert set(json.loads(done.stdout).values()) <= {"EPERM", "EACCES"}, done.stdout
    half = len(token) // 2
    needle = json.dumps([token[:half], token[half:], [str(world.proxy.config.parent)]]).encode() + b"\n"
    found, read = json.loads((await run(SEARCH, other_user.uid, stdin=needle)).stdout)
    assert found == []
    assert read["files"] > 0


async def test_it_asks_brokerd_itself_and_gets_the_token(world: World, other_user: User, token: str) -> None:
    """A rule for a user is a rule for each of its processes. That is why the proxy needs a user of its own."""
    said = json.dumps(sys.path).encode() + b"\n"
    done = await run(GET, [other_user.uid, str(world.brokerd.socket)], stdin=said)
    assert done.stdout.decode().strip() == token
