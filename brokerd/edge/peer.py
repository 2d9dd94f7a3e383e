# Who is at the other end of a connection, as the kernel says (law 9): SO_PEERCRED, SO_PEERGROUPS, a pidfd that pins the
# process, and SCM_CREDENTIALS on whatever it sends. What he may do is core/policy.py's matter.
from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import trio

from brokerd.core.policy import OVERFLOW_ID, Caller
from brokerd.edge.pidfds import ids_of, is_foreign
from brokerd.edge.process import Process

SO_PEERGROUPS = 59
SO_PEERPIDFD = 77  # Linux 6.5
UCRED = struct.Struct("iII")  # pid, uid, gid (unix(7))
ROOM = socket.CMSG_SPACE(
    UCRED.size
)  # for credentials, and no descriptor: the kernel drops those for which there is none
NAMES_LAST = 5.0  # seconds for which a name that was looked up is believed
_lookups = trio.CapacityLimiter(8)  # its own: a slow directory server must not hold up disk or DNS (law 13)


class NotAttested(Exception):
    """What came is not from the process that made the connection; the text says what is wrong."""


class Peer:
    """The process that made a connection, for as long as that lasts. Raises OSError where it is gone."""

    def __init__(self, sock: socket.socket) -> None:
        demand_credentials(sock)
        pid, uid, gid = _credentials(sock)
        pidfd = _pidfd(sock, pid)
        try:
            self.process = Process(Caller(pid, uid, frozenset((gid, *_groups(sock))), foreign=is_foreign(pidfd)), pidfd)
        except OSError:
            os.close(pidfd)
            raise
        self._sock = sock
        self._seen: list[tuple[int, int, bytes]] | None = None  # the credentials that were found right, to the byte

    async def learn_names(self) -> None:
        """Look up the names of its user and groups."""
        caller = self.process.caller
        user, groups = await names_of(caller.uid, caller.gids)
        self.process.caller = replace(caller, user=user, groups=groups)

    def receive(self, size: int) -> bytes:
        """What it has sent, b"" at the end. Raises BlockingIOError; NotAttested where another process has sent it, or
        descriptors came with it."""
        data, found, flags, _ = self._sock.recvmsg(size, ROOM)
        if flags & socket.MSG_CTRUNC:
            raise NotAttested("brokerd takes no descriptors")
        if found != self._seen and data:
            if [UCRED.unpack(each)[0] for level, kind, each in found if _is_credentials(level, kind, each)] != [
                self.process.caller.pid
            ]:
                words = "this connection was made by another process; each process makes its own, also after a fork"
                raise NotAttested(words)
            self._seen = found
        return data

    def lives(self) -> bool:
        """Whether the process that made the connection is still there: what is sent now would else reach who has
        inherited or been handed the socket."""
        return self.process.lives()

    def close(self) -> None:
        self.process.close()


def demand_credentials(sock: socket.socket) -> None:
    """Have the kernel say who sends: on a listener, of all connections to come."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def uid_of(sock: socket.socket) -> int:
    """The caller's user, before anything else is known of him."""
    return _credentials(sock)[1]


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Pid, uid and gid as they were when the connection was made (unix(7), SO_PEERCRED)."""
    pid, uid, gid = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return pid, uid, gid


def _is_credentials(level: int, kind: int, data: bytes) -> bool:
    return (level, kind, len(data)) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, UCRED.size)


def _pidfd(sock: socket.socket, pid: int) -> int:
    """The process that connected, pinned. Before Linux 6.5 the one that has its number now: see docs."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT or pid <= 0:
            raise
        return os.pidfd_open(pid)


def _groups(sock: socket.socket) -> Iterable[int]:
    """Supplementary groups as they were when the connection was made (SO_PEERGROUPS, Linux 4.13). Of a caller with
    more than Python's 1,024 bytes hold, and on older kernels, they cannot be read: then none of them match."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
    except OSError:
        return ()
    return struct.unpack(f"{len(data) // 4}I", data)


class SystemProcesses:
    """Processes and users of this machine."""

    async def of_pid(self, pid: int) -> Process:
        """As if it had connected now. To be closed. Raises OSError."""
        pidfd = os.pidfd_open(pid)
        try:
            uid, gids = await trio.to_thread.run_sync(_ids, pid, pidfd, limiter=_lookups)
            user, groups = await names_of(uid, gids)
            return Process(Caller(pid, uid, gids, user, groups, is_foreign(pidfd)), pidfd)
        except BaseException:
            os.close(pidfd)
            raise

    async def of_user(self, name: str) -> Caller | None:
        def look_up() -> tuple[int, frozenset[int]] | None:
            try:
                found = pwd.getpwnam(name)
            except (KeyError, OSError, ValueError):  # ValueError: no user's name has a NUL
                return None
            return found.pw_uid, frozenset(os.getgrouplist(name, found.pw_gid))

        known = await trio.to_thread.run_sync(look_up, limiter=_lookups, abandon_on_cancel=True)
        if known is None:
            return None
        _, groups = await names_of(*known)
        return Caller(0, *known, name, groups)


def _ids(pid: int, pidfd: int) -> tuple[int, frozenset[int]]:
    """The effective user, as SO_PEERCRED has it, and all groups of a process. Where /proc hides it, those that the user
    has when he logs in."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except FileNotFoundError:
        uid, gid = ids_of(pidfd)
        name = _user(uid)
        return uid, frozenset((gid,) if name is None else os.getgrouplist(name, gid))
    said = dict(line.partition(":")[::2] for line in text.splitlines())
    gids = said["Gid"].split()[1], *said["Groups"].split()
    return int(said["Uid"].split()[1]), frozenset(map(int, gids))


# -- names


_known: dict[tuple[int, frozenset[int], int], tuple[str | None, frozenset[str]]] = {}


async def names_of(uid: int, gids: frozenset[int]) -> tuple[str | None, frozenset[str]]:
    """The names of a user and groups; what has none is left out."""
    window = int(time.monotonic() / NAMES_LAST)
    if (names := _known.get((uid, gids, window))) is None:
        names = await trio.to_thread.run_sync(_names, uid, gids, limiter=_lookups, abandon_on_cancel=True)
        if len(_known) > 1_000:
            _known.clear()
        _known[uid, gids, window] = names
    return names


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
