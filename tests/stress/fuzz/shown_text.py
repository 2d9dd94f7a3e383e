# Properties of every text that people may see: one line that cannot control a terminal, of bounded length. Also the
# ways in which an answer may echo a secret (law 11), written here independently of brokerd's own list.
from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

LONGEST = 600  # characters; a reason has 200, and the words around it some


def fit_for_people(text: str, longest: int = LONGEST) -> None:
    assert text, "an empty text"
    assert text.isprintable(), f"unprintable characters: {text!r}"
    assert len(text) <= longest, f"{len(text)} characters"


def forms(secret: str) -> dict[str, str]:
    """The secret as it may be echoed, by the name of the encoding."""
    data = secret.encode()
    return {
        "raw": secret,
        "latin-1": data.decode("latin-1"),  # a header is bytes; we read each as a character
        "url": quote(secret, safe=""),
        "path": quote(secret),
        "form": quote_plus(secret),
        "json": json.dumps(secret)[1:-1],
        "json8": json.dumps(secret, ensure_ascii=False)[1:-1],
        "base64": base64.b64encode(data).decode().rstrip("="),
        "base64url": base64.urlsafe_b64encode(data).decode().rstrip("="),
    }


def without(text: str, secrets: Iterable[str]) -> None:
    """None of the secrets is in the text, in no encoding, whatever became of its blanks and controls."""
    for secret in secrets:
        for encoding, form in forms(secret).items():
            seen = " ".join("".join(each if each.isprintable() else " " for each in form).split())
            assert seen not in text, f"shows a secret ({encoding})"
