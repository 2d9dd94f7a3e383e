# Key files: the key-encryption key as one line of text. A key file is never overwritten.
from __future__ import annotations

import base64
import os
from pathlib import Path

from brokerd.core.sealing import KEY_BYTES
from brokerd.edge.files.new_file import new_file

PREFIX = "brokerd-key-1:"  # says what the file is, and in which form


def generate() -> str:
    """A new key as a key file holds it, with its line break."""
    return f"{PREFIX}{base64.b64encode(os.urandom(KEY_BYTES)).decode()}\n"


def parse(text: str) -> bytes:
    """The key in a key file's text. Raises ValueError, which shows nothing of the text."""
    text = text.strip()
    try:
        key = base64.b64decode(text.removeprefix(PREFIX), validate=True) if text.startswith(PREFIX) else b""
    except ValueError:  # not base64, or not even ASCII
        key = b""
    if len(key) != KEY_BYTES:
        words = f'expected one line "{PREFIX}" and {KEY_BYTES} bytes in base64, found something else'
        raise ValueError(f"{words}; make a key with: brokerctl keygen FILE")
    return key


def create(path: Path) -> None:
    """Make a key file, 0600, durably. Raises FileExistsError and other OSErrors."""
    with new_file(path) as file:  # leaves no half key file
        file.write(generate().encode())
