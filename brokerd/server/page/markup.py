# A small and safe way to write HTML: everything that is not Html already is escaped. Names and reasons come from
# providers and configurations, so they may hold markup, control characters and marks that turn the direction of text.
from __future__ import annotations

from html import escape

LONGEST = 600  # characters of a foreign text that are shown


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: str | None, **attributes: str | int | bool | None) -> Html:
    """An element with an end tag. Attributes with None and False are left out; `class_` stands for class, and
    `data_at` for data-at."""
    return Html(f"<{name}{_attributes(attributes)}>{joined(*children)}</{name}>")


def joined(*children: str | None) -> Html:
    return Html("".join(each if isinstance(each, Html) else text(each) for each in children if each is not None))


def text(value: str) -> Html:
    """Plain text, escaped. What a person could not see is replaced by a mark that can be seen."""
    return Html(escape(_visible(value)))


def foreign(value: str) -> Html:
    """Text of others, with its own direction, so that it does not turn the words beside it. A long one is cut."""
    left = len(value) - LONGEST
    more = f" … and {left} characters more" if left > 0 else ""
    return tag("bdi", value[:LONGEST] + more)


def _attributes(attributes: dict[str, str | int | bool | None]) -> str:
    said = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    return "".join(_attribute(name, value) for name, value in said if value is not None and value is not False)


def _attribute(name: str, value: str | int | bool) -> str:
    return f" {name}" if value is True else f' {name}="{text(str(value))}"'


def _visible(value: str) -> str:
    if value.isprintable():
        return value
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in value)
