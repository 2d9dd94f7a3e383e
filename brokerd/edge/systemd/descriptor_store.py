# Data that systemd keeps for this service from one process to the next (its file descriptor store, sd_notify(3)): small
# pieces, each in a sealed memory file. edge/store/unstored.py decides what they contain.
from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, MutableMapping

from brokerd.edge.systemd import notify as systemd
from brokerd.edge.systemd.socket import FIRST_DESCRIPTOR

PREFIX = "unstored-"  # of the names; sockets have other names
LONGEST = 32 * 1024 * 1024  # bytes; a record with many tokens of 256 KiB has a third of that
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class DescriptorStore:
    """`found`: the pieces that the process before left, by name. systemd drops them when the service is stopped."""

    def __init__(self, found: dict[str, bytes], notify: Callable[..., None] = systemd.notify) -> None:
        self.found = found
        self._notify = notify

    def keep(self, piece: bytes) -> str:
        """Give a piece to systemd. Returns its name there. Raises OSError."""
        name = PREFIX + secrets.token_hex(8)
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as file:
                file.write(piece)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
            self._notify("FDSTORE=1", f"FDNAME={name}", descriptors=(descriptor,))
        finally:
            os.close(descriptor)
        return name

    def drop(self, name: str) -> None:
        self._notify("FDSTOREREMOVE=1", f"FDNAME={name}")


def from_systemd(environ: MutableMapping[str, str]) -> DescriptorStore | None:
    """The pieces that systemd passed to this process besides sockets (sd_listen_fds(3)). `environ` is changed as if
    only sockets had been passed. None if no service manager listens."""
    if not environ.get("NOTIFY_SOCKET"):
        return None
    found: dict[str, bytes] = {}
    if environ.get("LISTEN_PID") == str(os.getpid()):
        names = environ.get("LISTEN_FDNAMES", "").split(":")
        while names and names[-1].startswith(PREFIX):  # systemd passes sockets first
            name, descriptor = names.pop(), FIRST_DESCRIPTOR + len(names)
            with contextlib.suppress(OSError):
                found[name] = os.pread(descriptor, LONGEST, 0)
            os.close(descriptor)
        environ["LISTEN_FDS"], environ["LISTEN_FDNAMES"] = str(len(names)), ":".join(names)
    return DescriptorStore(found)
