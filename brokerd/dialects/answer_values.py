# Reads the values in a provider's answer, for every dialect: tokens, ids, scopes, lifetimes, dates. It decides nothing.
from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from brokerd.core.exchange.jwt_claims import unverified_claims
from brokerd.core.exchange.scope import cut_scope, shared
from brokerd.core.exchange.steps import Response

CACHED = 10.0  # seconds; a JWT that is older than this by the clock that dates the answer was made for an earlier one
VISIBLE = re.compile(r"[!-~]+")
SEPARATORS = re.compile(r"[\s,]+")
# How much of an answer is kept, so that records, status and log lines stay small.
LONGEST_TOKEN = 256 * 1024  # characters
LONGEST_TYPE = 64
LONGEST_ID = 1024
LONGEST_SCOPE = 8 * 1024  # all names together
LONGEST_LIFETIME = 100 * 365 * 86_400.0  # seconds; anything beyond is a way of writing "never"
LATEST_LIFETIME = 2 * 366 * 86_400.0  # seconds; more than that is rather a point in time, or milliseconds


def identifier(value: object) -> str | None:
    """An id as providers write it: printable text, or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 128:
        return str(value)
    fits = isinstance(value, str) and 0 < len(value) <= LONGEST_ID and value.isprintable()
    return value if isinstance(value, str) and fits else None


def token(value: object) -> str | None:
    """A token: visible ASCII (RFC 6749 appendix A.12), so that no line break in it becomes a header of its own where an
    application sends it."""
    fits = isinstance(value, str) and len(value) <= LONGEST_TOKEN and VISIBLE.fullmatch(value)
    return value if isinstance(value, str) and fits else None


def is_unreadable(value: object) -> bool:
    """Whether something stands where a token should, and is none: it must not be taken for nothing (law 3)."""
    return value not in (None, "") and token(value) is None


def scope(value: object) -> tuple[str, ...] | None:
    """A scope, as text with spaces (RFC 6749 §3.3), as a list, or with commas as GitHub and Slack write it. One that is
    too long is cut, which its last name says."""
    # What is beyond so many names makes the last one too long; a megabyte of names takes 200 ms.
    found = [each for each in SEPARATORS.split(value, LONGEST_SCOPE) if each] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) and each.isprintable() for each in found):
        return None
    return shared(cut_scope(found, LONGEST_SCOPE))


def token_type(value: object) -> str:
    """The token type as the provider writes it; Bearer where it names none or something unprintable."""
    found = token(value)
    return found if found and len(found) <= LONGEST_TYPE else "Bearer"


def number(value: object) -> float | None:
    """A finite number, also one that is written as text ("3600")."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def lifetime_in(value: object, *, unit: float = 1.0) -> float | None:
    """`expires_in` in seconds, counted from when the request left; None where it is absent or makes no sense."""
    seconds = number(value)
    return None if seconds is None else _bounded(seconds * unit)


def odd_lifetime(value: object, *, unit: float = 1.0) -> str | None:
    """What is hard to believe of an `expires_in`: none at all, a point in time, or milliseconds."""
    seconds = number(value)
    if seconds is None:
        return None
    life = seconds * unit
    if life <= 0:
        return f"the provider says that the token lives {life:g} s"
    # 3600000 is an hour in milliseconds; 2592000 is 30 days. Whole minutes in the one are no whole days in the other.
    in_milliseconds = life >= 600_000 and life % 60_000 == 0 and life % 86_400 != 0
    if life > LATEST_LIFETIME or in_milliseconds:
        guess = "milliseconds" if life < 1_000_000_000 else "a point in time"
        return f"the provider says that the token lives {life:.0f} s, which looks like {guess}"
    return None


def lifetime_until(value: object, response: Response) -> float | None:
    """`expires_at`, Unix seconds or ISO 8601 with an offset, as seconds from when the request left (law 8)."""
    end = number(value)
    if end is None and isinstance(value, str):
        end = _iso_8601(value)
    return None if end is None else _bounded(end - _server_time(response))


def lifetime_of_jwt(token: str, response: Response) -> float | None:
    """The lifetime that a JWT names itself (RFC 7519 §4.1.4), read and not verified: `exp − iat` from when it came;
    less where the answer's Date says that it was made long before (some give out one token until it ends)."""
    try:
        claims = unverified_claims(token)
    except ValueError:
        return None
    end, start = number(claims.get("exp")), number(claims.get("iat"))
    if end is None:
        return None
    by_clock = end - _server_time(response)
    if start is None:
        return _bounded(by_clock)
    named = end - start
    if dated(response) is not None and named - by_clock > CACHED:
        return _bounded(by_clock)
    # It was made after the request left, at a second that `iat` cut off: so it lives for a second less at least.
    least = named - 1 if end.is_integer() and start.is_integer() else named
    return _bounded(by_clock if least <= by_clock <= named else max(least, named / 2))


def retry_after(response: Response) -> float | None:
    """Retry-After in seconds, from either of its forms (RFC 9110 §10.2.3); None where it is absent or unreadable."""
    value = response.header("retry-after")
    if value is None:
        return None
    seconds = number(value)
    if seconds is None:
        date = _http_date(value)
        seconds = None if date is None else date - (dated(response) or response.at.wall)
    return None if seconds is None else max(0.0, seconds)


def dated(response: Response) -> float | None:
    """The answer's Date, in Unix seconds."""
    return _http_date(response.header("date"))


def _server_time(response: Response) -> float:
    """The provider's wall clock when the request left, rather too late than too early, so that no lifetime is too long.
    Its Date has whole seconds: our own clock is more exact where it agrees."""
    date = dated(response)
    if date is None:
        return response.sent_at.wall
    if response.sent_at.wall < date + 1 and response.at.wall >= date:
        return max(response.sent_at.wall, date)
    return date + 1


def _http_date(value: str | None) -> float | None:
    if value is None:
        return None
    try:
        found = parsedate_to_datetime(value)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _iso_8601(value: str) -> float | None:
    try:
        found = datetime.fromisoformat(value.strip().upper())  # t and z may be small (RFC 3339 §5.6)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _bounded(seconds: float) -> float | None:
    return seconds if seconds <= LONGEST_LIFETIME else None
