# What a recipe file may contain (docs/recipes.md), and its check when it is read, so that no mistake waits for the
# first renewal. dialect.py sends the requests.
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from brokerd.core.exchange import signing
from brokerd.core.exchange.algorithms import ALGORITHMS
from brokerd.core.validation import ConfigError, check_one_of, convert, expected
from brokerd.dialects import answer_outcomes
from brokerd.dialects.dialect import DEFAULT_PRESENT
from brokerd.dialects.recipe import template
from brokerd.dialects.recipe.answer import HEADER_NAME, AnswerFile, TokenPlace, check_answer, check_path

STORED = ("access_token", "refresh_token", "access_token.id", "refresh_token.id")
ALWAYS_SETTINGS = ("scope", "audience", "resource")
JWT = "jwt"  # what the operation's assertion is called in a placeholder
DATED = ("iat", "exp", "jti")  # claims that the signing sets
LONGEST_ASSERTION = 3_600  # seconds: more than any server takes
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
OURS = (  # headers that brokerd sets
    *("host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding"),
    *("upgrade", "expect", "te"),
)
PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%{}-]*)+")  # RFC 3986 §3.3; braces are looked at with the placeholders
Meaning = str | Mapping[str, str]  # of a status, or of each reason in an answer with that status
STATUS = re.compile(r"4[0-9]{2}")
DEEPEST = 16  # tables and arrays within each other in a request's JSON
MEANINGS = ("misconfigured", "rejected", "retry", "done")


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
    """`ends_both`: the provider ends the other kind of token too, as a logout does."""

    ends_both: bool = False


class RevokeFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    access_token: RevocationFile | None = None
    refresh_token: RevocationFile | None = None


class ErrorsFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """`message`: further text for people, where the reason is a code."""

    reason: str | list[str] | None = None
    message: str | list[str] | None = None


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
class RecipeRequest:
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
    def extends(self) -> bool:
        """It brings no access token: the present one lives on."""
        return isinstance(self.answer.access_token, TokenPlace) and self.answer.access_token.kept

    @property
    def sends_stored(self) -> bool:
        """It sends a stored token, and its answer may replace the stored refresh token."""
        return self.answer.refresh_token is not None and bool(self.sends & set(STORED))


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe file, checked."""

    name: str
    credentials: tuple[str, ...]
    settings: tuple[str, ...]
    present: str
    issue: tuple[RecipeRequest, ...]
    renew: RecipeRequest | None
    revoke_access: RecipeRequest | None
    revoke_refresh: RecipeRequest | None
    errors: ErrorsFile

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of all fields that its answers have."""
        operations = (*self.issue, *((self.renew,) if self.renew else ()))
        return tuple(sorted({name for each in operations for name in each.answer.fields}))


def read_recipe(name: str, raw: Mapping[str, object]) -> Recipe:
    """A recipe from what its TOML file says. Raises ConfigError, whose key is within the file."""
    file = convert(raw, RecipeFile)
    check_answer("answer", file.answer)
    known = frozenset((*file.credentials, *file.settings, *ALWAYS_SETTINGS))
    if twice := sorted(known & {*STORED, JWT}):
        words = f"{twice[0]} is a name that brokerd uses itself; rename this credential or setting"
        raise ConfigError(words, key="credentials")
    if twice := sorted({*file.credentials} & {*file.settings, *ALWAYS_SETTINGS}):
        words = f"{twice[0]} is a setting too, and settings are not secret; rename one of them"
        raise ConfigError(words, key="credentials")
    for each in sorted(known):
        if not template.PLACEHOLDER.fullmatch(f"{{{each}}}"):
            raise expected("names of small letters, digits and underscores", each, key="credentials")
    issue = tuple(_operation(f"issue[{n}]", each, file, known) for n, each in enumerate(file.issue))
    renew = _operation("renew", file.renew, file, known) if file.renew else None
    if not issue and renew is None:
        raise ConfigError("a recipe needs [[issue]] or [renew] to get a token; add one of them", key="issue")
    for operation in (*issue, *((renew,) if renew else ())):
        if operation.answer.access_token is None and operation.answer.refresh_token is None:
            words = 'write where the token is in the answer: access_token = "…"'
            raise ConfigError(words, key=f"{operation.key}.answer")
    check_present(file.present)
    check_path("errors.reason", file.errors.reason)
    check_path("errors.message", file.errors.message)
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
        errors=file.errors,
    )
    _check_kept(recipe)
    _check_ids(recipe)
    return recipe


