# The process at the other end of a connection, as the kernel describes it (law 9): SO_PEERCRED, SO_PEERGROUPS, a pidfd
# that pins the process, and SCM_CREDENTIALS with every message. core/access/policy.py decides what it may do.
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

from brokerd.core.access.policy import OVERFLOW_ID, Caller
from brokerd.edge.peer import known_processes
from brokerd.edge.peer.pidfds import ids_of, is_foreign
from brokerd.edge.peer.process import PeerProcess
from brokerd.edge.system.thread_limit import ThreadLimit

SO_PEERGROUPS = 59
SO_PEERPIDFD = 77  # Linux 6.5
UCRED = struct.Struct("iII")  # pid, uid, gid (unix(7))
ROOM = socket.CMSG_SPACE(UCRED.size)  # for credentials and no descriptor: the kernel drops descriptors without room
CUT_OFF = int(socket.MSG_CTRUNC)  # an int: the arithmetic of enums takes microseconds
NAMES_LAST = 5.0  # seconds for which a name that was looked up is believed
_lookups = ThreadLimit(8)  # of its own: a slow directory server must not delay disk or DNS (law 13)


class NotAttested(Exception):
    """A message is not from the process that made the connection; the text says what is wrong."""


class Peer:
    """The process that made a connection. Raises OSError if the process has ended."""

    def __init__(self, sock: socket.socket) -> None:
        demand_credentials(sock)
        pid, uid, gid = _credentials(sock)
        pidfd = _pidfd(sock, pid)
        try:
            known = known_processes.known(pidfd)
            gids = frozenset((gid, *_groups(sock)))
            names = known_names(uid, gids)
            self.has_names = names is not None
            user, groups = names or (None, frozenset())
            caller = known.as_before(Caller(pid, uid, gids, user, groups, foreign=known.foreign))
            self.process = PeerProcess(caller, pidfd, known)
        except OSError:
            os.close(pidfd)
            raise
        self._sock = sock
        self._seen: list[tuple[int, int, bytes]] | None = None  # the last credentials that were checked

    async def learn_names(self) -> None:
        """Look up the names of the process's user and groups, if they were not looked up a moment ago."""
        process, caller = self.process, self.process.caller
        user, groups = await names_of(caller.uid, caller.gids)
        self.has_names = True
        if (user, groups) != (caller.user, caller.groups):
            process.caller = process.known.as_before(replace(caller, user=user, groups=groups))

    def receive(self, size: int) -> bytes:
        """The next bytes; b"" at the end. Raises BlockingIOError, and NotAttested if another process sent them or
        descriptors came with them."""
        data, found, flags, _ = self._sock.recvmsg(size, ROOM)
        self._check(len(data), found, flags)
        return data

    def receive_into(self, room: memoryview) -> int:
        """The same into `room`; how many bytes came, 0 at the end."""
        size, found, flags, _ = self._sock.recvmsg_into([room], ROOM)
        self._check(size, found, flags)
        return size

    def _check(self, size: int, found: list[tuple[int, int, bytes]], flags: int) -> None:
        if flags & CUT_OFF:
            raise NotAttested("brokerd accepts no file descriptors")
        if found != self._seen and size:
            if [UCRED.unpack(each)[0] for level, kind, each in found if _is_credentials(level, kind, each)] != [
                self.process.caller.pid
            ]:
                words = "this connection was made by another process; each process makes its own, also after a fork"
                raise NotAttested(words)
            self._seen = found

    def lives(self) -> bool:
        """Whether the process that made the connection still lives. If it does not, an answer would reach another
        process, one that inherited or was sent the socket."""
        return self.process.lives()

    def close(self) -> None:
        self.process.close()


def demand_credentials(sock: socket.socket) -> None:
    """Have the kernel add the sender's credentials to every message; on a listener, for all later connections."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)


def uid_of(sock: socket.socket) -> int:
    """The caller's user; it can be read before anything else about the caller."""
    return _credentials(sock)[1]


def _credentials(sock: socket.socket) -> tuple[int, int, int]:
    """Pid, uid and gid as they were when the connection was made (unix(7), SO_PEERCRED)."""
    pid, uid, gid = UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return pid, uid, gid


def _is_credentials(level: int, kind: int, data: bytes) -> bool:
    return (level, kind, len(data)) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, UCRED.size)


def _pidfd(sock: socket.socket, pid: int) -> int:
    """A pidfd of the process that connected. Before Linux 6.5: of the process that has this pid now (see
    docs/threat-model.md)."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT or pid <= 0:
            raise
        return os.pidfd_open(pid)


def _groups(sock: socket.socket) -> Iterable[int]:
    """Supplementary groups as they were when the connection was made (SO_PEERGROUPS, Linux 4.13). On older kernels, and
    for a caller with more groups than fit into 1,024 bytes (Python's limit), they cannot be read. Then none match."""
    try:
        data = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
    except OSError:
        return ()
    return struct.unpack(f"{len(data) // 4}I", data)


class SystemProcesses:
    """Processes and users of this machine."""

    async def of_pid(self, pid: int) -> PeerProcess:
        """The process as if it connected now. The caller closes it. Raises OSError."""
        pidfd = os.pidfd_open(pid)
        try:
            uid, gids = await _lookups.run(lambda: _ids(pid, pidfd), abandon=False)
            user, groups = await names_of(uid, gids)
            return PeerProcess(Caller(pid, uid, gids, user, groups, is_foreign(pidfd)), pidfd)
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

        known = await _lookups.run(look_up)
        if known is None:
            return None
        _, groups = await names_of(*known)
        return Caller(0, *known, name, groups)


def _ids(pid: int, pidfd: int) -> tuple[int, frozenset[int]]:
    """The effective user, as in SO_PEERCRED, and all groups of a process. If /proc hides the process, the groups are
    those that the user has after a login."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except FileNotFoundError:
        uid, gid = ids_of(pidfd)
        name = _user(uid)
        return uid, frozenset((gid,) if name is None else os.getgrouplist(name, gid))
    fields = dict(line.partition(":")[::2] for line in text.splitlines())
    gids = fields["Gid"].split()[1], *fields["Groups"].split()
    return int(fields["Uid"].split()[1]), frozenset(map(int, gids))


# -- names


_known: dict[tuple[int, frozenset[int], int], tuple[str | None, frozenset[str]]] = {}


def known_names(uid: int, gids: frozenset[int]) -> tuple[str | None, frozenset[str]] | None:
    """The same, if they were looked up a moment ago."""
    return _known.get((uid, gids, int(time.monotonic() / NAMES_LAST)))


async def names_of(uid: int, gids: frozenset[int]) -> tuple[str | None, frozenset[str]]:
    """The names of a user and its groups; groups without a name are left out."""
    window = int(time.monotonic() / NAMES_LAST)
    if (names := _known.get((uid, gids, window))) is None:
        names = await _lookups.run(lambda: _names(uid, gids))
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
