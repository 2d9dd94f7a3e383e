# The listening sockets: from systemd, or our own at a path or at a TCP port.
from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
import struct
from collections.abc import Container, MutableMapping
from pathlib import Path

BACKLOG_TCP = 16  # the same of the port for metrics, where few programs ask
BACKLOG = 1024  # connections that may wait to be accepted; the kernel's somaxconn may allow fewer
UCRED = struct.Struct("iII")  # unix(7), SO_PEERCRED
FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)


class CannotListen(Exception):
    """The text says why, and what to do."""


def from_systemd(environ: MutableMapping[str, str], kinds: Container[str]) -> dict[str, socket.socket]:
    """The sockets that systemd passed to this process (sd_listen_fds(3)), by what they carry. FileDescriptorName= of
    their unit says which of the `kinds` that is; any other name stands for "rpc". Raises CannotListen."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    count, names = environ.get("LISTEN_FDS", "0"), environ.get("LISTEN_FDNAMES", "").split(":")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    found: dict[str, socket.socket] = {}
    for number in range(int(count)):
        kind = names[number] if number < len(names) and names[number] in kinds else "rpc"
        if kind in found:
            words = f"expected one socket from systemd for {kind}, found several; keep one ListenStream= in its unit"
            raise CannotListen(words)
        found[kind] = listener = socket.socket(fileno=FIRST_DESCRIPTOR + number)
        listener.setblocking(False)
        listener.set_inheritable(False)
        if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_STREAM:
            raise CannotListen("expected a Unix stream socket from systemd (ListenStream=/run/…)")
    return found


def turn_away(listener: socket.socket, words: bytes) -> None:
    """Send `words` to the callers that wait at systemd's socket, and close their connections. As long as one waits,
    systemd starts brokerd again and again."""
    with contextlib.suppress(OSError):  # no caller waits any more
        for _ in range(BACKLOG):
            caller, _ = listener.accept()
            with caller, contextlib.suppress(OSError):  # it has gone
                caller.setblocking(False)
                caller.send(words)


def holder(path: Path) -> tuple[int, int] | None:
    """Pid and uid of the process that listens there; None if there is none, or if we may not connect."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except OSError:
            return None
        pid, uid, _ = UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
        return pid, uid


def at(path: Path, mode: int, group: str | None, key: str = "[daemon] socket") -> socket.socket:
    """A new socket. One that a dead daemon left is replaced; one that answers is not. Raises CannotListen."""
    try:
        _make(path.parent)
        _remove_dead(path, key)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(listener, path, mode, group)
        except BaseException:
            listener.close()
            raise
    except LookupError:
        raise CannotListen(
            f"socket_group: there is no group {group} on this machine; name an existing group, or as root: "
            f"groupadd --system {group}"
        ) from None
    except OSError as error:
        words = error.strerror or "the path is too long for a socket (107 bytes)"  # Python's own, without an errno
        raise CannotListen(f"cannot listen at {path}: {words}; set another path: {key}") from None
    listener.setblocking(False)
    return listener


def on_tcp(host: str, port: int, key: str, backlog: int = BACKLOG_TCP) -> socket.socket:
    """A new socket at an IP address and a port. Raises CannotListen."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the brokerd before may linger
        if listener.family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        why = error.strerror or str(error)
        remedy = "stop the program that uses the port, or" if error.errno == errno.EADDRINUSE else "to fix it,"
        words = f"cannot listen at port {port} of {host}: {why}; {remedy} set another address: {key}"
        raise CannotListen(words) from None
    return listener


def _make(folder: Path) -> None:
    """Others must be able to enter the folder; the mode of the socket decides who may connect."""
    before = os.umask(0o022)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    finally:
        os.umask(before)


def _bind(listener: socket.socket, path: Path, mode: int, group: str | None) -> None:
    before = os.umask(0o177)  # nobody can connect before mode and group are set
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    if group is not None:
        try:
            shutil.chown(path, group=group)
        except PermissionError as error:
            words = f"socket_group: the socket cannot be given to the group {group}: {error.strerror}"
            raise CannotListen(f"{words}; name a group that brokerd's user is in, or remove the key") from None
    path.chmod(mode)
    listener.listen(BACKLOG)


def _remove_dead(path: Path, key: str) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotListen(f"{path} exists and is no socket; set another path: {key}")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its queue is full, so a process listens
    words = f"if it is a brokerd, stop it, or set another path: {key}"
    raise CannotListen(f"another process listens at {path}; {words}")
