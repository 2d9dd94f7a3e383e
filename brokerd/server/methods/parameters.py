# What a parameter of a method may be: one check for each kind. An error says what was expected.
from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from brokerd.core.errors import Code, Failure
from brokerd.core.exchange import request_ids
from brokerd.core.grant.target import Target
from brokerd.core.secret import sha256_of

MANY = 64  # grants in one get_many or watch
WAIT, WAIT_LONGEST = 10.0, 60.0  # seconds

Check = Callable[[str, object], None]


def _wrong(what: str, expected: str) -> Failure:
    return Failure(Code.BAD_REQUEST, f"{what}: expected {expected}")


def text(what: str, value: object) -> None:
    if type(value) is not str:
        raise _wrong(what, "text")


def filled(what: str, value: object) -> None:
    text(what, value)
    if not value:
        raise _wrong(what, "text that is not empty")


def sha256(what: str, value: object) -> None:
    if type(value) is not str or not DIGEST.fullmatch(value):
        raise _wrong(what, "the SHA-256 of a token, as 64 hexadecimal digits in lower case")


def request_id(what: str, value: object) -> None:
    if type(value) is not str or not request_ids.FORM.fullmatch(value):
        raise _wrong(what, request_ids.FORM_IN_WORDS)


def texts(what: str, value: object) -> None:
    fits = type(value) is dict and len(value) <= MANY
    if not fits or not all(type(each) is str for pair in value.items() for each in pair):  # type: ignore[attr-defined]
        raise _wrong(what, "a map from text to text")


def count(what: str, value: object) -> None:
    if type(value) is not int or value < 0:
        raise _wrong(what, "a whole number, 0 or more")


def boolean(what: str, value: object) -> None:
    if type(value) is not bool:
        raise _wrong(what, "true or false")


def pid(what: str, value: object) -> None:
    if type(value) is not int or not 0 < value < 2**22:
        raise _wrong(what, "the number of a process")


def seconds(what: str, value: object) -> None:
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:  # type: ignore[arg-type, operator]
        raise _wrong(what, "a number of seconds, 0 or more")


def wait(what: str, value: object) -> None:
    seconds(what, value)
    if value > WAIT_LONGEST:  # type: ignore[operator]
        raise _wrong(what, f"at most {WAIT_LONGEST:g} seconds, found {value:g}")


def uses(what: str, value: object) -> None:
    """What a proxy forwarded: `USE` for each kind of requests."""
    if type(value) is not list or len(value) > MANY:
        raise _wrong(what, f"an array of at most {MANY} kinds of requests")
    for use in value:
        if type(use) is not dict or not USE.keys() - OPTIONAL <= use.keys() <= USE.keys():
            raise _wrong(what, f"maps with {', '.join(USE)}, of which {', '.join(OPTIONAL)} can be left out")
        for name, check in USE.items():
            if name in use:
                check(f"{what}.{name}", use[name])


def _status(what: str, value: object) -> None:
    """Each class of status is a series of a metric."""
    count(what, value)
    if value and not 100 <= value <= 599:  # type: ignore[operator]
        raise _wrong(what, "a status of HTTP, 100 to 599, or 0: there was no answer")


def _said(what: str, value: object) -> None:
    if type(value) is not str or len(value) > SAID_LONGEST or not value.isprintable():
        raise _wrong(what, f"printable text of at most {SAID_LONGEST} characters")


def names_of_any_number(what: str, value: object) -> None:
    if type(value) is not list or not all(type(each) is str for each in value):
        raise _wrong(what, "an array of grant names")


def names(what: str, value: object) -> None:
    names_of_any_number(what, value)
    if len(value) > MANY:  # type: ignore[arg-type]
        raise _wrong(what, f"at most {MANY} names")


def _scope(what: str, value: object) -> None:
    fits = type(value) is list and value and all(type(each) is str and SCOPE.fullmatch(each) for each in value)
    if not fits or len(" ".join(value)) > TARGET_LONGEST:  # type: ignore[arg-type]
        raise _wrong(what, f"an array of one scope or more, without blanks, {TARGET_LONGEST} characters in all")


def _audience(what: str, value: object) -> None:
    if type(value) is not str or len(value) > TARGET_LONGEST or not VISIBLE.fullmatch(value):
        raise _wrong(what, f"text without blanks, at most {TARGET_LONGEST} characters")


def _resource(what: str, value: object) -> None:
    _audience(what, value)
    if not URI.fullmatch(value):  # type: ignore[call-overload]
        raise _wrong(what, "an absolute URI without a fragment (RFC 8707 §2)")


def target_of(params: Mapping[str, Any]) -> Target | None:
    """What a downscoped token is asked for, from parameters that were checked; None: the grant's own token."""
    if TARGET.keys().isdisjoint(params):
        return None
    scope = params.get("scope")
    return Target(None if scope is None else tuple(sorted(set(scope))), params.get("audience"), params.get("resource"))


def refused_of(params: Mapping[str, Any]) -> bytes | None:
    """The SHA-256 of the token that an API refused, from parameters that were checked; None: the request names none."""
    value, named = params.get("refused"), params.get("refused_sha256")
    if value is not None and named is not None:
        raise Failure(Code.BAD_REQUEST, "get: expected refused or refused_sha256, found both; leave one out")
    return bytes.fromhex(named) if named is not None else None if value is None else sha256_of(value)


SAID_LONGEST = 256  # characters of a text that a proxy reports
USE: Mapping[str, Check] = {
    **dict.fromkeys(("proxy", "method", "path"), _said),
    "status": _status,
    **dict.fromkeys(("requests", "up", "down"), count),
    **dict.fromkeys(("first", "last"), seconds),
    "uid": count,
    **dict.fromkeys(("user", "unit", "exe"), _said),
}
OPTIONAL = ("uid", "user", "unit", "exe")
DIGEST = re.compile(r"[0-9a-f]{64}")
TARGET_LONGEST = 1_024  # characters; a record holds 16 downscoped tokens and is sealed as a whole
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 appendix A.4
VISIBLE = re.compile(r"[!-~]+")
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^#]+")
COMMON: Mapping[str, Check] = {"request_id": request_id}  # of every method
TARGET: Mapping[str, Check] = {"scope": _scope, "audience": _audience, "resource": _resource}
