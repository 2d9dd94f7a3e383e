# Turns text from a provider into a reason that people may see (law 11): without the secrets that were sent, without
# control characters, and cut to length.
from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from brokerd.core.secret import MASK, Secret
from brokerd.core.shortened import shortened

LONGEST = 200  # characters
MOST_READ = 10_000  # characters of it that are looked at
LOWER_HEX = re.compile(r"%[0-9A-F]{2}")
SHORTEST_SECRET = 4  # characters; to mask anything shorter would only garble the text
# A token that the provider issued in the same answer is not among the secrets that were sent, so its form must tell.
TOKEN_LIKE = re.compile(r"[A-Za-z0-9_\-.+/=~]{40,}|eyJ[A-Za-z0-9_\-]{10,}(?:\.[A-Za-z0-9_\-]*)*")


def reason(text: str, secrets: Iterable[Secret] = (), *, is_cut: bool = False) -> str:
    """`text` fit for logs, errors and terminals: one line, at most 200 characters, without the secrets. `is_cut`: more
    text followed, so that its end may be the beginning of a secret."""
    is_cut = is_cut or len(text) > MOST_READ
    text = _one_line(text[:MOST_READ])
    certain, forms = len(text), set[str]()
    for value in {secret.reveal() for secret in secrets}:
        if len(_one_line(value)) > len(text):  # and so is every form of it. To make them would take seconds
            certain = 0 if is_cut else certain
            continue
        lines = {line for form in _forms(value) if len(line := _one_line(form)) >= SHORTEST_SECRET}
        if is_cut and lines:  # a secret near the end of the text may be cut off and not recognised
            certain = min(certain, len(text) - max(map(len, lines)))
        forms |= {line for line in lines if line in text}
    text = _masked(text, sorted(forms, key=len, reverse=True), max(0, certain))
    text = TOKEN_LIKE.sub(MASK, text).replace(";", ",")  # in brokerd's messages the remedy follows a semicolon
    return shortened(text, LONGEST)


def _masked(text: str, forms: list[str], end: int) -> str:
    """The text up to `end`, without the secrets that begin before it; the longest one where several do. No regular
    expression: re keeps those that it has compiled, and the secrets with them."""
    parts, at = [], 0
    places = {form: text.find(form) for form in forms}
    while places:
        places = {form: text.find(form, at) if there < at else there for form, there in places.items()}
        places = {form: there for form, there in places.items() if 0 <= there < end}
        if places:
            found = min(places, key=places.__getitem__)  # of those at the same place the first, which is the longest
            parts += [text[at : places[found]], MASK]
            at = places[found] + len(found)
    return "".join((*parts, text[at : max(at, end)]))


def _one_line(text: str) -> str:
    if not text.isprintable():
        text = text.translate({ord(each): " " for each in set(text) if not each.isprintable()})
    return " ".join(text.split())


def _forms(value: str) -> Iterator[str]:
    """The ways in which a provider may echo a value: raw, URL-, JSON- and base64-encoded."""
    if len(value) < SHORTEST_SECRET:
        return
    data = value.encode()
    yield value
    yield data.decode("latin-1")  # as a header shows it: each byte as one character
    for quoted in (quote(value), quote(value, safe=""), quote_plus(value)):
        yield quoted
        yield LOWER_HEX.sub(lambda match: match[0].lower(), quoted)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield base64.b64encode(data).decode().rstrip("=")
    yield base64.urlsafe_b64encode(data).decode().rstrip("=")
