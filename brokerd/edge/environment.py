# Secrets of the environment: taken once, and overwritten where they stood. The kernel shows those very bytes in
# /proc/PID/environ for as long as the process lives, and removing a variable leaves them there.
from __future__ import annotations

import ctypes
import os

from brokerd.core.secret import Secret

_libc = ctypes.CDLL(None)
_taken: dict[str, Secret] = {}  # they are nowhere else from then on


def take(name: str) -> Secret | None:
    """The variable's value, also when it was taken before; None where there is none. Raises UnicodeError for a value
    that is not text."""
    if value := os.environb.get(name.encode()):
        _overwrite(name)
        del os.environ[name]
        _taken[name] = Secret(value.decode())
    return _taken.get(name)


def _overwrite(name: str) -> None:
    """The bytes after `NAME=` become zero, wherever the C library's environ(7) points at such an entry."""
    entries = ctypes.POINTER(ctypes.c_void_p).in_dll(_libc, "environ")
    prefix = name.encode() + b"="
    number = 0
    while address := entries[number]:
        entry = ctypes.string_at(address)
        if entry.startswith(prefix):
            ctypes.memset(address + len(prefix), 0, len(entry) - len(prefix))
        number += 1
