# Where clients of brokerd-proxy connect, and who they may be there.
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from brokerd.config.rules import read_selectors
from brokerd.core.access.policy import Selector
from brokerd.core.validation import ConfigError, expected

LISTEN = re.compile(r"(127(?:\.\d{1,3}){3}|\[::1\]):(\d{1,5})")
BY_USER = frozenset({"user", "uid"})  # what is known of who connects by TCP


@dataclass(frozen=True, slots=True)
class ProxyPlace:
    """Where callers connect: the path of a Unix socket, or a loopback address and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return self.path or (f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}")


def read_listen(text: str) -> ProxyPlace:
    """The key `listen`. Raises ConfigError."""
    found = LISTEN.fullmatch(text)
    if found is None or not 0 < int(found[2]) < 65_536:
        raise expected('a loopback address and a port, such as "127.0.0.1:8081" or "[::1]:8081"', text, key="listen")
    return ProxyPlace(host=found[1].strip("[]"), port=int(found[2]))


def read_callers(raw: Any, place: ProxyPlace | None) -> tuple[Selector, ...]:
    """The key `caller`. `place`: None if it is not known. Raises ConfigError."""
    callers = read_selectors(raw)
    for each in callers if place is not None and place.port else ():
        if not BY_USER.issuperset(n for n in each.__slots__ if getattr(each, n) is not None):
            words = 'at a TCP port only user and uid are known; use socket = "/run/…" to name anything else'
            raise ConfigError(words, key="caller")
    return callers
