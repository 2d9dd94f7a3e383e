# brokerd-proxy@NAME under a real systemd: a rule names its unit, it adds the token, and a
# restart ends no idle connection. The tests follow one installation's life, in their order.
from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from tests.real.systemd.box import Box

pytestmark = pytest.mark.real
CTL = "/opt/brokerd/bin/brokerctl"
PYTHON = "/usr/bin/python3"
UNIT = "brokerd-proxy@api.service"
SOCKET = "/run/brokerd-proxy/api/api.sock"
RULE = f'[[allow]]\ngrants = ["app"]\ncaller = {{ unit = "{UNIT}" }}\n'
PROXY = f"""\
[proxies.api]
grant = "app"
upstream = "http://127.0.0.1:8099"
socket = "{SOCKET}"
caller = {{ user = "client" }}
[proxies.port]
grant = "app"
upstream = "http://127.0.0.1:8099"
listen = "127.0.0.1:8081"
caller = {{ user = "client" }}
"""
API = """\
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        said = self.headers["Authorization"].encode()
        self.send_response(200); self.send_header("Content-Length", str(len(said))); self.end_headers()
        self.wfile.write(said)
http.server.ThreadingHTTPServer(("127.0.0.1", 8099), Handler).serve_forever()
"""
# Two connections of a client that are idle while the proxy is restarted: statuses of their first and second requests.
IDLE = """\
import http.client, json, os, pwd, socket, subprocess, sys
who = pwd.getpwnam("client")
idle, go = os.pipe(), os.pipe()
if os.fork() == 0:
    os.setgid(who.pw_gid); os.setuid(who.pw_uid)
    unix = socket.socket(socket.AF_UNIX); unix.connect("/run/brokerd-proxy/api/api.sock")
    found = []
    socks = [unix, socket.create_connection(("127.0.0.1", 8081))]
    for each in (1, 2):
        for sock in socks:
            sock.sendall(b"GET / HTTP/1.1\\r\\nHost: 127.0.0.1:8081\\r\\n\\r\\n")
            answer = http.client.HTTPResponse(sock); answer.begin(); answer.read()
            found.append(answer.status)
        if each == 1:
            os.write(idle[1], b"1"); os.read(go[0], 1)
    print(json.dumps(found), flush=True)
    os._exit(0)
os.close(idle[1])
if os.read(idle[0], 1):
    subprocess.run(["systemctl", "restart", sys.argv[1]], check=True)
    os.write(go[1], b"1")
os.wait()
"""


@pytest.fixture(scope="module")
def proxy(box: Box) -> Box:
    box.run("useradd", "--system", "client")
    box.write("/etc/brokerd/conf.d/proxy.toml", RULE)
    box.run("install", "-D", "-m", "0644", "/dev/stdin", "/etc/brokerd/proxies/api.toml", input=PROXY)
    box.run("install", "-m", "0644", "/dev/stdin", "/run/api.py", input=API)
    box.run("systemctl", "enable", "--now", "brokerd.socket", "brokerd.service")
    box.run("systemctl", "reload", "brokerd.service")
    box.run("systemd-run", "--unit=api", PYTHON, "/run/api.py")
    return box


def asked(box: Box, user: str, *where: str) -> str:
    script = "import sys, socket, os, pwd\n"
    script += f"w = pwd.getpwnam('{user}'); os.setgroups([]); os.setgid(w.pw_gid); os.setuid(w.pw_uid)\n"
    script += f"s = socket.socket(socket.AF_UNIX); s.connect('{SOCKET}')\n"
    script += "s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')\n"
    script += "d = b''\nwhile (m := s.recv(4096)): d += m\nprint(d.decode())"
    return box.run("/usr/bin/python3", "-c", script)


def until(holds: Callable[[], bool], box: Box, within: float = 30.0) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, box.journal(UNIT)
        time.sleep(0.05)


def test_a_user_gets_answers_with_a_token_that_only_the_unit_has(proxy: Box) -> None:
    proxy.run("systemctl", "enable", "--now", UNIT)
    token = proxy.run(CTL, "get", "app").strip()
    until(lambda: f"Bearer {token}" in asked(proxy, "client"), proxy)
    assert " 403 " in asked(proxy, "nobody")
    assert "no permission" in proxy.run("runuser", "-u", "client", "--", CTL, "get", "app", check=False)
    assert proxy.property(UNIT, "User") == "brokerd-proxy"


def test_a_restart_ends_no_idle_connection(proxy: Box) -> None:
    proxy.run("install", "-m", "0644", "/dev/stdin", "/run/idle.py", input=IDLE)
    said = proxy.run(PYTHON, "/run/idle.py", UNIT)
    assert json.loads(said) == [200, 200, 200, 200], f"{said}\n{proxy.journal(UNIT)}"


def test_a_reload_with_a_mistake_fails_and_changes_nothing(proxy: Box) -> None:
    wrong = PROXY.replace("upstream", "upstraem", 1)
    proxy.run("install", "-m", "0644", "/dev/stdin", "/etc/brokerd/proxies/api.toml", input=wrong)
    proxy.run("systemctl", "reload", UNIT, check=False)
    assert "upstraem" in proxy.journal(UNIT)
    assert " 200 " in asked(proxy, "client")
    proxy.run("install", "-m", "0644", "/dev/stdin", "/etc/brokerd/proxies/api.toml", input=PROXY)
    proxy.run("systemctl", "reload", UNIT)


def test_doctor_and_explain_know_it(proxy: Box) -> None:
    assert "api at /run/brokerd-proxy/api/api.sock" in proxy.run(CTL, "doctor", "--offline", check=False)
    assert "may be used by this process" in proxy.run(CTL, "explain", "app", "--as", "client", check=False)
