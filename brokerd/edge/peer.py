# Who is at the other end of a connection, as the kernel says (law 9): SO_PEERCRED and SO_PEERGROUPS.
# What he may do is core/policy.py's matter.
from __future__ import annotations

import grp
import pwd
import socket
import struct
import time
from collections.abc import Iterable

import trio

from brokerd.core.policy import OVERFLOW_ID, Caller

SO_PEERGROUPS = 59
NAMES_LAST = 5.0  # seconds for which a name that was looked up is believed
_lookups = trio.CapacityLimiter(8)  # its own: a slow directory server must not hold up disk or DNS (law 13)


async def attest(sock: socket.socket) -> Caller:
    """The caller, with the names of his user and groups."""
    pid, uid, gid = _credentials(sock)
    gids = frozenset((gid, *_groups(sock)))
    window = int(time.monotonic() / NAMES_LAST)
    if (names := _known.get((uid, gids, window))) is None:
        names = await trio.to_thread.run_sync(_names, uid, gids, limiter=_lookups, abandon_on_cancel=True)
        if len(_known) > 1_000:
            _known.clear()
        _known[uid, gids, window] = names
    user, groups = names
    return Caller(pid, uid, gids, user, groups)


def uid_of(sock: socket.socket) -> int:
    """The caller's user, before anything else is known of him."""
    return _credentials(sock)[1]


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Pid, uid and gid as they were when the connection was made (unix(7), SO_PEERCRED)."""
    pid, uid, gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid, gid


_known: dict[tuple[int, frozenset[int], int], tuple[str | None, frozenset[str]]] = {}


def _groups(sock: socket.socket) -> Iterable[int]:
    """Supplementary groups as they were when the connection was made (SO_PEERGROUPS, Linux 4.13). Of a caller with
    more than Python's 1,024 bytes hold, and on older kernels, they cannot be read: then none of them match."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
    except OSError:
        return ()
    return struct.unpack(f"{len(data) // 4}I", data)


def _names(uid: int, gids: frozenset[int]) -> tuple[str | None, frozenset[str]]:
    return _user(uid), frozenset(filter(None, map(_group, gids - {OVERFLOW_ID})))


def _user(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OSError):
        return None


def _group(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, OSError):
        return None
