# The message in an answer that no dialect knows, for people to read (law 11): without the secrets that were sent and
# without anything that may be a token, and cut.
from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from brokerd.core.exchange.redaction import reason
from brokerd.core.exchange.steps import Response
from brokerd.core.secret import MASK, Secret
from brokerd.dialects import answer_body

# Where frameworks put their message, the most useful first: OAuth, FastAPI and Django, problem details (RFC 9457), …
MESSAGES = (
    *("error_description", "error", "detail", "message", "title", "msg", "reason", "description", "errors"),
    *("error_message", "errorMessage", "errorSummary", "errorType", "code", "type", "status", "non_field_errors"),
)
HIDDEN = re.compile(r"token|secret|pass|key|code$|jwt|assertion|auth|cookie|session", re.IGNORECASE)
TITLE = re.compile(r"<title[^>]*>([^<]{1,200})", re.IGNORECASE)
LONGEST_WORD = 24  # characters; a longer word may be a token
LONGEST_NAME = 200  # characters
WORD = re.compile(r"[A-Za-z_'-]+[.,:!?]?|https?://[A-Za-z0-9.:-]+(/[a-z0-9./_-]{0,60})?")
MOST = 2_000  # characters that are looked at
DEEPEST = 3


def said(response: Response, secrets: Sequence[Secret]) -> str:
    """The provider's message, "" where none can be shown. An answer that may hold tokens (2xx) shows only what stands
    where a message does."""
    found = answer_body.json_object(response)
    if found is not None:
        messages = _messages(found, DEEPEST)
        if not messages and response.status >= 300:
            messages = [json.dumps(_masked(found, DEEPEST), ensure_ascii=False)[:MOST]]
        return without_tokens(": ".join(dict.fromkeys(messages)), secrets)
    text = response.body[:MOST].decode(errors="replace")
    if "<" in text:
        title = TITLE.search(text)
        return without_tokens(title[1], secrets) if title else ""
    return without_tokens(text, secrets) if response.status >= 300 else ""


def _messages(value: object, room: int) -> list[str]:
    match value:
        case str():
            return [value[:MOST]] if value.strip() else []
        case Mapping() if room:
            return [each for name in MESSAGES for each in _messages(value.get(name), room - 1)]
        case list() if room:
            return [each for item in value[:3] for each in _messages(item, room - 1)]
        case _:
            return []


def _masked(value: object, room: int, name: str = "") -> object:
    """An object without a message where we look: its names, its numbers, and text that is certainly no secret."""
    match value:
        case Mapping() if room:
            return {str(key)[:40]: _masked(each, room - 1, str(key)) for key, each in list(value.items())[:10]}
        case list() if room:
            return [_masked(each, room - 1, name) for each in value[:3]]
        case Mapping() | list():
            return "…"
        case str():
            return MASK if len(name) > LONGEST_NAME or HIDDEN.search(name) else value[:MOST]
        case _:
            return value


def without_tokens(
    text: str, secrets: Sequence[Secret], longest: int = LONGEST_WORD, harmless: re.Pattern[str] = WORD
) -> str:
    """A sentence without the secrets that were sent and without the words that may be tokens: those that are longer
    than `longest` characters and not `harmless`."""
    words = reason(text, secrets).split()
    return " ".join(word if len(word) <= longest or harmless.fullmatch(word) else MASK for word in words)
