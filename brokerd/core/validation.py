# Turns the values of a TOML file into typed values. An error names the file, the key, what was expected and what was
# found. It knows neither the file format nor the types.
from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from typing import Any, TypeVar, get_type_hints

import msgspec

T = TypeVar("T")


class ConfigError(Exception):
    """A mistake in a file that an operator writes. `str()` is `file: key: what is wrong and what would be right`.
    `others`: further mistakes that were found with it."""

    def __init__(self, message: str, *, key: str = "", file: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.file = file
        self.others: tuple[ConfigError, ...] = ()

    def within(self, key: str = "", file: str = "") -> ConfigError:
        """The same error, with the key of the table around it, or its file."""
        if self.file:  # the error is about a file of its own
            return self
        path = f"{key}{'' if self.key.startswith('[') or not self.key or not key else '.'}{self.key}"
        return ConfigError(self.message, key=path, file=file)

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.file, self.key, self.message) if part)
        return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)  # always one line


def as_one(errors: Sequence[ConfigError]) -> ConfigError:
    """The first error, which has the others with it. There is at least one."""
    errors[0].others = tuple(errors[1:])
    return errors[0]


def expected(what: str, found: object, *, key: str = "", show: bool = True) -> ConfigError:
    """Says what was expected and what was found. `show=False` hides a value that may be a secret."""
    return ConfigError(f"expected {what}, found {describe(found) if show else kind(found)}", key=key)


def check_one_of(found: str, known: Collection[str], key: str) -> None:
    """Raises ConfigError."""
    if found not in known:
        raise expected(f"one of {', '.join(known)}", found, key=key)


def convert(raw: object, expected_type: type[T], key: str = "", *, secret: bool = False) -> T:
    """`raw` as the type; raises ConfigError. `secret`: errors show the kind of what was found, not its value."""
    try:
        return msgspec.convert(raw, expected_type, strict=True, dec_hook=_hook)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, expected_type, secret).within(key) from None


def unknown_key(name: str, known: list[str], key: str = "") -> ConfigError:
    """The error for a key that brokerd does not know: most likely it is misspelt."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(sorted(known))}"
    shown = name or '""'  # as TOML writes it
    return ConfigError(f"unknown key; {hint}", key=f"{key}.{shown}" if key else shown)


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


def _hook(expected_type: type, raw: object) -> object:
    """Types that know how to read themselves have a classmethod `read`."""
    reader = getattr(expected_type, "read", None)
    if reader is None:
        raise NotImplementedError(expected_type)
    return reader(raw)


def _explain(text: str, raw: object, expected_type: Any, secret: bool) -> ConfigError:
    said = PLACED.fullmatch(text)
    assert said is not None
    message, (steps, found, expected_type) = said[1], _located(said[2] or "", raw, expected_type)
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    secret = secret or (bool(steps) and steps[0] in SECRETIVE)
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL):
        return unknown_key(match[1], _fields(expected_type), path)
    if match := re.fullmatch(r"Object missing required field `(.*)`", message):
        return ConfigError("this key is required and missing", key=f"{path}.{match[1]}" if path else match[1])
    if match := re.fullmatch(r"Expected `(.*?)`(?: of (.*?))?, got `(.*)`", message):
        names = " or ".join(EXPECTED.get(each, each) for each in match[1].split(" | ") if each != "null")
        return expected(names + (f" of {match[2]}" if match[2] else ""), found, key=path, show=not secret)
    if match := re.fullmatch(r"Expected (.*)", message):
        return expected(match[1].replace("`", ""), found, key=path, show=not secret)
    if match := re.fullmatch(r"Invalid enum value (.*)", message, re.DOTALL):
        return expected(
            "one of " + ", ".join(str(each.value) for each in expected_type), found, key=path, show=not secret
        )
    return ConfigError(message, key=path)


def _located(path: str, raw: Any, expected_type: Any) -> tuple[list[str | int], object, Any]:
    """The steps of a path as msgspec writes it, the value there, and the struct or enum that was expected there."""
    steps: list[str | int] = []
    for name, index, table in STEPS.findall(path):
        step: str | int = name or (0 if table else int(index))
        if table:  # msgspec does not say which of the table's values: it is the first that does not fit
            step = next(each for each, value in raw.items() if not _fits({each: value}, expected_type))
        steps.append(step)
        raw = raw[step]
        expected_type = get_type_hints(_structured(expected_type))[name] if name else _structured(expected_type)
    return steps, raw, _structured(expected_type)


def _fits(raw: object, expected_type: Any) -> bool:
    try:
        msgspec.convert(raw, expected_type, strict=True, dec_hook=_hook)
    except msgspec.ValidationError:
        return False
    return True


def _structured(expected_type: Any) -> Any:
    """The struct or enum inside of a type such as `list[T] | None`."""
    for argument in getattr(expected_type, "__args__", ()):
        inner = _structured(argument)
        if hasattr(inner, "__struct_fields__") or hasattr(inner, "__members__"):
            return inner
    return expected_type


def _fields(expected_type: Any) -> list[str]:
    return list(getattr(expected_type, "__struct_encode_fields__", ()))


PLACED = re.compile(r"(.*?)(?: - at `\$([^`]*)`)?", re.DOTALL)  # an error of msgspec's, and its path if it has one
STEPS = re.compile(r"\.(\w+)|\[(\d+)\]|(\[\.\.\.\])")
SECRETIVE = ("credentials", "proxy", "key", "request")  # keys whose values are never quoted in errors
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
}
