# How text from a provider becomes a reason that people may see (law 11): cleared of every secret that was sent,
# of control characters, and cut to length.
from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from brokerd.core.secret import MASK, Secret

LONGEST = 200  # characters; room for what an operator needs to know
SHORTEST_SECRET = 4  # characters; to mask anything shorter would only garble the text
# A token that the provider made up in the same answer was not sent by us, and is masked by its looks.
TOKEN_LIKE = re.compile(r"[A-Za-z0-9_\-.+/=~]{40,}|eyJ[A-Za-z0-9_\-]{10,}(?:\.[A-Za-z0-9_\-]*)*")


def reason(text: str, secrets: Iterable[Secret] = ()) -> str:
    """`text` fit for logs, errors and terminals: one line, at most 200 characters, without the secrets."""
    text = text[: 50 * LONGEST]
    for form in sorted({form for secret in secrets for form in _forms(secret.reveal())}, key=len, reverse=True):
        text = text.replace(form, MASK)
    text = TOKEN_LIKE.sub(MASK, text)
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _forms(value: str) -> Iterable[str]:
    """The ways in which a provider may echo a value: raw, URL-, JSON- and base64-encoded."""
    if len(value) < SHORTEST_SECRET:
        return
    data = value.encode()
    yield value
    yield quote(value, safe="")
    yield quote_plus(value)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield base64.b64encode(data).decode().rstrip("=")
    yield base64.urlsafe_b64encode(data).decode().rstrip("=")
