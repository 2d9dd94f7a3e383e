# Secrets in environment variables: each is read once, then overwritten in memory. /proc/PID/environ shows these bytes
# as long as the process lives, and removing a variable does not erase them.
from __future__ import annotations

import ctypes
import os

from brokerd.core.secret import Secret

_libc = ctypes.CDLL(None)
_taken: dict[str, Secret] = {}  # the only copies


def take(name: str) -> Secret | None:
    """The variable's value, also if it was taken before; None: there is no such variable. Raises UnicodeError if the
    value is not text."""
    if value := os.environb.get(name.encode()):
        _overwrite(name)
        del os.environ[name]
        _taken[name] = Secret(value.decode())
    return _taken.get(name)


def _overwrite(name: str) -> None:
    """Set the bytes after `NAME=` to zero in every such entry of the C library's environ(7)."""
    entries = ctypes.POINTER(ctypes.c_void_p).in_dll(_libc, "environ")
    prefix = name.encode() + b"="
    number = 0
    while address := entries[number]:
        entry = ctypes.string_at(address)
        if entry.startswith(prefix):
            ctypes.memset(address + len(prefix), 0, len(entry) - len(prefix))
        number += 1