def _check_kept(recipe: Recipe) -> None:
    """Only a renewal can leave the token as it is. Raises ConfigError."""
    for operation in (*recipe.issue, *((recipe.renew,) if recipe.renew else ())):
        if isinstance(operation.answer.refresh_token, TokenPlace) and operation.answer.refresh_token.kept:
            words = "an answer without a refresh token keeps the present one anyway; remove refresh_token here"
            raise ConfigError(words, key=f"{operation.key}.answer.refresh_token.kept")
        if operation.extends and operation is not recipe.renew:
            words = "only the answer to [renew] can keep the token; write where the token is: at"
            raise ConfigError(words, key=f"{operation.key}.answer.access_token.kept")


def never_run(recipe: Recipe) -> Iterator[ConfigError]:
    """Operations that no grant ever uses, and what to do. The daemon accepts such a recipe, because a refresh token may
    be imported; `brokerctl recipe check` does not."""
    renew = recipe.renew
    for number, each in enumerate(recipe.issue):
        first = next((earlier for earlier in recipe.issue[:number] if earlier.needs <= each.needs), None)
        if first is not None:
            words = f"never used: {first.key} comes before it and needs nothing else; put this one first"
            yield ConfigError(words, key=each.key)
    if renew and recipe.issue and not any(each.answer.refresh_token for each in (*recipe.issue, renew)):
        words = "never used: no answer has a refresh token; write in [answer] where it is, or remove [renew]"
        yield ConfigError(words, key="renew")


def _operation(key: str, file: OperationFile, recipe: RecipeFile, known: frozenset[str]) -> RecipeRequest:
    method, _, path = file.request.partition(" ")
    plain = template.PLACEHOLDER.sub("x", path)
    upwards = {".", ".."} & set(plain.split("/"))
    if method not in METHODS or path.startswith("//") or not PATH.fullmatch(plain) or upwards:
        wanted = 'a method and a path with one leading slash, such as "POST /token"'
        raise expected(wanted, file.request, key=f"{key}.request")
    _check_json(f"{key}.json", file.json, DEEPEST)
    bodies = [name for name in ("json", "form", "multipart") if getattr(file, name) is not None]
    if len(bodies) > 1:
        raise ConfigError(f"expected at most one of json, form and multipart, found {' and '.join(bodies)}", key=key)
    if file.basic is not None and len(file.basic) != 2:
        raise expected("an array of two: user name and password", file.basic, key=f"{key}.basic")
    for name, value in file.headers.items():
        if not HEADER_NAME.fullmatch(name) or name.lower() in OURS:
            raise ConfigError("a recipe cannot set this header; remove it", key=f"{key}.headers.{name}")
        if not value.isprintable() or value != value.strip():
            raise expected("one line without blanks around it", value, key=f"{key}.headers.{name}")
    if file.basic is not None and "authorization" in map(str.lower, file.headers):
        raise ConfigError("basic sets the Authorization header too; remove one of them", key=f"{key}.basic")
    if file.answer is not None:
        check_answer(f"{key}.answer", file.answer)
    if file.jwt is not None:
        _check_jwt(f"{key}.jwt", file.jwt, recipe.credentials)
    needs, sends = _placeholders(key, file, known)
    errors = dict(_errors(key, file, has_reason=recipe.errors.reason is not None))
    found = RecipeRequest(key, method, path, file, errors, file.answer or recipe.answer, needs, sends)
    return replace(found, needs=needs | {"access_token"}) if found.extends else found


