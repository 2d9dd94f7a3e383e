# The sockets at which brokerd listens: those that systemd passed, or its own.
from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from brokerd.config.settings import Configuration, TcpAddress
from brokerd.core.errors import Code, Failure
from brokerd.core.validation import ConfigError
from brokerd.edge.files import ownership
from brokerd.edge.peer.peer import demand_credentials
from brokerd.edge.systemd import socket as sockets
from brokerd.server.connection import Connection
from brokerd.server.credentials import CredentialConnection
from brokerd.server.http.connection import HttpClientConnection
from brokerd.server.rpc import RpcConnection
from brokerd.setup.installation import EXIT_CONFIGURATION, CannotStart, refuse, socket_path

Listeners = dict[str, socket.socket]
METRICS = "metrics"  # the listener for metrics on TCP, whose clients are not attested
LOGGED_AS = {"rpc": "socket", "http": "http_socket", "credentials": "credentials_socket", METRICS: "metrics"}
PROTOCOLS: dict[str, type[Connection]] = {
    "rpc": RpcConnection,
    "http": HttpClientConnection,
    "credentials": CredentialConnection,
}


@contextlib.contextmanager
def passed_sockets() -> Iterator[Listeners]:
    """The sockets that systemd passed, by what they carry. If brokerd cannot start before a person changes something,
    whoever waits at a socket is told so: otherwise systemd would start brokerd again and again for them. Raises
    CannotStart."""
    try:
        passed = sockets.from_systemd(os.environ, PROTOCOLS)
    except sockets.CannotListen as error:
        raise CannotStart(str(error)) from None
    try:
        yield passed
    except (CannotStart, ConfigError) as error:
        if exit_code(error) == EXIT_CONFIGURATION:
            for kind, listener in passed.items():
                own = "--user " if str(listener.getsockname()).startswith("/run/user/") else ""
                words = f"brokerd cannot start. Its log says why: journalctl {own}-u brokerd"
                sockets.turn_away(listener, PROTOCOLS[kind].refusal(Failure(Code.MISCONFIGURED, words)))
        raise


@contextlib.contextmanager
def listening(configuration: Configuration, passed: Listeners) -> Iterator[Listeners]:
    """The listening sockets. brokerd removes its own at the end. systemd keeps those that it passed, and with them
    those who connect meanwhile. Raises CannotStart."""
    settings = configuration.daemon
    wanted = {"rpc": (socket_path(settings), "[daemon] socket")}
    for kind, own in (("http", configuration.http), ("credentials", configuration.credentials)):
        if own.socket is not None:
            wanted[kind] = Path(own.socket), f"[{kind}] socket"
    with contextlib.ExitStack() as stack:
        found = dict(passed)
        stack.callback(_close, found)
        try:
            for kind, (path, key) in wanted.items():
                if kind not in passed:
                    refuse(ownership.faults_of_socket(path.parent))
                    found[kind] = sockets.at(path, settings.socket_mode, settings.socket_group, key)
                    stack.callback(path.unlink, missing_ok=True)
            if (tcp := configuration.http.metrics) is not None:
                found[METRICS] = sockets.on_tcp(tcp.host, tcp.port, "[http] metrics")
        except sockets.CannotListen as error:
            raise CannotStart(str(error)) from None
        for kind, listener in found.items():
            if kind != METRICS:
                demand_credentials(listener)
        yield found


def _close(listeners: Listeners) -> None:
    for listener in listeners.values():
        listener.close()


def address_of(listener: socket.socket) -> str:
    """Where it listens, for people."""
    name = listener.getsockname()
    return name if isinstance(name, str) else str(TcpAddress(*name[:2]))


def exit_code(error: CannotStart | ConfigError) -> int:
    return error.code if isinstance(error, CannotStart) else EXIT_CONFIGURATION
