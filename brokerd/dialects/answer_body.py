# Reads the body of a provider's answer as generously as is safe (law 3): JSON with small damage, forms, and JSON inside
# other text. A refusal counts only in a `plain` body; tokens are read from a `wrapped` one too.
from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qsl

from brokerd.core.exchange.steps import Response

Members = Mapping[str, object]

BLANKS = "\ufeff\0 \t\r\n"  # stand before or after the value in real answers
FORM_FIELDS = 64
TOKEN_IN_FORM = re.compile(r"(?:^|&)[^=&]*token=[^&]*")
CANDIDATES = 32  # places in a text where an object may begin
LONGEST_NUMBER = 100  # digits
DEEPEST = 2  # levels of JSON inside a JSON string
SIGNS = ",:[{%"  # for each of them parsing makes something
MOST_SIGNS = 20_000  # in a body that is parsed: some 2 ms, where a megabyte of them takes up to 500


def json_object(response: Response) -> dict[str, object] | None:
    """The body, if it is one JSON object; None for anything else (law 12: that is not the provider's). It may have a
    BOM, NULs and blanks around it, Latin-1, control characters in its texts and NaN."""
    value = _json(_text(response.body))
    return value if isinstance(value, dict) else None


def plain(response: Response) -> Members | None:
    """The body in the forms of the protocol: one JSON object, or the form fields of older servers."""
    found = json_object(response)
    return _form(_text(response.body)) if found is None and response.cut is None else found


def wrapped(response: Response) -> Members | None:
    """One object inside an array, a JSON text or other text such as a PHP notice. Never use it for a refusal: a page
    with an object in it is not the provider's (law 12)."""
    text = _text(response.body)
    value = _json(text)
    for _ in range(DEEPEST):
        if isinstance(value, str):
            value = _json(value)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
    return value if isinstance(value, dict) else _within(text)


def _text(body: bytes) -> str:
    try:
        text = body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        text = body.decode("latin-1")
    return text.strip(BLANKS)


def _json(text: str) -> object:
    if _signs(text) > MOST_SIGNS and _signs(_outside(text)) > MOST_SIGNS:
        return None
    try:
        return DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _signs(text: str) -> int:
    """How many values parsing makes. That takes time in which no other request is answered (law 13)."""
    return sum(map(text.count, SIGNS))


def _outside(text: str) -> str:
    """JSON without its strings, which are cheap to parse: a scope may have any number of colons."""
    text = text.replace("\\\\", "").replace('\\"', "")
    return text if text.count('"') > MOST_SIGNS else "".join(text.split('"')[::2])


def _form(text: str) -> dict[str, object] | None:
    """A form (application/x-www-form-urlencoded), whatever its Content-Type says. No token has a blank, so that a `+`
    in one was not encoded."""
    if _signs(text) > MOST_SIGNS:
        return None
    if "=" not in text or not text.isascii() or not text.isprintable() or any(sign in text for sign in ' <>{}"'):
        return None
    text = TOKEN_IN_FORM.sub(lambda found: found[0].replace("+", "%2B"), text)
    try:
        return _members(parse_qsl(text, strict_parsing=True, max_num_fields=FORM_FIELDS))
    except ValueError:
        return None


def _within(text: str) -> dict[str, object] | None:
    """The only object in a text. If another one begins after it, it is not clear which one counts."""
    start = -1
    if _signs(text) > MOST_SIGNS // CANDIDATES:  # it may be parsed from each place
        return None
    for _ in range(CANDIDATES):
        start = text.find("{", start + 1)
        if start < 0:
            return None
        try:
            value, end = DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) and "{" not in text[end:] else None
    return None


def _members(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    """If a name comes twice, the last value that is not empty counts."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name not in found or value not in (None, ""):
            found[name] = value
    return found


def _nothing(_constant: str) -> None:
    """NaN and Infinity are read as null."""


def _number(digits: str) -> int | None:
    """A very long number is read as null: the time to read it grows with the square of its length."""
    return int(digits) if len(digits) <= LONGEST_NUMBER else None


DECODER = json.JSONDecoder(strict=False, parse_int=_number, parse_constant=_nothing, object_pairs_hook=_members)
