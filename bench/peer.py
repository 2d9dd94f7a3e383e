# oidc-agent, the nearest tool of others, in turns with brokerd: by its own C library, and by plain JSON on its socket,
# which it also accepts. One account, whose token comes from a provider of ours over TLS.
from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme

from bench import oidc_library
from bench.fetches import Row, Turn, both, measured
from bench.load import Load
from bench.processes import Daemon, Failed, Generator, computed_by, generator, process, timed

ACCOUNT = "bench"
INSTALL = "apt-get install oidc-agent-cli liboidc-agent4"
KEPT = (("kept connection, 1 client", 1), ("kept, 8 clients", 8), ("kept, 64 clients", 64))
FRESH = (("fresh connections, 1 client", 1), ("fresh, 8 clients", 8))
LONGEST = 20.0  # seconds until the agent has the account
LOOK = 0.02


@dataclass(frozen=True)
class Agent:
    """A running oidc-agent that has the account. `environ`: what its own programs need."""

    socket: str
    pids: Sequence[int]
    environ: dict[str, str]


def beside_library(daemon: Daemon, grant: str, agent: Agent, rounds: int, seconds: float) -> list[Row]:
    """A row for each load; the second column is the C library's, which always makes a connection."""
    with generator() as load, generator(module="bench.oidc_library") as library:
        return _rows(daemon, grant, agent, load, library, ((*each, False) for each in KEPT), rounds, seconds) + _rows(
            daemon, grant, agent, load, library, ((*each, True) for each in FRESH), rounds, seconds
        )


def beside_json(daemon: Daemon, grant: str, agent: Agent, rounds: int, seconds: float) -> list[Row]:
    """Both from the same load on fresh connections; the second column is oidc-agent's plain JSON."""
    with generator() as load:
        return _rows(daemon, grant, agent, load, load, ((*each, True) for each in FRESH), rounds, seconds)


def programs(daemon: Daemon, grant: str, agent: Agent, brokerctl: str, times: int) -> list[tuple[float, float]]:
    """Seconds of the whole processes `brokerctl get` and `oidc-token`, pair by pair. Raises Failed."""
    get = (brokerctl, "--socket", daemon.socket, "get", grant)
    token = ("env", *(f"{name}={value}" for name, value in agent.environ.items()), "oidc-token", ACCOUNT)
    return [both(partial(timed, get), partial(timed, token), swapped=bool(n % 2)) for n in range(times)]


def _rows(
    daemon: Daemon,
    grant: str,
    agent: Agent,
    load: Generator,
    other: Generator,
    loads: Iterator[tuple[str, int, bool]],
    rounds: int,
    seconds: float,
) -> list[Row]:
    found = []
    for name, clients, fresh in loads:
        ours = partial(measured, load, daemon.process.pid, daemon.socket, grant, clients, fresh, seconds)
        theirs = partial(_measured, other, agent, clients, seconds, as_json=other is load)
        pairs = [both(ours, theirs, swapped=bool(number % 2)) for number in range(rounds)]
        found.append(Row(name, *zip(*pairs, strict=True)))
    return found


def _measured(load: Generator, agent: Agent, clients: int, seconds: float, *, as_json: bool) -> Turn:
    request = {"request": "access_token", "account": ACCOUNT, "min_valid_period": 60, "application_hint": "bench"}
    before = computed_by(agent.pids)
    found = load.measure(
        Load(agent.socket, ACCOUNT, clients, True, seconds, json=json.dumps(request) if as_json else "")
    )
    took = computed_by(agent.pids) - before
    return Turn(found.per_second, found.p50, found.p99, took / found.answers, found.busy)


# -- the agent


@contextlib.contextmanager
def oidc_agent(folder: Path, token: str) -> Iterator[Agent]:
    """It serves that token. Raises Failed, also if it is not installed."""
    if missing := [each for each in ("oidc-agent", "oidc-gen", "oidc-token") if shutil.which(each) is None]:
        raise Failed(f"{missing[0]} is not installed ({INSTALL})")
    try:
        oidc_library.library()
    except OSError:
        raise Failed(f"{oidc_library.LIBRARY} is not installed ({INSTALL})") from None
    settings = folder / ".config" / "oidc-agent"
    settings.mkdir(parents=True, mode=0o700)
    (settings / "issuer.config").write_text("{}")
    path = folder / "agent"
    environ = {"HOME": str(folder), "OIDC_SOCK": str(path), "OIDC_ENCRYPTION_PW": "bench"}
    named = [f"{name}={value}" for name, value in environ.items()]
    with (
        provider(folder, token) as issuer,
        process("env", *named, "oidc-agent", "--console", "--no-autoload", "-a", str(path)) as started,
    ):
        _wait(path, started)
        asked = (
            "oidc-gen", ACCOUNT, "-m", f"--issuer={issuer}", "--client-id=bench", "--client-secret=bench",
            "--scope=openid offline_access", f"--cp={folder / 'ca.pem'}", "--flow=refresh", "--rt=bench", "--pw-env",
            "--confirm-yes", "--prompt=none",
        )  # fmt: skip
        done = subprocess.run(
            asked,
            env=os.environ | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST,
        )
        if done.returncode:
            raise Failed(f"oidc-gen ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}")
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        yield Agent(str(path), (started.pid, *map(int, children)), environ)


def _wait(path: Path, started: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + LONGEST
    while not path.exists():
        if started.poll() is not None or time.monotonic() > until:
            raise Failed("oidc-agent did not start")
        time.sleep(LOOK)


@contextlib.contextmanager
def provider(folder: Path, token: str) -> Iterator[str]:
    """An OpenID provider that gives that token to everybody: the URL of the issuer."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Answers, token))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Answers(BaseHTTPRequestHandler):
    """Discovery (OpenID Connect Discovery 1.0, 4) and the token endpoint (RFC 6749, 6)."""

    def __init__(self, token: str, *args: object) -> None:
        self._token = token
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        url = f"https://{self.headers['Host']}"
        names = ("authorization", "token", "userinfo", "revocation", "registration", "device_authorization")
        self._answer(
            {"issuer": f"{url}/", "scopes_supported": ["openid", "offline_access"]}
            | {f"{name}_endpoint": f"{url}/{name}" for name in names}
            | {"grant_types_supported": ["refresh_token"], "response_types_supported": ["code"]}
        )

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"access_token": self._token, "token_type": "Bearer", "expires_in": 86_400})

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, said: dict[str, object]) -> None:
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
