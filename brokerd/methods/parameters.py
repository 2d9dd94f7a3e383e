# What parameters of methods may be: one check for each kind, with the words that say what was expected.
from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from brokerd.core.failure import Code, Failure

MANY = 64  # grants in one get_many or watch
WAIT, WAIT_LONGEST = 10.0, 60.0  # seconds

Check = Callable[[str, object], None]


def _wrong(what: str, wanted: str) -> Failure:
    return Failure(Code.BAD_REQUEST, f"{what}: expected {wanted}")


def text(what: str, value: object) -> None:
    if type(value) is not str:
        raise _wrong(what, "text")


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


def names_of_any_number(what: str, value: object) -> None:
    if type(value) is not list or not all(type(each) is str for each in value):
        raise _wrong(what, "an array of grant names")


def names(what: str, value: object) -> None:
    names_of_any_number(what, value)
    if len(value) > MANY:  # type: ignore[arg-type]
        raise _wrong(what, f"at most {MANY} names")


def _no_variant(what: str, _value: object) -> None:
    raise Failure(Code.BAD_REQUEST, f"{what}: this version serves a grant's own token only; leave it out")


VARIANT: Mapping[str, Check] = {"scope": _no_variant, "audience": _no_variant, "resource": _no_variant}
