# Where the daemon's socket is and how to connect to it, for all three clients.
from __future__ import annotations

import errno
import os
from _socket import AF_UNIX, SOCK_STREAM

from brokerd_client.errors import NoDaemon

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from _socket import socket
    from typing import TypeVar

    Kind = TypeVar("Kind", bound=socket)

SYSTEM = "/run/brokerd/brokerd.sock"
BUSY_PAUSE = 0.01  # seconds between tries while the daemon's queue of new connections is full


def find_socket() -> str:
    """The path of the socket: BROKERD_SOCKET, then the user's own daemon if there is one, then the system's."""
    if path := os.environ.get("BROKERD_SOCKET"):
        return path
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        path = f"{folder}/brokerd/brokerd.sock"
        if os.access(path, os.F_OK) and _is_ours(folder):
            return path
    return SYSTEM


def _is_ours(folder: str) -> bool:
    """After `su` it may be another user's still, and root would tell that one's socket his secrets."""
    try:
        return os.stat(folder).st_uid == os.geteuid()  # noqa: PTH116 - importing pathlib would cost milliseconds
    except OSError:
        return False


def connect(path: str, kind: type[Kind]) -> Kind | None:
    """A connected socket of that class, which does not block and is closed on exec. Raises NoDaemon.

    None: the daemon's queue is full; try again in BUSY_PAUSE. Connecting to a Unix socket never takes time, so this
    serves the asynchronous clients too (trio and asyncio take the full queue for a connection in progress).
    """
    sock = kind(AF_UNIX, SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except BlockingIOError:
        sock.close()
        return None
    except OSError as error:
        sock.close()
        found, remedy = _WORDS.get(error.errno or 0, (str(error), _START))
        raise NoDaemon(f"{found} at {path}: {remedy}") from None
    return sock


_START = "is brokerd running? (systemctl status brokerd; BROKERD_SOCKET names another socket)"
_WORDS = {
    errno.ENOENT: ("no socket", _START),
    errno.ECONNREFUSED: ("nobody listens", _START),
    errno.EACCES: (
        "no permission to connect",
        "join the group that owns it (ls -l shows it): usermod -aG GROUP USER as root, then log in anew",
    ),
}
