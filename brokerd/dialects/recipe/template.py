# Placeholders in recipes: `{name}`, `{name?}`, `{access_token.id}`. They name values; dialect.py chooses the values.
from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from brokerd.core.secret import Secret

PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*(?:\.id)?)(\??)\}")
Values = Mapping[str, object]  # text, Secret, number, boolean, or a list of text


class MissingValue(Exception):
    """A placeholder without `?` has no value."""


def names(template: object) -> Iterator[tuple[str, bool]]:
    """Every placeholder in a template (text, or tables and arrays of it): its name, and whether it may be missing."""
    match template:
        case str():
            yield from ((match[1], bool(match[2])) for match in PLACEHOLDER.finditer(template))
        case dict():
            for value in template.values():
                yield from names(value)
        case list():
            for value in template:
                yield from names(value)


def stray_brace(template: str) -> bool:
    """Whether the text has braces that are no placeholder, most likely a misspelt one."""
    return bool(re.search(r"[{}]", PLACEHOLDER.sub("", template)))


def fill(template: object, values: Values) -> object:
    """The template with its placeholders filled. A field of a table is left out if its `{name?}` has no value. A
    placeholder that stands alone keeps the type of its value. Raises MissingValue."""
    match template:
        case str():
            return _fill_text(template, values)
        case dict():
            filled = {key: _or_left_out(value, values) for key, value in template.items()}
            return {key: value for key, value in filled.items() if value is not LEFT_OUT}
        case list():
            return [value for each in template if (value := _or_left_out(each, values)) is not LEFT_OUT]
        case _:
            return template


def fill_path(template: str, values: Values) -> str:
    """A path with every placeholder encoded as one segment (RFC 3986 §3.3). Raises MissingValue, also for the segments
    `.` and `..`, which would lead elsewhere."""

    filled = PLACEHOLDER.sub(lambda match: quote(flat(_value(match[1], values)), safe=""), template)
    if {".", ".."} & set(filled.split("/")):
        raise MissingValue("a placeholder in the path has the value . or .., which names another path")
    return filled


def flat(value: object) -> str:
    """A value as text: lists joined by spaces (RFC 6749 §3.3 writes scopes so), booleans as JSON writes them."""
    match value:
        case Secret():
            return value.reveal()
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return " ".join(flat(each) for each in value)
        case _:
            return str(value)


def revealed(value: object) -> object:
    """A filled template with its secrets in the clear, ready for JSON."""
    match value:
        case Secret():
            return value.reveal()
        case dict():
            return {key: revealed(each) for key, each in value.items()}
        case list() | tuple():
            return [revealed(each) for each in value]
        case _:
            return value


LEFT_OUT = object()


def _or_left_out(template: object, values: Values) -> object:
    if isinstance(template, str):
        optional = [name for name, may_be_missing in names(template) if may_be_missing]
        if any(values.get(name) is None for name in optional):
            return LEFT_OUT
    return fill(template, values)


def _fill_text(template: str, values: Values) -> object:
    if alone := PLACEHOLDER.fullmatch(template):
        return _value(alone[1], values)
    found = {name: _value(name, values) for name, _ in names(template)}
    text = PLACEHOLDER.sub(lambda match: flat(found[match[1]]), template)
    return Secret(text) if any(isinstance(value, Secret) for value in found.values()) else text


def _value(name: str, values: Values) -> object:
    value = values.get(name)
    if value is None:
        raise MissingValue(f"{name} has no value")
    return value
