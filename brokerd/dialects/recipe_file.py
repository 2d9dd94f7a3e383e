# What a recipe file says (DESIGN.md 4), and the check of all of it when it is read: what can be known then does not
# wait for the first renewal. Nothing is sent here: recipe.py does that.
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from brokerd.core import signing
from brokerd.core.typed import ConfigError, convert, expected
from brokerd.dialects import answer, template
from brokerd.dialects.dialect import DEFAULT_PRESENT

STORED = ("access_token", "refresh_token", "access_token.id", "refresh_token.id")
ALWAYS_SETTINGS = ("scope", "audience", "resource")
JWT = "jwt"  # what the operation's assertion is called in a placeholder
DATED = ("iat", "exp", "jti")  # claims that the signing sets
LONGEST_ASSERTION = 3_600  # seconds: more than any server takes
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
OURS = (
    *("host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"),
    *("upgrade", "expect", "te"),
)
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%{}-]*)+")  # RFC 3986 §3.3; braces are looked at with the placeholders
Meaning = str | Mapping[str, str]  # of a status; or by the answer's reason, where not every answer of it means the same
STATUS = re.compile(r"4[0-9]{2}")
DEEPEST = 16  # tables and arrays within each other in a request's JSON
MEANINGS = ("misconfigured", "rejected", "retry", "done")


