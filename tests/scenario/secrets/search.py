# The search itself: the forms in which a secret may have been written down, and where in what was written one of them
# stands. It knows nothing of brokerd, and shows no more of a secret than its name.
from __future__ import annotations

import base64
import html
import json
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

SHORTEST = 8  # bytes: what is shorter is found by chance
LONG, PIECE = 40, 16  # of what has so many bytes, pieces of this size count as well: a token that was cut to length
BLOCK = 8  # bytes
BETWEEN = b"\0\xff\0" * 4  # stands between two places, so that nothing is found across them


@dataclass(frozen=True, order=True)
class Found:
    """A secret (by name) in a place, in which form, and how often."""

    secret: str
    place: str
    form: str
    times: int


def search(secrets: Mapping[str, bytes], places: Mapping[str, bytes]) -> list[Found]:
    """Everything that is found. `secrets`: name -> value; `places`: name -> all that was written there."""
    starts, names, everything = [], [], bytearray()
    for name, content in places.items():
        starts.append(len(everything))
        names.append(name)
        everything += content + BETWEEN
    haystack, found = bytes(everything), []
    blocks = {haystack[at : at + BLOCK] for at in range(0, len(haystack), BLOCK)}
    for secret, value in secrets.items():
        for pattern, form in patterns(value).items():
            if not _may_be_in(blocks, pattern):
                continue
            hits: dict[str, int] = {}
            for at in _occurrences(haystack, pattern):
                place = names[bisect(starts, at) - 1]
                hits[place] = hits.get(place, 0) + 1
            found += [Found(secret, place, form, times) for place, times in hits.items()]
    return sorted(found)


def patterns(value: bytes) -> dict[bytes, str]:
    """Bytes to look for -> the form that they are in; each once, whatever its forms have in common."""
    found: dict[bytes, str] = {}
    for form, pattern in _forms(value):
        if len(pattern) >= SHORTEST:
            found.setdefault(pattern, form)
    return found


def of_text(texts: Iterable[str], name: str) -> dict[str, bytes]:
    """Secrets of one kind, numbered. A key in PEM counts by its lines: most ways of quoting break it into them."""
    found = {}
    for number, text in enumerate(dict.fromkeys(texts), 1):
        lines = [line for line in text.splitlines() if line and not line.startswith("-----")]
        for at, line in enumerate(lines, 1):
            found[f"{name} {number}{f', line {at}' if len(lines) > 1 else ''}"] = line.encode()
    return found


def _forms(value: bytes) -> Iterator[tuple[str, bytes]]:
    yield "raw", value
    yield "hex", value.hex().encode()
    yield "HEX", value.hex().upper().encode()
    for shift in range(3):  # also in the middle of something longer, as in Basic's user:secret
        yield "base64", _base64(value, shift)
        yield "base64url", _base64(value, shift).translate(bytes.maketrans(b"+/", b"-_"))
    yield "repr of bytes", repr(value)[2:-1].encode()
    if len(value) >= LONG:
        middle = (len(value) - PIECE) // 2
        yield "a piece", value[middle : middle + PIECE]
        yield "its end", value[-PIECE:]
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    for form, said in _texts(text):
        yield form, said.encode()
    yield "UTF-16", text.encode("utf-16-le")
    yield "UTF-16, big", text.encode("utf-16-be")


def _texts(text: str) -> Iterator[tuple[str, str]]:
    yield "bytes read as Latin-1", text.encode().decode("latin-1")
    for safe in ("", "/"):
        quoted = quote(text, safe=safe)
        yield "percent-encoded", quoted
        yield "percent-encoded", _lower(quoted)
        yield "percent-encoded twice", quote(quoted, safe=safe)
    yield "form-encoded", quote_plus(text)
    yield "form-encoded", _lower(quote_plus(text))
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield "JSON", once
        yield "JSON in JSON", json.dumps(once, ensure_ascii=ascii_only)[1:-1]
    yield "repr", repr(text)[1:-1]
    yield "escaped", text.encode("unicode_escape").decode()
    yield "HTML", html.escape(text)
    yield "quoted", text.replace('"', '\\"')


def _base64(value: bytes, shift: int) -> bytes:
    """What of its base64 does not depend on its neighbours, where it begins `shift` bytes into a group of three."""
    encoded = base64.b64encode(bytes(shift) + value)
    return encoded[(shift * 8 + 5) // 6 : (shift + len(value)) * 8 // 6]


def _lower(text: str) -> str:
    """The hexadecimal digits of percent-encoding in lower case."""
    head, *rest = text.split("%")
    return "%".join([head, *(each[:2].lower() + each[2:] for each in rest)])


def _may_be_in(blocks: set[bytes], pattern: bytes) -> bool:
    """Wherever a pattern stands, one of the whole blocks of what is searched lies in the middle of it. Thousands of
    patterns are told so in a moment that are nowhere."""
    middle = (len(pattern) - 2 * BLOCK + 1) // 2
    return middle < 0 or any(pattern[at : at + BLOCK] in blocks for at in range(middle, middle + BLOCK))


def _occurrences(content: bytes, pattern: bytes) -> Iterator[int]:
    at = content.find(pattern)
    while at >= 0:
        yield at
        at = content.find(pattern, at + len(pattern))
