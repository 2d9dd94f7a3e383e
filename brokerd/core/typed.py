# Turns what a TOML file says into typed values, so that an error names its file, its key, what was expected and what
# was found. It knows no file format and none of the types.
from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

import msgspec

T = TypeVar("T")


class ConfigError(Exception):
    """A mistake in a file that an operator writes. `str()` is `file: key: what is wrong and what would be right`."""

    def __init__(self, message: str, *, key: str = "", file: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.file = file

    def within(self, key: str = "", file: str = "") -> ConfigError:
        """The same error, seen from further out."""
        if self.file:  # what it is about lies in a file of its own
            return self
        path = f"{key}{'' if self.key.startswith('[') or not self.key or not key else '.'}{self.key}"
        return ConfigError(self.message, key=path, file=file)

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.key, self.message) if part)


def expected(what: str, found: object, *, key: str = "", show: bool = True) -> ConfigError:
    """The usual sentence: what was expected and what was found. `show=False` hides a value that may be a secret."""
    return ConfigError(f"expected {what}, found {describe(found) if show else kind(found)}", key=key)


def convert(raw: object, wanted: type[T], key: str = "", *, secret: bool = False) -> T:
    """`raw` as the type; raises ConfigError. `secret`: errors show the kind of what was found, not its value."""
    try:
        return msgspec.convert(raw, wanted, strict=True, dec_hook=_hook)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, wanted, secret).within(key) from None


def unknown_key(name: str, known: list[str], key: str = "") -> ConfigError:
    """Nobody reads this key: most likely it is misspelt."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(sorted(known))}"
    return ConfigError(f"unknown key; {hint}", key=f"{key}.{name}" if key else name)


def kind(value: object) -> str:
    """The kind of a TOML value, for people."""
    for types, name in KINDS:
        if isinstance(value, types):
            return name
    return "a date or time"


def describe(value: object) -> str:
    """A TOML value for people: short ones as they are, others by kind."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str() if len(value) <= 60:
            return '"' + value.replace('"', '\\"') + '"'
        case list() if len(value) == 0:
            return "an empty array"
        case _:
            return kind(value)


def _hook(wanted: type, raw: object) -> object:
    """Types that know how to read themselves have a classmethod `read`."""
    reader = getattr(wanted, "read", None)
    if reader is None:
        raise NotImplementedError(wanted)
    return reader(raw)


def _explain(text: str, raw: object, wanted: Any, secret: bool) -> ConfigError:
    message, _, path = text.partition(" - at `$")
    path = _named(path.rstrip("`").lstrip("."), raw, wanted)
    found = _at(raw, path)
    secret = secret or re.split(r"[.\[]", path)[0] in SECRETIVE
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        return unknown_key(match[1], _fields(_type_at(wanted, path)), path)
    if match := re.fullmatch(r"Object missing required field `(.*)`", message):
        return ConfigError("this key is required and missing", key=f"{path}.{match[1]}" if path else match[1])
    if match := re.fullmatch(r"Expected `(.*?)`(?: of (.*?))?, got `(.*)`", message):
        names = " or ".join(EXPECTED.get(each, each) for each in match[1].split(" | "))
        return expected(names + (f" of {match[2]}" if match[2] else ""), found, key=path, show=not secret)
    if match := re.fullmatch(r"Expected (.*)", message):
        return expected(match[1].replace("`", ""), found, key=path, show=not secret)
    if match := re.fullmatch(r"Invalid enum value (.*)", message):
        choices = [str(each.value) for each in _type_at(wanted, path)]
        return expected("one of " + ", ".join(choices), found, key=path, show=not secret)
    return ConfigError(message, key=path)


def _named(path: str, raw: object, wanted: Any) -> str:
    """The path with the names of the tables that msgspec calls `[...]`: of each the first that does not fit."""
    while "[...]" in path:
        before, _, after = path.partition("[...]")
        tables, of_type = _at(raw, before), _annotation_at(wanted, before)
        name = next((name for name, value in dict(tables).items() if not _fits({name: value}, of_type)), "?")  # type: ignore[call-overload]
        path = f"{before}.{name}{after}".lstrip(".")
    return path


def _fits(raw: object, wanted: Any) -> bool:
    try:
        msgspec.convert(raw, wanted, strict=True, dec_hook=_hook)
    except msgspec.ValidationError:
        return False
    return True


def _at(raw: object, path: str) -> object:
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        if name and isinstance(raw, Mapping):
            raw = raw.get(name)
        elif index and isinstance(raw, list):
            raw = raw[int(index)]
    return raw


def _annotation_at(wanted: Any, path: str) -> Any:
    """The type that a struct's field at the path was declared with."""
    for name in re.findall(r"[^.\[\]]+", path):
        fields = get_type_hints(_structured(wanted)) if hasattr(_structured(wanted), "__struct_fields__") else {}
        if name in fields:
            wanted = fields[name]
        elif not name.isdigit():  # the name of a table in a table of tables
            wanted = _structured(wanted)
    return wanted


def _type_at(wanted: Any, path: str) -> Any:
    return _structured(_annotation_at(wanted, path))


def _structured(wanted: Any) -> Any:
    """The struct or enum inside of a type such as `list[T] | None`."""
    for argument in getattr(wanted, "__args__", ()):
        inner = _structured(argument)
        if hasattr(inner, "__struct_fields__") or hasattr(inner, "__members__"):
            return inner
    return wanted


def _fields(wanted: Any) -> list[str]:
    return list(getattr(wanted, "__struct_encode_fields__", ()))


SECRETIVE = ("credentials", "proxy", "key")  # keys whose values are not quoted in errors, however they are mistaken
KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (str, "text"),
    ((int, float), "a number"),
    (list, "an array"),
    (dict, "a table"),
    (type(None), "nothing"),
)
EXPECTED = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "an array",
    "object": "a table",
    "null": "nothing",
}