def _placeholders(key: str, file: OperationFile, known: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The placeholders that must have a value, and all placeholders. Raises ConfigError."""
    needs, sends, signed = set(), set(), False
    for part in ("request", "jwt", "headers", "basic", "query", "json", "form", "multipart"):
        value = getattr(file, part)
        if isinstance(value, JwtFile):
            value = msgspec.structs.asdict(value)
        for text in _texts(value):
            if template.stray_brace(text):
                words = f'"{text}": these braces are not a placeholder; write {{name}} or {{name?}}'
                raise ConfigError(words, key=f"{key}.{part}")
        for name, may_be_missing in template.names(value):
            if name == JWT and file.jwt is not None and part not in ("request", "jwt"):
                signed = True
                continue
            if name not in known and name not in STORED:
                declared = ", ".join(sorted(known | set(STORED)))
                words = f"{{{name}}} is no credential or setting of this recipe; known: {declared}"
                raise ConfigError(words, key=f"{key}.{part}")
            if may_be_missing and part in ("request", "basic"):
                words = f"{{{name}?}} may be left out, which is not possible here; write {{{name}}}"
                raise ConfigError(words, key=f"{key}.{part}")
            sends.add(name)
            if not may_be_missing:
                needs.add(name)
    if file.jwt is not None and not signed:
        raise ConfigError(f"{{{JWT}}} is signed but never sent; put it into headers, query or a body", key=f"{key}.jwt")
    return frozenset(needs), frozenset(sends)


def _check_json(key: str, value: object, room: int) -> None:
    """JSON has no dates, times, NaN and infinity, which TOML has."""
    if isinstance(value, dict | list):
        if not room:
            raise ConfigError(f"expected at most {DEEPEST} tables and arrays inside each other; remove some", key=key)
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
        if not STATUS.fullmatch(status) or int(status) in answer_outcomes.LATER:
            raise expected(
                'a status from 400 to 499 that does not always mean "later"',
                status,
                key=f"{key}.errors",
            )
        at = f"{key}.errors.{status}"
        if not isinstance(meaning, str) and not has_reason:
            raise ConfigError("a meaning for each reason needs [errors] reason: where an answer has its text", key=at)
        for each in (meaning,) if isinstance(meaning, str) else meaning.values():
            check_one_of(each, MEANINGS, at)
        yield int(status), meaning


def _check_jwt(key: str, file: JwtFile, credentials: list[str]) -> None:
    check_one_of(file.algorithm, ALGORITHMS, f"{key}.algorithm")
    if file.key not in (f"{{{name}}}" for name in credentials):
        raise expected('one of the credentials, such as "{private_key}"', file.key, key=f"{key}.key", show=False)
    if any(may_be_missing for _, may_be_missing in template.names(file.key_id)):
        words = "a placeholder with ? may be left out, which is not possible here; remove the ?"
        raise ConfigError(words, key=f"{key}.key_id")
    if not 1 <= file.lifetime <= LONGEST_ASSERTION:
        raise expected(f"seconds from 1 to {LONGEST_ASSERTION}", file.lifetime, key=f"{key}.lifetime")
    if ours := [name for name in DATED if name in file.claims]:
        raise ConfigError("brokerd sets this claim itself; remove it", key=f"{key}.claims.{ours[0]}")
    _check_json(f"{key}.claims", file.claims, DEEPEST)


def check_present(present: str) -> None:
    """Raises ConfigError."""
    name, _, value = present.partition(":")
    placeholders = [each for each, _ in template.names(value)]
    good = HEADER_NAME.fullmatch(name) and placeholders == ["access_token"] and not template.stray_brace(present)
    if not good or not present.isprintable():
        raise expected('a header line such as "Authorization: Bearer {access_token}"', present, key="present")


def _check_ids(recipe: Recipe) -> None:
    """The id of a token that is sent must be in an answer that brings the token."""
    issuing = (*recipe.issue, *((recipe.renew,) if recipe.renew else ()))
    for operation in (*issuing, recipe.revoke_access, recipe.revoke_refresh):
        for name in ("access_token", "refresh_token"):
            if operation is None or f"{name}.id" not in operation.sends:
                continue
            places = [getattr(each.answer, name) for each in issuing]
            if not any(isinstance(place, TokenPlace) and place.id for place in places):
                words = f"{{{name}.id}} is in no answer; write where it is: {name} = {{ at = …, id = … }}"
                raise ConfigError(words, key=f"{operation.key}.request")