class Place(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where in an answer a token is, and what goes with it. Paths are dotted, `header:Name`, or a list of which the
    first found counts."""

    at: str | list[str]
    id: str | list[str] | None = None
    expires_in: str | list[str] | None = None
    expires_in_ms: str | list[str] | None = None
    expires_at: str | list[str] | None = None
    lifetime: int | None = None


class AnswerFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    access_token: str | Place | None = None
    refresh_token: str | Place | None = None
    token_type: str | list[str] | None = None
    scope: str | list[str] | None = None


class JwtFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """An assertion: a JWT that is signed for this one request and sent as `{jwt}`."""

    key: str
    algorithm: str
    claims: dict[str, Any] = {}
    key_id: str | None = None
    lifetime: int = int(signing.LIFETIME)


class OperationFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    request: str
    jwt: JwtFile | None = None
    headers: dict[str, str] = {}
    basic: list[str] | None = None
    query: dict[str, str] = {}
    json: dict[str, Any] | None = None
    form: dict[str, str] | None = None
    multipart: dict[str, str] | None = None
    errors: dict[str, str | dict[str, str]] = {}
    answer: AnswerFile | None = None


class RevocationFile(OperationFile, frozen=True):
    """`ends_both`: the provider ends the other kind of token with the one that it is told of, as a logout does."""

    ends_both: bool = False


class RevokeFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    access_token: RevocationFile | None = None
    refresh_token: RevocationFile | None = None


class ErrorsFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    reason: str | list[str] | None = None


class RecipeFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    credentials: list[str] = []
    settings: list[str] = []
    present: str = DEFAULT_PRESENT
    issue: list[OperationFile] = []
    renew: OperationFile | None = None
    revoke: RevokeFile = RevokeFile()
    answer: AnswerFile = AnswerFile()
    errors: ErrorsFile = ErrorsFile()


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of a recipe, checked."""

    key: str
    method: str
    path: str
    file: OperationFile
    errors: Mapping[int, Meaning]
    answer: AnswerFile
    needs: frozenset[str] = field(default=frozenset())  # placeholders that must have a value
    sends: frozenset[str] = field(default=frozenset())  # all placeholders

    @property
    def ends_both(self) -> bool:
        return isinstance(self.file, RevocationFile) and self.file.ends_both

    @property
    def spends(self) -> bool:
        """It sends a stored token, and its answer may bring a refresh token in the place of the one that is held."""
        return self.answer.refresh_token is not None and bool(self.sends & set(STORED))


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe file, checked: what every provider that speaks it has in common."""

    name: str
    credentials: tuple[str, ...]
    settings: tuple[str, ...]
    present: str
    issue: tuple[Operation, ...]
    renew: Operation | None
    revoke_access: Operation | None
    revoke_refresh: Operation | None
    reason: str | list[str] | None


def read_recipe(name: str, raw: Mapping[str, object]) -> Recipe:
    """A recipe from what its TOML file says. Raises ConfigError, whose key is within the file."""
    file = convert(raw, RecipeFile)
    _check_answer("answer", file.answer)
    known = frozenset((*file.credentials, *file.settings, *ALWAYS_SETTINGS))
    if twice := sorted(known & {*STORED, JWT}):
        raise ConfigError(f"{twice[0]} is brokerd's own name and cannot be a credential or setting", key="credentials")
    if twice := sorted({*file.credentials} & {*file.settings, *ALWAYS_SETTINGS}):
        words = f"{twice[0]} is a setting too, and settings are not kept as secrets; rename one of them"
        raise ConfigError(words, key="credentials")
    for each in sorted(known):
        if not template.PLACEHOLDER.fullmatch(f"{{{each}}}"):
            raise expected("names of small letters, digits and underscores", each, key="credentials")
    issue = tuple(_operation(f"issue[{n}]", each, file, known) for n, each in enumerate(file.issue))
    renew = _operation("renew", file.renew, file, known) if file.renew else None
    if not issue and renew is None:
        raise ConfigError("a recipe needs an [[issue]] or a [renew]: without one no token can be got", key="issue")
    for operation in (*issue, *((renew,) if renew else ())):
        if operation.answer.access_token is None and operation.answer.refresh_token is None:
            raise ConfigError('say where the token is: access_token = "…"', key=f"{operation.key}.answer")
    _check_present(file.present)
    _check_path("errors.reason", file.errors.reason)
    access, refresh = file.revoke.access_token, file.revoke.refresh_token
    recipe = Recipe(
        name=name,
        credentials=tuple(file.credentials),
        settings=tuple(file.settings),
        present=file.present,
        issue=issue,
        renew=renew,
        revoke_access=_operation("revoke.access_token", access, file, known) if access else None,
        revoke_refresh=_operation("revoke.refresh_token", refresh, file, known) if refresh else None,
        reason=file.errors.reason,
    )
    _check_ids(recipe)
    return recipe


def never_run(recipe: Recipe) -> Iterator[ConfigError]:
    """Operations that no grant ever uses, and what to do. A refresh token may also come by an import, so the daemon
    takes such a recipe; `brokerctl recipe check` does not."""
    renew = recipe.renew
    for number, each in enumerate(recipe.issue):
        first = next((earlier for earlier in recipe.issue[:number] if earlier.needs <= each.needs), None)
        if first is not None:
            words = f"never used: {first.key} comes first and needs no more; put this one before it"
            yield ConfigError(words, key=each.key)
    if renew and recipe.issue and not any(each.answer.refresh_token for each in (*recipe.issue, renew)):
        words = "never used: no answer brings a refresh token; say in [answer] where it is, or leave [renew] out"
        yield ConfigError(words, key="renew")


def _operation(key: str, file: OperationFile, recipe: RecipeFile, known: frozenset[str]) -> Operation:
    method, _, path = file.request.partition(" ")
    plain = template.PLACEHOLDER.sub("x", path)
    upwards = {".", ".."} & set(plain.split("/"))
    if method not in METHODS or path.startswith("//") or not PATH.fullmatch(plain) or upwards:
        wanted = 'a method and a path with one leading slash, such as "POST /token"'
        raise expected(wanted, file.request, key=f"{key}.request")
    _check_json(f"{key}.json", file.json, DEEPEST)
    bodies = [name for name in ("json", "form", "multipart") if getattr(file, name) is not None]
    if len(bodies) > 1:
        raise ConfigError(f"at most one of json, form and multipart; found {' and '.join(bodies)}", key=key)
    if file.basic is not None and len(file.basic) != 2:
        raise expected("an array of two: user name and password", file.basic, key=f"{key}.basic")
    for name, value in file.headers.items():
        if not HEADER_NAME.fullmatch(name) or name.lower() in OURS:
            raise ConfigError("this header cannot be set by a recipe", key=f"{key}.headers.{name}")
        if not value.isprintable() or value != value.strip():
            raise expected("one line without blanks around it", value, key=f"{key}.headers.{name}")
    if file.basic is not None and "authorization" in map(str.lower, file.headers):
        raise ConfigError("either basic or an Authorization header, not both", key=f"{key}.basic")
    if file.answer is not None:
        _check_answer(f"{key}.answer", file.answer)
    if file.jwt is not None:
        _check_jwt(f"{key}.jwt", file.jwt, recipe.credentials)
    needs, sends = _placeholders(key, file, known)
    errors = dict(_errors(key, file, has_reason=recipe.errors.reason is not None))
    return Operation(key, method, path, file, errors, file.answer or recipe.answer, needs, sends)


def _placeholders(key: str, file: OperationFile, known: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The placeholders that must have a value, and all of them; raises for those that nobody declares."""
    needs, sends, signed = set(), set(), False
    for part in ("request", "jwt", "headers", "basic", "query", "json", "form", "multipart"):
        value = getattr(file, part)
        if isinstance(value, JwtFile):
            value = msgspec.structs.asdict(value)
        for text in _texts(value):
            if template.stray_brace(text):
                words = f'"{text}": braces that are no placeholder; write {{name}} or {{name?}}'
                raise ConfigError(words, key=f"{key}.{part}")
        for name, may_be_missing in template.names(value):
            if name == JWT and file.jwt is not None and part not in ("request", "jwt"):
                signed = True
                continue
            if name not in known and name not in STORED:
                declared = ", ".join(sorted(known | set(STORED)))
                raise ConfigError(f"{{{name}}} is declared nowhere; known: {declared}", key=f"{key}.{part}")
            if may_be_missing and part in ("request", "basic"):
                raise ConfigError(f"{{{name}?}} cannot be left out here", key=f"{key}.{part}")
            sends.add(name)
            if not may_be_missing:
                needs.add(name)
    if file.jwt is not None and not signed:
        raise ConfigError(
            f"{{{JWT}}} is signed and sent nowhere; put it into headers, a query or a body", key=f"{key}.jwt"
        )
    return frozenset(needs), frozenset(sends)


def _check_json(key: str, value: object, room: int) -> None:
    """TOML says what JSON cannot: dates, times, and numbers that are none."""
    if isinstance(value, dict | list):
        if not room:
            raise ConfigError(f"at most {DEEPEST} tables and arrays within each other", key=key)
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            _check_json(f"{key}.{name}" if isinstance(value, dict) else f"{key}[{name}]", each, room - 1)
    elif not isinstance(value, str | int | float | None) or (isinstance(value, float) and not math.isfinite(value)):
        raise expected("what JSON can say: text, a number, true or false, an array, a table", value, key=key)


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict() | list():
            for each in value.values() if isinstance(value, dict) else value:
                yield from _texts(each)


def _errors(key: str, file: OperationFile, *, has_reason: bool) -> Iterator[tuple[int, Meaning]]:
    for status, meaning in file.errors.items():
        if not STATUS.fullmatch(status) or int(status) in answer.LATER:
            raise expected('a status from 400 to 499 that does not mean "later" anyway', status, key=f"{key}.errors")
        at = f"{key}.errors.{status}"
        if not isinstance(meaning, str) and not has_reason:
            raise ConfigError("meanings by reason need an [errors] reason: where an answer has its text", key=at)
        for each in (meaning,) if isinstance(meaning, str) else meaning.values():
            if each not in MEANINGS:
                raise expected(f"one of {', '.join(MEANINGS)}", each, key=at)
        yield int(status), meaning


def _check_jwt(key: str, file: JwtFile, credentials: list[str]) -> None:
    if file.algorithm not in signing.ALGORITHMS:
        raise expected(f"one of {', '.join(signing.ALGORITHMS)}", file.algorithm, key=f"{key}.algorithm")
    if file.key not in (f"{{{name}}}" for name in credentials):
        raise expected('one of the credentials, such as "{private_key}"', file.key, key=f"{key}.key", show=False)
    if any(may_be_missing for _, may_be_missing in template.names(file.key_id)):
        raise ConfigError("a placeholder cannot be left out here", key=f"{key}.key_id")
    if not 1 <= file.lifetime <= LONGEST_ASSERTION:
        raise expected(f"seconds from 1 to {LONGEST_ASSERTION}", file.lifetime, key=f"{key}.lifetime")
    if ours := [name for name in DATED if name in file.claims]:
        raise ConfigError("brokerd sets this claim itself", key=f"{key}.claims.{ours[0]}")
    _check_json(f"{key}.claims", file.claims, DEEPEST)


def _check_present(present: str) -> None:
    name, _, value = present.partition(":")
    placeholders = [each for each, _ in template.names(value)]
    good = HEADER_NAME.fullmatch(name) and placeholders == ["access_token"] and not template.stray_brace(present)
    if not good or not present.isprintable():
        raise expected('a header line such as "Authorization: Bearer {access_token}"', present, key="present")


def _check_answer(key: str, places: AnswerFile) -> None:
    for name in ("access_token", "refresh_token"):
        place = getattr(places, name)
        if isinstance(place, Place):
            expiries = [each for each in ("expires_in", "expires_in_ms", "expires_at") if getattr(place, each)]
            if len(expiries) > 1:
                raise ConfigError(f"expected one expiry at most, found {' and '.join(expiries)}", key=f"{key}.{name}")
            if place.lifetime is not None and place.lifetime < 1:
                raise expected("a number of seconds", place.lifetime, key=f"{key}.{name}.lifetime")
            for part in ("at", "id", *expiries):
                _check_path(f"{key}.{name}.{part}", getattr(place, part))
        else:
            _check_path(f"{key}.{name}", place)
    for name in ("token_type", "scope"):
        _check_path(f"{key}.{name}", getattr(places, name))


def _check_path(key: str, path: str | list[str] | None) -> None:
    """A path is dotted, or `header:Name`, or a list of such."""
    if path is None:
        return
    paths = [path] if isinstance(path, str) else path
    for each in paths:
        header = each.removeprefix("header:")
        if not (HEADER_NAME.fullmatch(header) if header != each else all(each.split("."))):
            raise expected('a path such as "data.token" or "header:X-Token"', each, key=key)
    if not paths:
        raise expected("one path or more", path, key=key)


def _check_ids(recipe: Recipe) -> None:
    """An id that is sent must be in an answer that brings that token."""
    issuing = (*recipe.issue, *((recipe.renew,) if recipe.renew else ()))
    for operation in (*issuing, recipe.revoke_access, recipe.revoke_refresh):
        for name in ("access_token", "refresh_token"):
            if operation is None or f"{name}.id" not in operation.sends:
                continue
            places = [getattr(each.answer, name) for each in issuing]
            if not any(isinstance(place, Place) and place.id for place in places):
                words = f"{{{name}.id}} is in no answer; say where it is: {name} = {{ at = …, id = … }}"
                raise ConfigError(words, key=f"{operation.key}.request")
