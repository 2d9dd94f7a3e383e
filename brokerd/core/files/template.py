# Templates of files: "…{access_token}…{fields.instance_url:json}…". A placeholder without a filter takes only values
# that mean nothing to any language; for all others there are filters. Pure.
from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from brokerd.core.validation import ConfigError

PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
NAMES = ("access_token", "token_type", "expires_at", "grant")  # and fields.NAME
FIELD = re.compile(r"fields\.[^\s:{}]+")
HARMLESS = re.compile(r"[A-Za-z0-9._~+/=:@%,-]*")  # no quote, space, bracket, $, ;, #, &, <, \ or line break
BARE = re.compile(r"[A-Za-z0-9._+/=:@%,-]+")  # what a shell leaves as it is: ~ would become a home directory
SPECIAL = re.compile(r'(["\\$`])')  # within double quotes of a shell and of systemd's EnvironmentFile=


class Unfit(Exception):
    """The value cannot be written in that format. The text says why and never holds the value."""


def one_line(value: str, name: str) -> str:
    """The value, if it is printable text of one line. Raises Unfit."""
    if not value.isprintable():
        raise Unfit(f"{name} has a line break or another control character, which this format cannot hold; use json")
    return value


def env_word(value: str, name: str) -> str:
    """The value as shells and systemd's EnvironmentFile= both read it back. Raises Unfit."""
    one_line(value, name)
    if BARE.fullmatch(value):
        return value
    return '"' + SPECIAL.sub(r"\\\1", value) + '"'


def _harmless(value: str, name: str) -> str:
    if not HARMLESS.fullmatch(value):
        words = f"{name} has a character that could mean something to the file's reader"
        raise Unfit(f"{words}; write {{{name}:FILTER}} with one of the filters {', '.join(FILTERS)}")
    return value


FILTERS: dict[str, Callable[[str, str], str]] = {
    "json": lambda value, _: json.dumps(value),  # with its quotes
    "shell": lambda value, name: shlex.quote(one_line(value, name)),  # one word
    "env": env_word,
    "url": lambda value, _: quote(value, safe=""),
    "line": one_line,  # as it is: the template's author knows what it means there
}


@dataclass(frozen=True, slots=True)
class Placeholder:
    name: str
    filter: str | None = None


@dataclass(frozen=True, slots=True)
class Template:
    pieces: tuple[str | Placeholder, ...]

    def of(self, values: Mapping[str, str]) -> str:
        """Raises Unfit."""
        return "".join(each if isinstance(each, str) else _filled(each, values) for each in self.pieces)


def _filled(place: Placeholder, values: Mapping[str, str]) -> str:
    if place.name not in values:
        known = ", ".join(values)
        raise Unfit(f"the token has no {place.name}; it has {known} (a grant's fields: [grants.NAME] fields)")
    return (FILTERS[place.filter] if place.filter else _harmless)(values[place.name], place.name)


def read_template(text: str) -> Template:
    """Raises ConfigError."""
    pieces: list[str | Placeholder] = []
    at = 0
    for found in PIECE.finditer(text):
        pieces.append(text[at : found.start()])
        at = found.end()
        if found[1] is not None:
            pieces.append(_placeholder(found[1]))
        elif len(found[0]) == 2:
            pieces.append(found[0][0])
        else:
            raise ConfigError(
                f"a single {found[0]} in line {text.count(chr(10), 0, found.start()) + 1} of the template;"
                " write {{ or }} for the character itself"
            )
    pieces.append(text[at:])
    if not any(isinstance(each, Placeholder) for each in pieces):
        raise ConfigError(f"expected a placeholder such as {{access_token}} in it; known: {_known()}")
    return Template(tuple(each for each in pieces if each != ""))


def _placeholder(inside: str) -> Placeholder:
    name, colon, filter_ = inside.partition(":")
    if name not in NAMES and not FIELD.fullmatch(name):
        raise ConfigError(f"unknown placeholder {{{name}}}; known: {_known()}; for a brace write {{{{")
    if colon and filter_ not in FILTERS:
        raise ConfigError(f"unknown filter :{filter_} of {{{name}}}; known: {', '.join(FILTERS)}")
    return Placeholder(name, filter_ or None)


def _known() -> str:
    return ", ".join(f"{{{each}}}" for each in (*NAMES, "fields.NAME"))
