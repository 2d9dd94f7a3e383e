# All mistakes of a configuration at once: each table is read by itself, and one that is wrong is read again without the
# key that was, to find the next. What only follows from a mistake that was named is left out.
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from brokerd.core.typed import ConfigError

T = TypeVar("T")
OF_ITS_OWN = ("expected ", "unknown key")  # how an error begins that no other one can have caused


class Errors(list[ConfigError]):
    """What was found so far. `unreadable`: files that could not be read, so that what they say is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.unreadable = False

    def tried(self, file: Path, key: str, raw: Any, read: Callable[[Any], T]) -> T | None:
        """What `read` makes of the table; None where that has mistakes, which are kept."""
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
        if not error.message.startswith(OF_ITS_OWN) or _first(error.key) not in left:
            break
        found.append(error)
    return found


def _first(key: str) -> str:
    """Of a path, the key that stands in the table itself."""
    return re.split(r"[.\[]", key, maxsplit=1)[0]
