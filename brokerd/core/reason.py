# How text from a provider becomes a reason that people may see (law 11): cleared of every secret that was sent,
# of control characters, and cut to length.
from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

from brokerd.core.secret import MASK, Secret

LONGEST = 200  # characters; room for what an operator needs to know
MOST_READ = 10_000  # characters of it that are looked at
LOWER_HEX = re.compile(r"%[0-9A-F]{2}")
SHORTEST_SECRET = 4  # characters; to mask anything shorter would only garble the text
# A token that the provider made up in the same answer was not sent by us, and is masked by its looks.
TOKEN_LIKE = re.compile(r"[A-Za-z0-9_\-.+/=~]{40,}|eyJ[A-Za-z0-9_\-]{10,}(?:\.[A-Za-z0-9_\-]*)*")


def reason(text: str, secrets: Iterable[Secret] = ()) -> str:
    """`text` fit for logs, errors and terminals: one line, at most 200 characters, without the secrets."""
    is_cut = len(text) > MOST_READ
    text = _one_line(text[:MOST_READ])
    lines = {_one_line(form) for secret in secrets for form in _forms(secret.reveal())}
    forms = sorted((line for line in lines if len(line) >= SHORTEST_SECRET), key=len, reverse=True)
    if forms:
        # A secret that begins so near the end that it may be cut off there could not be recognised.
        certain = len(text) - len(forms[0]) if is_cut else len(text)
        text = _masked(text, re.compile("|".join(map(re.escape, forms))), max(0, certain))
    text = TOKEN_LIKE.sub(MASK, text).replace(";", ",")  # in brokerd's words the remedy stands behind one
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _masked(text: str, secret: re.Pattern[str], end: int) -> str:
    """The text up to `end`, without the secrets that begin before it."""
    parts, at = [], 0
    for match in secret.finditer(text):
        if match.start() >= end:
            break
        parts += [text[at : match.start()], MASK]
        at = match.end()
    return "".join((*parts, text[at : max(at, end)]))


def _one_line(text: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())


def _forms(value: str) -> Iterator[str]:
    """The ways in which a provider may echo a value: raw, URL-, JSON- and base64-encoded."""
    if len(value) < SHORTEST_SECRET:
        return
    data = value.encode()
    yield value
    yield data.decode("latin-1")  # as a header reads, whose bytes are taken for characters one by one
    for quoted in (quote(value), quote(value, safe=""), quote_plus(value)):
        yield quoted
        yield LOWER_HEX.sub(lambda match: match[0].lower(), quoted)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield base64.b64encode(data).decode().rstrip("=")
    yield base64.urlsafe_b64encode(data).decode().rstrip("=")
