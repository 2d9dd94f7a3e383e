# What a request costs through brokerd-proxy, beside nginx as a plain reverse proxy: in turns, to the same upstream over
# TLS, at Unix sockets, with the same load. The upstream is nginx too.
from __future__ import annotations

import contextlib
import datetime
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trustme

from bench.fetches import Row, Turn, both, measured
from bench.load import Load
from bench.processes import BIN, LOOK, READY_LONGEST, Daemon, Failed, Generator, computed, generator, process

LOADS = (("proxied, 1 client", 1), ("proxied, 8 clients", 8), ("proxied, 64 clients", 64))  # in words, clients at once
NGINX = """\
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; keepalive_requests 10000000; client_max_body_size 0;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/kept;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {servers}
}}
"""
UPSTREAM = """\
server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/chain.pem; ssl_certificate_key {folder}/key.pem;
    root {folder};
    location /up {{ proxy_pass http://unix:{folder}/inner; }}
}}
server {{ listen unix:{folder}/inner; location / {{ return 204; }} }}
"""
REVERSE = """\
upstream api {{ server 127.0.0.1:{port}; keepalive 64; keepalive_requests 10000000; }}
server {{
    listen unix:{folder}/nginx;
    location / {{
        proxy_pass https://api; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost;
        proxy_set_header Authorization "Bearer x"; proxy_buffering off; proxy_request_buffering off;
        proxy_ssl_name localhost; proxy_ssl_verify on; proxy_ssl_trusted_certificate {folder}/ca.pem;
    }}
}}
"""
WIDTHS = (20, 8, 20, 8)  # of the columns of added latency
PROXY = """\
[proxies.bench]
grant = "{grant}"
upstream = "https://localhost:{port}"
ca_file = "{folder}/ca.pem"
socket = "{folder}/proxy"
caller = {{ uid = {uid} }}
"""


@dataclass(frozen=True)
class Place:
    """Where a load goes, and the process that computes for it. `ca_file`: as of a Load."""

    socket: str
    pid: int
    ca_file: str = ""


@dataclass(frozen=True)
class Proxies:
    """Both, and the upstream itself."""

    ours: Place
    nginx: Place
    upstream: Place


@dataclass(frozen=True)
class Request(Row):
    """One load; the yardstick is nginx. `direct`: the turns of the upstream without a proxy."""

    direct: Sequence[Turn]

    def added(self, field: str, turns: Sequence[Turn]) -> float:
        """Seconds that a proxy adds: the middle one of all rounds."""
        return statistics.median(
            getattr(one, field) - getattr(bare, field) for one, bare in zip(turns, self.direct, strict=True)
        )


@contextlib.contextmanager
def proxies(daemon: Daemon, grant: str, folder: Path, port: int, uid: int, bulk: int) -> Iterator[Proxies]:
    """`bulk`: bytes of a large answer. Raises Failed."""
    if shutil.which("nginx") is None:
        raise Failed("nginx is not installed")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
    made = authority.issue_cert("localhost", not_after=end.replace(tzinfo=None))
    made.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "chain.pem").write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
    (folder / "small").write_bytes(b"x" * 1_024)
    with (folder / "large").open("wb") as file:
        file.truncate(bulk)
    with contextlib.ExitStack() as stack:
        pids = []
        for name, servers in (("upstream", UPSTREAM), ("reverse", REVERSE)):
            (folder / name).mkdir()
            config = folder / name / "conf"
            text = servers.format(folder=folder, port=port)
            config.write_text(NGINX.format(folder=folder / name, servers=text))
            nginx = ("nginx", "-e", str(folder / name / "errors"), "-c", str(config))
            pids.append(stack.enter_context(process(*nginx)).pid)
        toml, log = folder / "proxy.toml", folder / "log"
        toml.write_text(PROXY.format(grant=grant, port=port, folder=folder, uid=uid))
        toml.chmod(0o600)
        command = (str(BIN / "brokerd-proxy"), "--socket", daemon.socket, str(toml))
        ours = stack.enter_context(process(*command, log=log))
        began = time.perf_counter()
        while not (log.exists() and "event=ready" in log.read_text() and (folder / "nginx").exists()):
            if ours.poll() is not None or time.perf_counter() - began > READY_LONGEST:
                raise Failed(f"brokerd-proxy did not start: {log.read_text()[-500:]}")
            time.sleep(LOOK)
        yield Proxies(
            Place(str(folder / "proxy"), ours.pid),
            Place(str(folder / "nginx"), _child(pids[1])),
            Place(f"localhost:{port}", _child(pids[0]), str(folder / "ca.pem")),
        )


