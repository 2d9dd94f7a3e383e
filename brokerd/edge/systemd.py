# What brokerd says to the service manager (sd_notify(3)). Without one, nothing happens.
from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence


def notify(*states: str, descriptors: Sequence[int] = ()) -> None:
    """Send states such as `READY=1`, and descriptors, to the manager that $NOTIFY_SOCKET names, if any."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        socket.send_fds(sock, ["\n".join(states).encode()], descriptors)
