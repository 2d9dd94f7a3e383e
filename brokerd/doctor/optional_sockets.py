# Checks the sockets that are off by default, for HTTP and metrics (docs/http.md) and for credentials of units
# (docs/systemd.md), where the configuration or their unit switches them on.
from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from brokerd.config.settings import TcpAddress
from brokerd.doctor.context import Facts
from brokerd.doctor.finding import Finding, ok, problem, problem_from, warning
from brokerd.doctor.socket import refused_with, who_may_connect
from brokerd.edge.files import ownership
from brokerd.edge.systemd import units
from brokerd.edge.systemd.units import Unit

UNITS = {"http": "brokerd-http.socket", "credentials": "brokerd-credentials.socket"}
LIVE = b"live\n"  # what brokerd answers at /livez
WITHIN = 5.0  # seconds for that answer
NOT_KNOCKED = frozenset({"credentials"})  # brokerd would log that whoever knocks there is not systemd


def http(facts: Facts) -> Iterator[Finding]:
    own = None if facts.configuration is None else facts.configuration.http.socket
    yield from _look("http", own, facts)


def credentials(facts: Facts) -> Iterator[Finding]:
    own = None if facts.configuration is None else facts.configuration.credentials.socket
    yield from _look("credentials", own, facts)


def metrics(facts: Facts) -> Iterator[Finding]:
    """The port for metrics."""
    address = None if facts.configuration is None else facts.configuration.http.metrics
    if address is None:
        return
    if not address.is_loopback:
        words = f"{address}: other machines can read the names and states of grants there"
        yield warning("metrics", words, 'let a firewall permit only the scraper, or set metrics = "127.0.0.1:9464"')
    answer = _asked(address)
    if answer == LIVE:
        yield ok("metrics", f"http://{address}/metrics answers")
    elif facts.would_start:
        yield ok("metrics", f"brokerd will answer at http://{address}/metrics")
    elif answer is None:
        yield problem("metrics", f"nothing listens at {address}; [http] is read when brokerd starts", facts.restart)
    else:
        yield problem(
            "metrics", f"another program answers at {address}", "stop it, or set another port in [http] metrics"
        )


def _asked(address: TcpAddress) -> bytes | None:
    """What /livez says there. None: nothing listens."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - it is where we ask
    try:
        with socket.create_connection((host, address.port), WITHIN) as stream:
            stream.sendall(f"GET /livez HTTP/1.1\r\nHost: {TcpAddress(host, address.port)}\r\n\r\n".encode())
            stream.settimeout(WITHIN)
            return b"".join(iter(lambda: stream.recv(4_096), b"")).rpartition(b"\r\n\r\n")[2]
    except ConnectionRefusedError:
        return None
    except OSError:
        return b""


def _look(name: str, own: str | None, facts: Facts) -> Iterator[Finding]:
    """`own`: what [NAME] socket says."""
    unit = None if facts.unit is None else units.find(UNITS[name], own=facts.unit.own)
    active = unit is not None and unit["ActiveState"] == "active"
    if active and own is not None:
        words = f"both {UNITS[name]} and [{name}] socket are set; only the socket of {UNITS[name]} is used"
        yield warning(name, words, f"remove [{name}] socket from the configuration")
    if active:
        yield from _at(name, facts.socket.parent / f"{name}.sock", facts, "another program may have removed it")
    elif own is not None:
        yield from _at(name, Path(own), facts, f"[{name}] is read when brokerd starts")
    elif unit is not None and unit["UnitFileState"] == "enabled":
        yield _not_started(name, unit, facts)


def _not_started(name: str, unit: Unit, facts: Facts) -> Finding:
    state = unit["ActiveState"] or "not active"
    words = f"{UNITS[name]} is enabled and {state}: systemd starts it together with brokerd"
    return problem(name, words, facts.restart)


def _at(name: str, path: Path, facts: Facts, why: str) -> Iterator[Finding]:
    try:
        found = path.stat()
    except FileNotFoundError:
        yield problem(name, f"there is no socket at {path}; {why}", facts.restart)
        return
    for fault in ownership.faults_of_socket(path.parent, facts.account.uid):
        yield problem_from(name, fault, ownership.ELSEWHERE["the socket"])
    refused = refused_with(path, knock=not facts.would_start and name not in NOT_KNOCKED)
    if refused in (0, errno.EACCES):
        yield ok(name, f"{path}: {who_may_connect(found)} may connect")
    else:
        yield problem(name, f"nothing listens at {path}: {os.strerror(refused)}", facts.restart)
