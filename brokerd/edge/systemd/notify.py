# Sends states to the service manager (sd_notify(3)). Without a service manager it does nothing.
from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence


def notify(*states: str, descriptors: Sequence[int] = ()) -> None:
    """Send states such as `READY=1`, and descriptors, to the service manager at $NOTIFY_SOCKET, if there is one."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        socket.send_fds(sock, ["\n".join(states).encode()], descriptors)


def beats(environ: Mapping[str, str]) -> float | None:
    """Seconds between two WATCHDOG=1, three in the interval that systemd asks for; None: it asks for none."""
    text, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
    return int(text) / 3e6 if text.isdigit() and int(text) and pid in (None, str(os.getpid())) else None
