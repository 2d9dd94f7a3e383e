# Attempts to get past the proxy's rules, each at the real process: by other users, by requests that can be read in two
# ways, by pages in a browser, by an upstream that sends the client elsewhere.
from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.free_port import free_port
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import until
from tests.scenario.proxy.conftest import World
from tests.scenario.proxy.upstream import Link as Upstreams
from tests.scenario.proxy.upstream import Seen, Upstream

# Becomes a user whose processes can read each other's memory, as those of one login can.
BECOME = """\
import ctypes, json, os, socket, sys
def become(uid):
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
"""
ASK = """\
uid, number, *where = json.loads(sys.argv[1])
become(uid)
def connect():
    sock = socket.socket(socket.AF_UNIX if len(where) == 1 else socket.AF_INET6 if ":" in where[0] else socket.AF_INET)
    sock.connect(where[0] if len(where) == 1 else tuple(where))
    return sock
socks = [connect() for _ in range(number)]
host = "proxy" if len(where) == 1 else f"{'[::1]' if ':' in where[0] else where[0]}:{where[1]}"
found = []
for sock in socks:
    sock.settimeout(20)
    try:
        sock.sendall(f"GET /as-other HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n".encode())
        found.append(int(sock.recv(65536).split()[1]))
    except OSError:
        found.append(0)
print(json.dumps(found))
"""


