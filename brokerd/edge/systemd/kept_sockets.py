# Sockets that systemd keeps for this service from one process to the next (its file descriptor store, sd_notify(3)):
# listeners, and connections on which nothing is under way. systemd drops them when the service is stopped.
from __future__ import annotations

import os
import select
import socket
from collections.abc import MutableMapping, Sequence

from brokerd.edge.systemd.notify import notify
from brokerd.edge.systemd.socket import FIRST_DESCRIPTOR

LISTENER, CONNECTION = "listener", "connection"  # their names in the store
AT_ONCE = 200  # descriptors in one message; the kernel allows 253
TAKEN_WITHIN = 5_000  # milliseconds


def available(environ: MutableMapping[str, str]) -> bool:
    """Whether a service manager listens. If it keeps nothing, it closes what it is given."""
    return bool(environ.get("NOTIFY_SOCKET"))


def keep(name: str, sockets: Sequence[socket.socket]) -> None:
    """Give sockets to systemd. They stay open here too."""
    for at in range(0, len(sockets), AT_ONCE):
        some = [each.fileno() for each in sockets[at : at + AT_ONCE]]
        notify("FDSTORE=1", f"FDNAME={name}", descriptors=some)


def keep_only(name: str, sockets: Sequence[socket.socket]) -> None:
    """Of that name, systemd keeps these from now on: what it holds stays open, also when it is closed here."""
    notify("FDSTOREREMOVE=1", f"FDNAME={name}")
    keep(name, sockets)


def until_taken() -> None:
    """Wait until systemd has read everything that it was sent (BARRIER=1), as long as it takes no more than seconds.
    Without this, the process might end before: systemd would not know whose message it was."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        notify("BARRIER=1", descriptors=(writer,))
        os.close(writer)
        poll = select.poll()
        poll.register(reader, 0)  # POLLHUP comes when systemd closes its copy
        poll.poll(TAKEN_WITHIN)
    finally:
        os.close(reader)


def from_systemd(environ: MutableMapping[str, str]) -> tuple[list[socket.socket], list[socket.socket]]:
    """The listeners and the connections that the process before left (sd_listen_fds(3)). systemd goes on keeping the
    listeners alone. What is no stream socket is closed."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return [], []
    count = int(environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    listeners, connections = list[socket.socket](), list[socket.socket]()
    for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + count):
        try:
            sock = socket.socket(fileno=descriptor)
            sock.setblocking(False)
            sock.set_inheritable(False)
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            (listeners if listens else connections).append(sock)
        except OSError:
            os.close(descriptor)
    if connections:
        keep_only(CONNECTION, ())
    return listeners, connections
