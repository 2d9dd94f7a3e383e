# Where an answer has its tokens, their lives and their fields (docs/recipes.md), and the check of that when a recipe is
# read. outcomes.py reads answers.
from __future__ import annotations

import re

import msgspec

from brokerd.core.validation import ConfigError, expected
from brokerd.dialects import answer_fields

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class TokenPlace(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where a token and its expiry are in an answer. A path is dotted or `header:Name`; the first found of a list
    counts. `kept`: the answer has no token, it says how long the present one lives from now on."""

    at: str | list[str] | None = None
    kept: bool = False
    id: str | list[str] | None = None
    expires_in: str | list[str] | None = None
    expires_in_ms: str | list[str] | None = None
    expires_at: str | list[str] | None = None
    lifetime: int | None = None


class AnswerFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`fields`: further values that belong to the access token, by name."""

    access_token: str | TokenPlace | None = None
    refresh_token: str | TokenPlace | None = None
    token_type: str | list[str] | None = None
    scope: str | list[str] | None = None
    fields: dict[str, str | list[str]] = {}


def check_answer(key: str, places: AnswerFile) -> None:
    for name in ("access_token", "refresh_token"):
        place = getattr(places, name)
        if isinstance(place, TokenPlace):
            expiries = [each for each in ("expires_in", "expires_in_ms", "expires_at") if getattr(place, each)]
            if len(expiries) > 1:
                raise ConfigError(f"expected one expiry at most, found {' and '.join(expiries)}", key=f"{key}.{name}")
            if (place.at is not None) == place.kept:
                words = "write where the token is in the answer (at), or kept = true if it stays the same; one of them"
                raise ConfigError(words, key=f"{key}.{name}")
            if place.kept and not expiries:
                words = "a token is kept to live on; write where the answer says how long: expires_in = …"
                raise ConfigError(words, key=f"{key}.{name}")
            if place.lifetime is not None and place.lifetime < 1:
                raise expected("a number of seconds", place.lifetime, key=f"{key}.{name}.lifetime")
            for part in ("at", "id", *expiries):
                check_path(f"{key}.{name}.{part}", getattr(place, part))
        else:
            check_path(f"{key}.{name}", place)
    for name in ("token_type", "scope"):
        check_path(f"{key}.{name}", getattr(places, name))
    _check_fields(f"{key}.fields", places)


def _check_fields(key: str, places: AnswerFile) -> None:
    """No field hands out the refresh token, which callers never get."""
    answer_fields.check_names(tuple(places.fields), key)
    if places.fields and places.access_token is None:
        raise ConfigError("fields belong to an access token; write access_token too", key=key)
    hidden = _paths(places.refresh_token)
    hidden = [] if hidden == _paths(places.access_token) else hidden  # both are one token
    for name, at in places.fields.items():
        check_path(f"{key}.{name}", at)
        for path in _paths(at):
            if any(each == path or each.startswith(f"{path}.") for each in hidden):
                words = f"{path} holds the refresh token, which callers never get; name another path"
                raise ConfigError(words, key=f"{key}.{name}")


def secret_places(places: AnswerFile) -> frozenset[str]:
    """As in core/exchange/steps.py, Request."""
    tokens = (places.access_token, places.refresh_token)
    ids = (each.id for each in tokens if isinstance(each, TokenPlace))
    paths = [path for at in (*tokens, *ids, *places.fields.values()) for path in _paths(at)]
    return frozenset(path.lower() if path.startswith("header:") else path.split(".")[0] for path in paths)


def _paths(place: str | list[str] | TokenPlace | None) -> list[str]:
    at = place.at if isinstance(place, TokenPlace) else place
    return [] if at is None else [at] if isinstance(at, str) else at


def check_path(key: str, path: str | list[str] | None) -> None:
    """Raises ConfigError."""
    if path is None:
        return
    paths = [path] if isinstance(path, str) else path
    for each in paths:
        header = each.removeprefix("header:")
        if not (HEADER_NAME.fullmatch(header) if header != each else all(each.split("."))):
            raise expected('a path such as "data.token" or "header:X-Token"', each, key=key)
    if not paths:
        raise expected("one path or more", path, key=key)
