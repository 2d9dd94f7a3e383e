# The listening socket: systemd's, or one of our own at a path. Nothing of what it carries is known here.
from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import struct
from collections.abc import MutableMapping
from pathlib import Path

BACKLOG = 1024  # connections that may wait to be accepted; the kernel's somaxconn may allow fewer
UCRED = struct.Struct("iII")  # unix(7), SO_PEERCRED
FIRST_DESCRIPTOR = 3  # sd_listen_fds(3)


class CannotListen(Exception):
    """The text says why, and what to do."""


def from_systemd(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The socket that systemd passed to this very process (sd_listen_fds(3)), if it passed one."""
    if environ.get("LISTEN_PID") != str(os.getpid()) or environ.get("LISTEN_FDS", "0") == "0":
        return None
    if environ["LISTEN_FDS"] != "1":
        raise CannotListen(f"expected one socket from systemd, found {environ['LISTEN_FDS']}; keep one ListenStream=")
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(name, None)
    listener = socket.socket(fileno=FIRST_DESCRIPTOR)
    listener.setblocking(False)
    listener.set_inheritable(False)
    if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_STREAM:
        raise CannotListen("expected a Unix stream socket from systemd (ListenStream=/run/…)")
    return listener


def turn_away(listener: socket.socket, words: bytes) -> None:
    """Tell those who wait at systemd's socket that nobody comes, and let them go: as long as one waits, systemd starts
    us again and again."""
    with contextlib.suppress(OSError):  # nobody waits any more
        for _ in range(BACKLOG):
            caller, _ = listener.accept()
            with caller, contextlib.suppress(OSError):  # he is gone
                caller.setblocking(False)
                caller.send(words)


def holder(path: Path) -> tuple[int, int] | None:
    """Pid and uid of who listens there; None where nobody does, or where we may not connect."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except OSError:
            return None
        pid, uid, _ = UCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
        return pid, uid


def at(path: Path, mode: int, group: str | None) -> socket.socket:
    """A socket of our own. One that a dead daemon left is replaced; one that answers is not. Raises CannotListen."""
    try:
        _make(path.parent)
        _remove_dead(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _bind(listener, path, mode, group)
        except BaseException:
            listener.close()
            raise
    except LookupError:
        raise CannotListen(
            f"socket_group: there is no group {group} on this machine; name one that is there, or as root: "
            f"groupadd --system {group}"
        ) from None
    except OSError as error:
        words = error.strerror or "the path is too long for a socket (107 bytes)"  # Python's own, without an errno
        raise CannotListen(f"cannot listen at {path}: {words}; set another path: [daemon] socket") from None
    listener.setblocking(False)
    return listener


def _make(folder: Path) -> None:
    """Others have to come through it to the socket, whose own mode says who may connect."""
    before = os.umask(0o022)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    finally:
        os.umask(before)


def _bind(listener: socket.socket, path: Path, mode: int, group: str | None) -> None:
    before = os.umask(0o177)  # nobody connects before mode and group are what they should be
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    if group is not None:
        try:
            shutil.chown(path, group=group)
        except PermissionError as error:
            words = f"socket_group: the socket cannot be given to the group {group}: {error.strerror}"
            raise CannotListen(f"{words}; name a group that brokerd's user is in, or leave it out") from None
    path.chmod(mode)
    listener.listen(BACKLOG)


def _remove_dead(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CannotListen(f"{path} is there and is no socket; set another path: [daemon] socket")
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
            pass  # its queue is full: somebody listens
    words = "stop that brokerd if it is one, or set another path: [daemon] socket"
    raise CannotListen(f"somebody listens at {path} already; {words}")
