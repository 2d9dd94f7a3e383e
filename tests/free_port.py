# Ports for servers that are told theirs before they listen. The kernel gives ports of its own range to every connection
# that anybody makes, and to who asks for any port, so one may be taken until the server listens. These are below.
from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 20_000
_random = random.SystemRandom()  # tests seed the other one


def free_port() -> int:
    """At 127.0.0.1."""
    end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = _random.randrange(LOWEST, max(end, LOWEST + 10_000))
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            pass
