# Where the daemon's socket is, and how to connect to it, for all three clients.
from __future__ import annotations

import errno
import os
from _socket import AF_UNIX, SOCK_STREAM

from brokerd_client.errors import NoDaemon, NotPermitted

TYPE_CHECKING = False  # typing's own would cost a fetch from a shell some milliseconds
if TYPE_CHECKING:
    from _socket import socket
    from typing import TypeVar

    Kind = TypeVar("Kind", bound=socket)

SYSTEM = "/run/brokerd/brokerd.sock"
CALLERS = "brokerd-callers"  # the group that `brokerctl install` makes: it may connect, and do nothing else
BOOTED = "/run/systemd/system"  # exists if systemd runs (sd_booted(3))
BUSY_PAUSE = 0.003  # seconds between tries while the daemon's queue of new connections is full


def find_socket() -> str:
    """The path of the socket: BROKERD_SOCKET, then the user's own daemon if there is one, then the system's."""
    if path := os.environ.get("BROKERD_SOCKET"):
        return path
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        path = f"{folder}/brokerd/brokerd.sock"
        if os.access(path, os.F_OK) and is_ours(folder):
            return path
    return SYSTEM


def is_ours(folder: str) -> bool:
    """After `su` the folder may still be another user's, and root would send secrets to that user's socket."""
    try:
        return os.stat(folder).st_uid == os.geteuid()  # noqa: PTH116 - importing pathlib would cost milliseconds
    except OSError:
        return False


def connect(path: str, kind: type[Kind]) -> Kind | None:
    """A connected socket of that class, which does not block and is closed on exec. Raises NoDaemon.

    None: the daemon's queue is full; try again after BUSY_PAUSE. Connecting to a Unix socket never blocks, so the
    asynchronous clients use this too: trio and asyncio would mistake the full queue for a connection in progress.
    """
    sock = None
    try:
        sock = kind(AF_UNIX, SOCK_STREAM)
        sock.setblocking(False)
        sock.connect(path)
        return sock
    except BaseException as error:  # Ctrl-C too
        if sock is not None:
            sock.close()
        if isinstance(error, BlockingIOError):
            return None
        if not isinstance(error, OSError):
            raise
        if error.errno == errno.EACCES:
            raise NotPermitted(f"no permission to connect at {path}: {_way_in(path)}") from None
        found = _WORDS.get(error.errno or 0, str(error))
        look = f"{manager(path)} status brokerd" if os.access(BOOTED, os.F_OK) else "see brokerctl doctor"
        words = f"is brokerd running? ({look}; to use another socket, set BROKERD_SOCKET)"
        raise NoDaemon(f"{found} at {path}: {words}") from None


def manager(path: str) -> str:
    """The command of the systemd that runs the brokerd with that socket: the system's, or a user's own."""
    return "systemctl --user" if path.startswith("/run/user/") else "systemctl"


def _way_in(path: str) -> str:
    """How to get permission to connect. It never advises joining a group that may do more than connect."""
    from grp import getgrnam

    try:
        # importing pathlib would cost milliseconds
        is_for_callers = os.stat(path).st_gid == getgrnam(CALLERS).gr_gid  # noqa: PTH116
    except (OSError, KeyError):
        is_for_callers = False
    if is_for_callers:
        return f"usermod -aG {CALLERS} USER, as root; then log in again"
    return "its mode and group decide who may (ls -l); see socket_group in [daemon], or SocketGroup= in brokerd.socket"


_WORDS = {errno.ENOENT: "no socket", errno.ECONNREFUSED: "nobody listens"}