def requests(found: Proxies, rounds: int, seconds: float) -> list[Request]:
    turns: dict[str, list[tuple[Turn, Turn, Turn]]] = {name: [] for name, _ in LOADS}
    with generator() as load:
        for number in range(rounds):
            for name, clients in LOADS:
                measure = partial(_measured, load, clients, seconds)
                ours, theirs = partial(measure, found.ours), partial(measure, found.nginx)
                turns[name].append((*both(ours, theirs, swapped=bool(number % 2)), measure(found.upstream)))
    return [Request(name, *zip(*three, strict=True)) for name, three in turns.items()]


def latencies(rows: Sequence[Request]) -> str:
    """What both add to the time of a request, beside the same load at the upstream itself."""
    lines = [f"{'added latency, µs':28}{'brokerd-proxy p50':>20}{'p99':>8}{'nginx p50':>20}{'p99':>8}"]
    for row in rows:
        cells = [row.added(field, turns) * 1e6 for turns in (row.subject, row.yardstick) for field in ("p50", "p99")]
        lines.append(
            f"{row.name:28}" + "".join(f"{cell:{width},.0f}" for cell, width in zip(cells, WIDTHS, strict=True))
        )
    return "\n".join(lines)


def bulk(found: Proxies, folder: Path, rounds: int) -> Iterator[tuple[str, float, float]]:
    """Bytes a second of a large body, down and up: in words, ours and nginx's, medians. By curl."""
    for words, options in (
        ("down", ("-o", "/dev/null", "-w", "%{speed_download}", "http://x/large")),
        ("up", ("-T", str(folder / "large"), "-o", "/dev/null", "-w", "%{speed_upload}", "http://x/up")),
    ):
        speeds: dict[str, list[float]] = {found.ours.socket: [], found.nginx.socket: []}
        for _ in range(rounds):
            for path, taken in speeds.items():
                command = ["curl", "-sSf", "--unix-socket", path, *options]
                taken.append(float(subprocess.run(command, capture_output=True, check=True).stdout))
        yield words, *(statistics.median(each) for each in speeds.values())


def beside(daemon: Daemon, grant: str, found: Proxies, rounds: int, seconds: float) -> Row:
    """A get at the broker while a proxy is under full load; the second column: while it is idle."""
    with generator() as load, generator() as other:
        get = partial(measured, load, daemon.process.pid, daemon.socket, grant, 1, False, seconds)

        def busy() -> Turn:
            other.begin(Load(found.ours.socket, "", 64, False, seconds * 1.5, http=True, target="/small"))
            turn = get()
            other.end()
            return turn

        pairs = [both(busy, get, swapped=bool(number % 2)) for number in range(rounds)]
    return Row("a get, the proxy under load", *zip(*pairs, strict=True))


def memory(found: Proxies) -> float:
    """MB that brokerd-proxy had in memory at most."""
    text = Path(f"/proc/{found.ours.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6


def _measured(load: Generator, clients: int, seconds: float, place: Place) -> Turn:
    before = computed(place.pid)
    found = load.measure(
        Load(place.socket, "", clients, False, seconds, http=True, target="/small", ca_file=place.ca_file)
    )
    return Turn(found.per_second, found.p50, found.p99, (computed(place.pid) - before) / found.answers, found.busy)


def _child(pid: int) -> int:
    """The worker of an nginx."""
    end = time.perf_counter() + READY_LONGEST
    while not (text := Path(f"/proc/{pid}/task/{pid}/children").read_text()):
        if time.perf_counter() > end:
            raise Failed("nginx did not start")
        time.sleep(LOOK)
    return int(text.split()[0])
