# Finds all mistakes of a configuration at once: each table is read separately, and a table with a mistake is read again
# without the wrong key, to find the next mistake. A mistake that only follows from another one is left out.
from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from brokerd.core.validation import ConfigError, as_one, convert, expected, unknown_key

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
            others = error.others or _further(raw, read, error)
            self += [each.within(key, str(file)) for each in (error, *others)]
        return None


class Keys:
    """The keys of one table, read one by one, so that each mistake is named. `kind`: the struct of the table."""

    def __init__(self, raw: Any, kind: type[msgspec.Struct]) -> None:
        if not isinstance(raw, dict):
            raise expected("a table", raw)
        self.errors: list[ConfigError] = []
        self._values: dict[str, Any] = {}
        fields = {each.name: each for each in msgspec.structs.fields(kind)}
        unknown = sorted(raw.keys() - fields.keys())
        self.errors += [unknown_key(key, list(fields)) for key in unknown]
        meant = {close for key in unknown for close in difflib.get_close_matches(key, fields, n=1)}
        for key, field in fields.items():
            if key in raw:
                try:
                    self._values[key] = convert(raw[key], field.type, key)
                except ConfigError as error:
                    self.errors.append(error)
            elif field.required and key not in meant:
                self.errors.append(ConfigError("this key is required and missing", key=key))
            elif not field.required:
                self._values[key] = field.default

    def of(self, read: Callable[..., T], *keys: str) -> T | None:
        """What `read` makes of the values of these keys; None if one of them is wrong. A mistake is in the first key
        unless it names another."""
        if not self._values.keys() >= set(keys):
            return None
        try:
            return read(*(self._values[key] for key in keys))
        except ConfigError as error:
            self.errors.append(error if error.key else error.within(keys[0]))
        return None

    def end(self) -> None:
        """Raises ConfigError if there is a mistake; the others are in its `others`."""
        if self.errors:
            raise as_one(self.errors)


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
