# Finds all mistakes of a configuration at once: each table is read separately, and a table with a mistake is read again
# without the wrong key, to find the next mistake. A mistake that only follows from another one is left out.
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from brokerd.core.validation import ConfigError

T = TypeVar("T")
INDEPENDENT = ("expected ", "unknown key")  # how an error begins that no other mistake can cause


class Errors(list[ConfigError]):
    """The mistakes found so far. `unreadable`: some files could not be read, so their tables are not known."""

    def __init__(self) -> None:
        super().__init__()
        self.unreadable = False

    def tried(self, file: Path, key: str, raw: Any, read: Callable[[Any], T]) -> T | None:
        """What `read` makes of the table; None if it has mistakes, which are added."""
        try:
            return read(raw)
        except ConfigError as error:
            self += [each.within(key, str(file)) for each in (error, *_further(raw, read, error))]
        return None


def _further(raw: Any, read: Callable[[Any], object], error: ConfigError) -> list[ConfigError]:
    found: list[ConfigError] = []
    left = dict(raw) if isinstance(raw, dict) else {}
    while not error.file and (wrong := _first(error.key)) in left:
        del left[wrong]
        try:
            read(left)
            break
        except ConfigError as following:
            error = following
        if not error.message.startswith(INDEPENDENT) or _first(error.key) not in left:
            break
        found.append(error)
    return found


def _first(key: str) -> str:
    """The first key of a path."""
    return re.split(r"[.\[]", key, maxsplit=1)[0]