async def run(code: str, said: object, *, check: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-S", "-c", BECOME + code, json.dumps(said)]
    return await trio.run_process(command, check=check, stdin=stdin, capture_stdout=True, capture_stderr=True)


async def asked(uid: int, *where: object, number: int = 1) -> list[int]:
    """The statuses that a process of this user gets, one for each connection; all are open at the same time."""
    done = await run(ASK, [uid, number, *where])
    found: list[int] = json.loads(done.stdout)
    return found


async def test_another_user_gets_nothing_at_the_socket_and_at_the_port(world: World, other_user: User) -> None:
    places: tuple[tuple[object, ...], ...] = ((str(world.proxy.path),), ("127.0.0.1", world.proxy.port))
    for where in places:
        assert await asked(0, *where) == [200]
        assert await asked(other_user.uid, *where) == [403]
    assert len(world.upstream.seen) == 2
    world.proxy.describe(caller={"uid": other_user.uid})
    await world.proxy.reload()
    for where in places:
        assert await asked(0, *where) == [403]
        assert await asked(other_user.uid, *where) == [200]


async def test_a_reload_that_takes_a_users_right_holds_for_connections_that_are_open(world: World) -> None:
    async with world.proxy.link("unix") as one, world.proxy.link("tcp") as two:
        assert [(await link.get()).status for link in (one, two)] == [200, 200]
        world.proxy.describe(caller={"uid": 60_900})
        await world.proxy.reload()
        assert [(await link.get()).status for link in (one, two)] == [403, 403]


async def test_a_process_that_inherits_a_connection_gets_nothing(world: World) -> None:
    code = (
        "import os, socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX); sock.connect(sys.argv[1])\n"
        "ask = b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'\n"
        "sock.sendall(ask); assert b' 200 ' in sock.recv(65536)\n"
        "if os.fork() == 0:\n"
        "    sock.sendall(ask)\n"
        "    try: found = sock.recv(65536)\n"
        "    except ConnectionError: found = b''\n"
        "    os.write(1, found or b'nothing'); os._exit(0)\n"
        "os.wait()\n"
    )
    done = await trio.run_process([sys.executable, "-S", "-c", code, str(world.proxy.path)], capture_stdout=True)
    assert done.stdout == b"nothing"
    assert len(world.upstream.seen) == 1


async def test_ipv6_loopback_is_served_as_the_other_one(world: World, other_user: User) -> None:
    port = free_port()
    table = {"grant": "app", "upstream": world.upstream.url, "ca_file": world.upstream.ca_file, "caller": {"uid": 0}}
    world.proxy.tables(six={**table, "listen": f"[::1]:{port}"})
    await world.proxy.reload()
    assert await asked(0, "::1", port) == [200]
    assert await asked(other_user.uid, "::1", port) == [403]


GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
SECOND = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = (
    POST + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(SECOND) + SECOND,
    POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
    POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + SECOND,
    POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SECOND,
    POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + SECOND,
    POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SECOND,
    POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SECOND,
    POST + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
    POST + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
    POST + b"X: a\0b\r\n\r\n" + SECOND,
    POST + b"Transfer-Encoding: chunked\r\n\r\n1;\n5\r\na\r\n0\r\n\r\n" + SECOND,
    POST + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + SECOND,
    POST + b"Transfer-Encoding: chunked\r\n\r\n0\n\n" + SECOND,
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SECOND,
    GET + b"Host: other\r\n\r\n" + SECOND,
    b"GET / HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND,
    b"GET /\r\nX: HTTP/1.1\r\nHost: x\r\n\r\n" + SECOND,
)
ELSEWHERE = (
    b"CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\n\r\n",
    b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET https://localhost/v2/x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET //evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET @evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/../admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/%2e%2e/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/%2e%2e%2fadmin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/..;/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/..%5cadmin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/%252e%252e/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/%25252e%25252e/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/%c0%ae%c0%ae/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/%e0%80%ae%e0%80%ae/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/%u002e%u002e/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/%ef%bc%8e%ef%bc%8e/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/..%00/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/..\0/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/..\\admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/..%3b/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/..%20/admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2%2fadmin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n",
    b"DELETE /v2/x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
)


async def test_nothing_is_smuggled_behind_a_request(world: World) -> None:
    for data in SMUGGLED:
        answer = await world.proxy.raw(data)
        assert answer.startswith(b"HTTP/1.1 400 "), data.decode()[30:]
        assert answer.count(b"\r\n\r\n") == 1, data
    assert [seen.target for seen in world.upstream.seen if seen.digest or seen.target != "/"] == []


async def test_no_request_goes_anywhere_but_to_what_is_allowed_at_the_upstream(world: World) -> None:
    world.proxy.describe(methods=["GET", "POST"], paths=["/v2/*"])
    await world.proxy.reload()
    for data in ELSEWHERE:
        answer = await world.proxy.raw(data)
        assert answer.split()[1] in (b"400", b"403", b"405"), data
    assert world.upstream.seen == []
    host = await world.proxy.raw(b"GET /v2/x HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert host.startswith(b"HTTP/1.1 200 ")
    assert world.upstream.seen[0].all("host") == [f"localhost:{world.upstream.port}"]


async def test_a_redirect_to_elsewhere_is_not_followed(world: World, folder: Path, nursery: trio.Nursery) -> None:
    (folder / "other").mkdir()
    other = Upstream(folder / "other")
    await nursery.start(other.run)

    async def redirect(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await link.answer(307, b"", f"Location: {other.url}/", "Refresh: 0;url=/x")

    world.upstream.on("/", redirect)
    answer = await world.proxy.get()
    assert (answer.status, answer.all("location")) == (307, [f"{other.url}/"])
    assert other.connections == 0


async def test_the_clients_own_token_trailers_and_connection_options_change_nothing(world: World) -> None:
    token = await world.brokerd.get("app")
    headers = (
        "Authorization: Bearer mine",
        "authorization: Basic bWluZQ==",
        "Connection: Authorization, X-Mine",
        "X-Mine: 1",
    )
    async with world.proxy.link() as link:
        await link.get("/", *headers)
        lines = b"Trailer: Authorization\r\nTransfer-Encoding: chunked\r\n\r\n"
        await link.send(POST + lines + b"1\r\na\r\n0\r\nAuthorization: Bearer mine\r\n\r\n")
        await link.answer()
    for seen in world.upstream.seen:
        assert (seen.token, seen.all("x-mine"), seen.all("trailer")) == (token, [], [])
    assert len(world.upstream.seen) == 2


async def test_a_page_of_another_site_gets_nothing_at_the_port(world: World) -> None:
    async with world.proxy.link("tcp") as link:
        assert (await link.get("/", "Sec-Fetch-Site: same-origin", f"Origin: http://{link.host}")).status == 200
    for line, status in (
        ("Origin: https://evil.example", 403),
        ("Origin: null", 403),
        ("Sec-Fetch-Site: cross-site", 403),
        ("Sec-Fetch-Site: same-site", 403),
    ):
        assert (await world.proxy.get("/", line, kind="tcp")).status == status
    rebound = await world.proxy.raw(b"GET / HTTP/1.1\r\nHost: evil.example:8081\r\n\r\n", "tcp")
    assert rebound.startswith(b"HTTP/1.1 421 ")
    assert len(world.upstream.seen) == 1


async def test_a_crowd_of_one_user_leaves_room_for_others(world: World, other_user: User) -> None:
    """With the descriptors of this process: 39 connections for a user, 157 in all."""
    world.proxy.within = ("prlimit", "--nofile=600")
    await world.proxy.stop()
    await world.proxy.start()
    world.proxy.describe(caller=[{"uid": 0}, {"uid": other_user.uid}])
    await world.proxy.reload()
    for where in ((str(world.proxy.path),), ("127.0.0.1", world.proxy.port)):
        found = await asked(other_user.uid, *where, number=60)
        assert (found.count(200), found.count(503)) == (39, 21)
    held = [socket.socket(socket.AF_UNIX) for _ in range(60)]
    for sock in held:
        sock.connect(str(world.proxy.path))
    await until(lambda: sum(map(_is_refused, held)) == 21)
    assert await asked(other_user.uid, str(world.proxy.path)) == [200]
    for sock in held:
        sock.close()


def _is_refused(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return b" 503 " in sock.recv(65_536, socket.MSG_PEEK)
    except BlockingIOError:
        return False


# -- the hostile child

APP = """\
kind, uid, path, times, answers = json.loads(sys.argv[1])
if kind == "get":
    sys.path[:0] = json.loads(sys.argv[2])
    import grp
    from brokerd_client.blocking import Broker
become(uid)
if kind == "proxy":
    sock = socket.socket(socket.AF_UNIX); sock.connect(path)
    for _ in range(times):
        sock.sendall(b"GET /plain HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        found = sock.recv(65536)
        assert found.startswith(b"HTTP/1.1 200 "), found
        open(answers, "ab").write(found)
else:
    broker = Broker(path)
    token = broker.get("app")
print("done", flush=True)
sys.stdin.read()
"""
# Runs as the application's user, and began before it. It gets the token in two halves, so that it does not find itself.
SEARCH = r"""
become(json.loads(sys.argv[1]))
first, second, folders = json.loads(sys.stdin.readline())
needle = lambda: (first + second).encode()
def chunks(pid):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            area, rights, *rest = line.split()
            if "r" not in rights or rest[-1] in ("[vvar]", "[vsyscall]"):
                continue
            begin, end = (int(each, 16) for each in area.split("-"))
            try:
                memory.seek(begin)
                yield memory.read(end - begin)
            except (OSError, ValueError, OverflowError):
                pass
found, read = [], {"memory": 0, "environ": 0, "files": 0}
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) in (os.getpid(), os.getppid()):
        continue
    for name in ("environ", "cmdline"):
        try:
            if needle() in open(f"/proc/{pid}/{name}", "rb").read():
                found.append(f"{name} of {pid}")
            read["environ"] += 1
        except OSError:
            pass
    try:
        for piece in chunks(pid):
            if needle() in piece:
                found.append(f"memory of {pid}")
            read["memory"] += len(piece)
    except OSError:
        pass
    try:
        links = [f"/proc/{pid}/fd/{each}" for each in os.listdir(f"/proc/{pid}/fd")]
    except OSError:
        links = []
    for link in links:
        try:
            if os.path.isfile(link) and needle() in open(link, "rb").read():
                found.append(f"descriptor of {pid}")
        except OSError:
            pass
for top, _, names in (each for folder in folders for each in os.walk(folder)):
    for name in names:
        try:
            if needle() in open(os.path.join(top, name), "rb").read():
                found.append(f"file {name}")
            read["files"] += 1
        except OSError:
            pass
print(json.dumps([found, read]), flush=True)
"""


@pytest.mark.parametrize("kind", ["proxy", "get"])
async def test_a_hostile_child_of_the_application_finds_the_token_only_if_the_application_had_it(
    world: World, other_user: User, folder: Path, kind: str
) -> None:
    """It looks into environments, arguments, memory, descriptors and files, and at all answers, as the application's
    own user. Where the application uses `get`, the same search finds the token in its memory."""

    async def plain(link: Upstreams, seen: Seen) -> None:
        await link.body(seen)
        await link.answer(200, b"fine")

    world.upstream.on("/plain", plain)
    world.proxy.describe(caller={"uid": other_user.uid})
    await world.proxy.reload()
    await world.allow({"grants": ["app"], "caller": {"uid": other_user.uid}, "actions": ["get"]})
    token = await world.brokerd.get("app")
    (folder / "mine").mkdir(mode=0o777)
    (folder / "mine").chmod(0o777)
    where = world.proxy.path if kind == "proxy" else world.brokerd.socket
    said = [kind, other_user.uid, str(where), 1000, str(folder / "mine" / "answers")]
    command = [sys.executable, "-S", "-c", BECOME + APP, json.dumps(said), json.dumps(sys.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as app:  # noqa: ASYNC220
        assert app.stdout is not None
        assert await trio.to_thread.run_sync(app.stdout.readline) == b"done\n"
        half = len(token) // 2
        needle = json.dumps([token[:half], token[half:], [str(folder), str(folder / "mine")]]).encode() + b"\n"
        done = await run(SEARCH, other_user.uid, stdin=needle)
        app.kill()
    found, read = json.loads(done.stdout)
    assert read["memory"] > 1_000_000
    assert read["environ"] > 0
    if kind == "get":
        assert set(found) == {f"memory of {app.pid}"}
    else:
        assert found == []
        assert len([seen for seen in world.upstream.seen if seen.token == token]) == 1_000
        assert read["files"] > 0


async def test_no_other_user_can_read_the_proxys_memory_and_it_leaves_no_core(world: World, other_user: User) -> None:
    for name in ("mem", "environ", "maps"):
        code = f"become({other_user.uid}); open('/proc/{world.proxy.pid}/{name}', 'rb').read(1)"
        assert b"PermissionError" in (await run(code, None, check=False)).stderr
    limits = world.proxy.proc("limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
