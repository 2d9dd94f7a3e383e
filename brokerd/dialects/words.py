# What a provider said in an answer that no dialect knows, in words for people (law 11): cleared of the secrets that
# were sent, of whatever may be a token, and cut.
from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from brokerd.core.exchange import Response
from brokerd.core.reason import reason
from brokerd.core.secret import MASK, Secret
from brokerd.dialects import body

# Where frameworks put their words, the most telling first: OAuth, FastAPI and Django, problem details (RFC 9457), …
TELLING = (
    *("error_description", "error", "detail", "message", "title", "msg", "reason", "description", "errors"),
    *("error_message", "errorMessage", "errorSummary", "errorType", "code", "type", "status", "non_field_errors"),
)
HIDDEN = re.compile(r"token|secret|pass|key|code$|jwt|assertion|auth|cookie|session", re.IGNORECASE)
TITLE = re.compile(r"<title[^>]*>([^<]{1,200})", re.IGNORECASE)
LONGEST_WORD = 24  # characters; what is longer may be a token
LONGEST_NAME = 200  # characters of a name that is looked at
WORD = re.compile(r"[A-Za-z_'-]+[.,:!?]?|https?://[A-Za-z0-9.:-]+(/[a-z0-9./_-]{0,60})?")
MOST = 2_000  # characters that are looked at
DEEPEST = 3


def said(response: Response, secrets: Sequence[Secret]) -> str:
    """The provider's words, "" where it said none that can be shown. Of an answer that may hold tokens (2xx) only
    what stands where words do."""
    found = body.json_object(response)
    if found is not None:
        told = list(_told(found, DEEPEST))
        if not told and response.status >= 300:
            told = [json.dumps(_masked(found, DEEPEST), ensure_ascii=False)[:MOST]]
        return _clean(": ".join(dict.fromkeys(told)), secrets)
    text = response.body[:MOST].decode(errors="replace")
    if "<" in text:
        title = TITLE.search(text)
        return _clean(title[1], secrets) if title else ""
    return _clean(text, secrets) if response.status >= 300 else ""


def _told(value: object, room: int) -> list[str]:
    match value:
        case str():
            return [value[:MOST]] if value.strip() else []
        case Mapping() if room:
            return [each for name in TELLING for each in _told(value.get(name), room - 1)]
        case list() if room:
            return [each for item in value[:3] for each in _told(item, room - 1)]
        case _:
            return []


def _masked(value: object, room: int, name: str = "") -> object:
    """An object whose words stand nowhere we know: its names, its numbers, and the text that is plainly no secret."""
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


def _clean(text: str, secrets: Sequence[Secret]) -> str:
    """A sentence, without the secrets that were sent, and then without the words that may be tokens."""
    cleared = reason(text, secrets).split()
    return " ".join(each if len(each) <= LONGEST_WORD or WORD.fullmatch(each) else MASK for each in cleared)
