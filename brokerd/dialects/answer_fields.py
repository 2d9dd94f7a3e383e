# The further values of a token (fields) in a provider's answer: as text, bounded, and complete. Each dialect says where
# they stand.
from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from brokerd.core.exchange.outcomes import Issued, Misconfigured, Tokens
from brokerd.core.exchange.steps import Request
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError, expected
from brokerd.dialects.dialect import GrantView

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
MOST = 32  # fields of a token
TOKENS = ("access_token", "refresh_token")
LARGEST = 64 * 1024  # bytes of all names and values together; a record is sealed as a whole
SHOWN_MOST, DEEPEST, HIDDEN_MOST = 2_000, 5, 64  # characters, levels and texts: more than an error can show


@dataclass(frozen=True, slots=True)
class Wanted:
    """The fields that a token must have. `kept`: those of the token that is renewed, for what the answer does not
    repeat. `optional`: a token without them is good too."""

    names: tuple[str, ...] = ()
    kept: Mapping[str, Secret] = field(default_factory=dict)
    optional: bool = False


NOTHING = Wanted()
REMEDY = "correct fields, or ask for the scope that brings it"
REMEDIES = {"id_token": "add openid to scope and log in again if a person logs in, or remove it from fields"}


class Unusable(Exception):
    """The answer lacks a field, or has one that cannot be kept. The text says which, and shows no value."""


def wanted(view: GrantView, names: tuple[str, ...], *, renews: bool = False) -> Wanted:
    """What an exchange for that view must bring. `renews`: its answer may leave out what has not changed. A downscoped
    token has whatever its own answer has."""
    own = view.target is None
    return Wanted(names, view.fields if renews and own else {}, optional=not own)


def named(settings: Mapping[str, object]) -> tuple[str, ...]:
    """The fields that a grant's own settings name."""
    found = settings.get("fields")
    return tuple(found) if isinstance(found, list | tuple) else ()


def check_names(names: tuple[str, ...], key: str) -> None:
    """Raises ConfigError."""
    for name in names:
        if name in TOKENS:
            words = "remove it: the access token is served by itself, and no caller gets the refresh token"
            raise ConfigError(f"{name}: {words}", key=key)
        if not NAME.fullmatch(name):
            raise expected(
                "names of letters, digits, dots, dashes and underscores, at most 64 characters", name, key=key
            )
    if len(names) > MOST:
        raise ConfigError(f"expected at most {MOST} fields, found {len(names)}", key=key)
    if len(set(names)) != len(names):
        raise ConfigError("a field is named twice; remove one", key=key)


def with_fields(tokens: Tokens, wanted: Wanted, find: Callable[[str], object], what: str) -> Issued | Misconfigured:
    """The tokens with the fields that `find` sees in their answer. If one is missing, the access token cannot be used,
    but the refresh token is good (law 3). `what`: the request, for the error."""
    try:
        found = _read(wanted, find) if tokens.access_token else {}
    except Unusable as error:
        return Misconfigured(f"{what}: {error}", refresh_token=tokens.refresh_token)
    return Issued(replace(tokens, fields=found) if found else tokens)


def hiding(request: Request, values: Iterable[object]) -> Request:
    """The request with these values of its answer among its secrets: no error shows a field (law 11)."""
    texts = list(islice(_texts(list(values), DEEPEST), HIDDEN_MOST))
    return replace(request, secrets=(*request.secrets, *map(Secret, texts))) if texts else request


def _texts(value: object, room: int) -> Iterator[str]:
    """Each text in a value, as far as an error can show it."""
    match value:
        case str():
            yield value[:SHOWN_MOST].encode(errors="replace").decode()
        case Mapping() | list() if room:
            for each in value.values() if isinstance(value, Mapping) else value:
                yield from _texts(each, room - 1)
        case int() | float() if not isinstance(value, bool):
            yield json.dumps(value)


def _read(wanted: Wanted, find: Callable[[str], object]) -> dict[str, Secret]:
    """Raises Unusable."""
    found = {}
    for name in wanted.names:
        value = _text(name, find(name))
        if value is not None:
            found[name] = Secret(value)
        elif name in wanted.kept:
            found[name] = wanted.kept[name]
        elif not wanted.optional:
            raise Unusable(f"the answer has no {name}, which fields names; {REMEDIES.get(name, REMEDY)}")
    size = sum(len(name) + len(value.reveal().encode()) for name, value in found.items())
    if size > LARGEST:
        raise Unusable(f"the fields have {size} bytes together, and {LARGEST} are allowed; name fewer in fields")
    return found


def _text(name: str, value: object) -> str | None:
    """A value as text; None if there is none. Raises Unusable."""
    if value is None or value == "":
        return None
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text.encode()
    except RecursionError:  # parsing reaches a little deeper than writing
        raise Unusable(f"the field {name} is nested too deeply; remove it from fields") from None
    except UnicodeEncodeError:
        raise Unusable(f"the field {name} is not text in Unicode; remove it from fields") from None
    if "\0" in text:  # neither a file of text nor a variable of the environment can hold it
        raise Unusable(f"the field {name} has a zero byte in it; remove it from fields")
    return text
