# The recipe dialect: a TOML file says what to send and where in the answer to look (DESIGN.md 4).
# Everything is checked when the file is read; what is left to the first renewal is the provider's answer.
from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from brokerd.core.exchange import Exchange, Request, Response
from brokerd.core.outcome import Done, Issued, Misconfigured, Outcome, Rejected, RetryLater, Token, Tokens
from brokerd.core.reason import reason
from brokerd.core.record import Doomed
from brokerd.core.renewal import Ability
from brokerd.core.secret import Secret
from brokerd.core.typed import ConfigError, convert, expected
from brokerd.dialects import answer, template
from brokerd.dialects.dialect import DEFAULT_PRESENT, Dialect, GrantView

STORED = ("access_token", "refresh_token", "access_token.id", "refresh_token.id")
IDENTIFYING = ("client_id", "username", "user", "email", "account", "api_key")  # credentials that say who, not that
ALWAYS_SETTINGS = ("scope", "audience", "resource")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
OURS = ("host", "content-length", "content-type", "transfer-encoding", "connection", "accept-encoding")
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Place(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where in an answer a token is, and what goes with it. Paths are dotted, `header:Name`, or a list of which the
    first found counts."""

    at: str | list[str]
    id: str | list[str] | None = None
    expires_in: str | list[str] | None = None
    expires_in_ms: str | list[str] | None = None
    expires_at: str | list[str] | None = None


class AnswerFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    access_token: str | Place | None = None
    refresh_token: str | Place | None = None
    token_type: str | list[str] | None = None
    scope: str | list[str] | None = None


class OperationFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    request: str
    headers: dict[str, str] = {}
    basic: list[str] | None = None
    query: dict[str, str] = {}
    json: dict[str, Any] | None = None
    form: dict[str, str] | None = None
    multipart: dict[str, str] | None = None
    errors: dict[str, str] = {}
    answer: AnswerFile | None = None


class RevokeFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    access_token: OperationFile | None = None
    refresh_token: OperationFile | None = None


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
    errors: Mapping[int, str]
    answer: AnswerFile
    needs: frozenset[str] = field(default=frozenset())  # placeholders that must have a value

    @property
    def spends(self) -> bool:
        """It sends a stored token, and its answer may bring a refresh token in the place of the one that is held."""
        return self.answer.refresh_token is not None and bool(self.needs & set(STORED))


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

    def at(self, base_url: str, settings: Mapping[str, object]) -> RecipeDialect:
        """The dialect of one provider: the recipe at a base URL, with the provider's own settings."""
        return RecipeDialect(self, base_url.rstrip("/"), settings)


def read_recipe(name: str, raw: Mapping[str, object]) -> Recipe:
    """A recipe from what its TOML file says. Raises ConfigError, whose key is within the file."""
    file = convert(raw, RecipeFile)
    known = frozenset((*file.credentials, *file.settings, *ALWAYS_SETTINGS))
    if twice := sorted(known & set(STORED)):
        raise ConfigError(f"{twice[0]} names what is stored and cannot be a credential or setting", key="credentials")
    issue = tuple(_operation(f"issue[{n}]", each, file, known) for n, each in enumerate(file.issue))
    renew = _operation("renew", file.renew, file, known) if file.renew else None
    if not issue and renew is None:
        raise ConfigError("a recipe needs an [[issue]] or a [renew]: without one no token can be got", key="issue")
    for operation in (*issue, *((renew,) if renew else ())):
        if operation.answer.access_token is None and operation.answer.refresh_token is None:
            raise ConfigError('say where the token is: access_token = "…"', key=f"{operation.key}.answer")
    if not file.present.partition(":")[2] or "{access_token}" not in file.present or "\n" in file.present:
        raise expected('a header line such as "Authorization: Bearer {access_token}"', file.present, key="present")
    access, refresh = file.revoke.access_token, file.revoke.refresh_token
    return Recipe(
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


@dataclass(frozen=True, slots=True)
class RecipeDialect(Dialect):
    """A recipe at one provider."""

    recipe: Recipe
    base_url: str
    settings: Mapping[str, object]

    @property
    def present(self) -> str:
        return self.recipe.present

    def check(self, credentials: frozenset[str], settings: Mapping[str, object]) -> None:
        recipe = self.recipe
        for name in sorted(credentials - set(recipe.credentials)):
            known = ", ".join(recipe.credentials) or "none"
            raise ConfigError(f"{recipe.name} knows no such credential; known: {known}", key=f"credentials.{name}")
        for name in sorted(set(settings) - {*recipe.settings, *ALWAYS_SETTINGS}):
            known = ", ".join(recipe.settings) or "none"
            raise ConfigError(f"{recipe.name} knows no such setting; known: {known}", key=f"settings.{name}")
        have = credentials | set(settings) | set(self.settings)
        if recipe.renew is None and not any(each.needs <= have for each in recipe.issue):
            wanted = " or ".join(
                ", ".join(sorted(each.needs - have)) for each in recipe.issue if not each.needs & set(STORED)
            )
            raise ConfigError(f"{recipe.name} cannot issue a token without {wanted}", key="credentials")

    def identity(self, view: GrantView) -> tuple[str, ...]:
        parts = urlsplit(self.base_url)
        who = tuple(f"{n}={view.credentials[n].reveal()}" for n in IDENTIFYING if n in view.credentials)
        return (self.recipe.name, f"{parts.scheme}://{parts.netloc}", *who)

    def ability(self, view: GrantView) -> Ability:
        chosen, renew = self._issue(view), self.recipe.renew
        return Ability(
            issue=chosen is not None,
            renew=renew is not None,
            issue_spends=chosen is not None and chosen.spends,
            renew_spends=renew is not None and renew.spends,
        )

    def issue(self, view: GrantView) -> Exchange:
        operation = self._issue(view)
        if operation is None:
            return _at_once(Misconfigured(f"{self.recipe.name}: not all credentials for an issue are there"))
        return self._for_tokens(operation, view)

    def renew(self, view: GrantView) -> Exchange:
        if self.recipe.renew is None:
            return _at_once(Misconfigured(f"{self.recipe.name} has no renewal"))
        return self._for_tokens(self.recipe.renew, view)

    def revoke(self, view: GrantView, token: Doomed) -> Exchange | None:
        operation = self.recipe.revoke_access if token.access_token else self.recipe.revoke_refresh
        if operation is None or not operation.needs <= set(self._values(view)):
            return None
        return self._for_revocation(operation, view)

    def _issue(self, view: GrantView) -> Operation | None:
        there = set(self._values(view))
        return next((each for each in self.recipe.issue if each.needs <= there), None)

    def _for_tokens(self, operation: Operation, view: GrantView) -> Exchange:
        try:
            request = self._request(operation, view)
        except template.MissingValue as error:
            return Misconfigured(f"{operation.key}: {error}")
        response = yield request
        assert response is not None
        if later := answer.later(response, operation.key):
            return later
        if not 200 <= response.status < 300:
            return self._refusal(operation, response, request)
        body = answer.json_object(response)
        tokens = None if body is None else _tokens(operation.answer, body, response)
        return answer.strange(response, operation.key) if tokens is None else Issued(tokens)

    def _for_revocation(self, operation: Operation, view: GrantView) -> Exchange:
        try:
            request = self._request(operation, view)
        except template.MissingValue as error:
            return Misconfigured(f"{operation.key}: {error}")
        response = yield request
        assert response is not None
        if later := answer.later(response, operation.key):
            return later
        if not 200 <= response.status < 300:
            return self._refusal(operation, response, request)
        if response.body.strip() and answer.json_object(response) is None:
            return answer.strange(response, operation.key)
        return Done()

    def _refusal(self, operation: Operation, response: Response, request: Request) -> Outcome:
        """An error answer. Without a reason where the recipe says that one is, it is not the provider's (law 12)."""
        body = answer.json_object(response)
        if self.recipe.reason is None:
            own, words = body is not None or not response.body.strip(), ""
        else:
            found = _find(self.recipe.reason, body or {}, response)
            own, words = found is not None, reason(_words(found), request.secrets)
        meaning = operation.errors.get(response.status)
        if not own or (meaning is None and response.status not in REFUSALS):
            return answer.strange(response, operation.key)
        said = f"{operation.key}: the provider answered {response.status}" + (f": {words}" if words else "")
        match meaning:
            case "rejected":
                return Rejected(said)
            case "done":
                return Done()
            case "retry":
                return RetryLater(said, answer.LATER[429], answer.retry_after(response))
            case _:
                return Misconfigured(said)

    def _values(self, view: GrantView) -> dict[str, object]:
        access, refresh = view.access_token, view.refresh_token
        values = {
            **self.settings,
            **view.settings,
            **view.credentials,
            "access_token": access and access.value,
            "access_token.id": access and access.id,
            "refresh_token": refresh and refresh.value,
            "refresh_token.id": refresh and refresh.id,
        }
        return {name: value for name, value in values.items() if value is not None and value != []}

    def _request(self, operation: Operation, view: GrantView) -> Request:
        file, values = operation.file, self._values(view)
        headers = [("Accept", "application/json")]
        filled = template.fill(file.headers, values)
        assert isinstance(filled, dict)
        headers += [(name, _line(template.flat(value))) for name, value in filled.items()]
        if file.basic is not None:
            user, password = (template.flat(template.fill(each, values)) for each in file.basic)
            headers.append(("Authorization", f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"))
        body, content_type = _body(file, values)
        if content_type:
            headers.append(("Content-Type", content_type))
        url = self.base_url + template.fill_path(operation.path, values)
        if query := template.fill(file.query, values):
            assert isinstance(query, dict)
            url += "?" + urlencode({name: template.flat(value) for name, value in query.items()})
        sent = [value for value in values.values() if isinstance(value, Secret)]
        return Request(operation.method, url, tuple(headers), body, tuple(sent), operation.spends)


def _at_once(outcome: Outcome) -> Exchange:
    """An exchange that ends before it asks anything."""
    yield from ()
    return outcome


def _body(file: OperationFile, values: template.Values) -> tuple[bytes, str | None]:
    if file.json is not None:
        return json.dumps(template.revealed(template.fill(file.json, values))).encode(), "application/json"
    fields = file.form if file.form is not None else file.multipart
    if fields is None:
        return b"", None
    filled = template.fill(fields, values)
    assert isinstance(filled, dict)
    flat = {name: template.flat(value) for name, value in filled.items()}
    if file.form is not None:
        return urlencode(flat).encode(), "application/x-www-form-urlencoded"
    return _multipart(flat)


def _multipart(fields: Mapping[str, str]) -> tuple[bytes, str]:
    """multipart/form-data (RFC 7578) of plain fields. The boundary is a hash of what it parts, so it is not in it."""
    boundary = hashlib.sha256(repr(fields).encode()).hexdigest()[:32]
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return "".join((*parts, f"--{boundary}--\r\n")).encode(), f"multipart/form-data; boundary={boundary}"


def _line(value: str) -> str:
    """A header value; a line break in it would let a setting write headers of its own."""
    if any(each in value for each in "\r\n\0"):
        raise template.MissingValue("a header value has a line break in it")
    return value


def _tokens(places: AnswerFile, body: Mapping[str, object], response: Response) -> Tokens | None:
    """The tokens of an answer; None where one that has to be there is not."""
    access = _token(places.access_token, body, response)
    refresh = _token(places.refresh_token, body, response)
    if access is None and (places.access_token is not None or refresh is None):
        return None
    token_type = answer.token_type(_find(places.token_type, body, response))
    scope = _find(places.scope, body, response) if places.scope else None
    return Tokens(access, refresh, token_type, _scope(scope))


def _token(place: str | Place | None, body: Mapping[str, object], response: Response) -> Token | None:
    if place is None:
        return None
    if isinstance(place, str):
        place = Place(at=place)
    value = answer.token(_find(place.at, body, response))
    if value is None:
        return None
    identifier = answer.text(_find(place.id, body, response)) if place.id else None
    return Token(Secret(value), _lifetime(place, value, body, response), identifier)


def _lifetime(place: Place, value: str, body: Mapping[str, object], response: Response) -> float | None:
    """By the field that the recipe names; where it names none, or the answer has none, by the JWT itself."""
    lifetime = None
    if place.expires_in:
        lifetime = answer.lifetime_in(_find(place.expires_in, body, response))
    elif place.expires_in_ms:
        lifetime = answer.lifetime_in(_find(place.expires_in_ms, body, response), unit=0.001)
    elif place.expires_at:
        lifetime = answer.lifetime_until(_find(place.expires_at, body, response), response)
    return answer.lifetime_of_jwt(value, response) if lifetime is None else lifetime


def _find(path: str | list[str] | None, body: Mapping[str, object], response: Response) -> object:
    """What stands at a path; of a list of paths, the first that is there."""
    for each in [path] if isinstance(path, str) else path or []:
        if each.startswith("header:"):
            found: object = response.header(each.removeprefix("header:").lower())
        else:
            found = _walk(each, body)
        if found is not None:
            return found
    return None


def _walk(path: str, found: object) -> object:
    for step in path.split("."):
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list) and step.isdigit() and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def _scope(value: object) -> tuple[str, ...] | None:
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    return None


def _words(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# -- reading the file


def _operation(key: str, file: OperationFile, recipe: RecipeFile, known: frozenset[str]) -> Operation:
    method, _, path = file.request.partition(" ")
    if method not in METHODS or not path.startswith("/") or path.startswith("//") or set(path) & set("?#\\ \t\r\n"):
        raise expected(
            'a method and a path with one leading slash, such as "POST /token"', file.request, key=f"{key}.request"
        )
    bodies = [name for name in ("json", "form", "multipart") if getattr(file, name) is not None]
    if len(bodies) > 1:
        raise ConfigError(f"at most one of json, form and multipart; found {' and '.join(bodies)}", key=key)
    if file.basic is not None and len(file.basic) != 2:
        raise expected("an array of two: user name and password", file.basic, key=f"{key}.basic")
    for name in file.headers:
        if not HEADER_NAME.fullmatch(name) or name.lower() in OURS:
            raise ConfigError("this header cannot be set by a recipe", key=f"{key}.headers.{name}")
    needs = frozenset(_needs(key, file, known))
    return Operation(key, method, path, file, dict(_errors(key, file)), file.answer or recipe.answer, needs)


def _needs(key: str, file: OperationFile, known: frozenset[str]) -> Iterator[str]:
    """The placeholders that must have a value; raises for those that nobody declares."""
    parts = {
        "request": file.request, "headers": file.headers, "basic": file.basic, "query": file.query,
        "json": file.json, "form": file.form, "multipart": file.multipart,
    }  # fmt: skip
    for part, value in parts.items():
        for text in _texts(value):
            if template.stray_brace(text):
                raise ConfigError(
                    f'"{text}": braces that are no placeholder; write {{name}} or {{name?}}', key=f"{key}.{part}"
                )
        for name, may_be_missing in template.names(value):
            if name not in known and name not in STORED:
                declared = ", ".join(sorted(known | set(STORED)))
                raise ConfigError(f"{{{name}}} is declared nowhere; known: {declared}", key=f"{key}.{part}")
            if may_be_missing and part in ("request", "basic"):
                raise ConfigError(f"{{{name}?}} cannot be left out here", key=f"{key}.{part}")
            if not may_be_missing:
                yield name


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict() | list():
            for each in value.values() if isinstance(value, dict) else value:
                yield from _texts(each)


def _errors(key: str, file: OperationFile) -> Iterator[tuple[int, str]]:
    for status, meaning in file.errors.items():
        if not status.isdigit() or not 400 <= int(status) <= 499 or int(status) in answer.LATER:
            raise expected('a status from 400 to 499 that does not mean "later" anyway', status, key=f"{key}.errors")
        if meaning not in MEANINGS:
            raise expected(f"one of {', '.join(MEANINGS)}", meaning, key=f"{key}.errors.{status}")
        yield int(status), meaning


MEANINGS = ("misconfigured", "rejected", "retry", "done")
# Statuses that mean "a person must change something" where a recipe does not name them.
REFUSALS = frozenset({400, 401, 403, 404, 405, 406, 409, 410, 411, 413, 414, 415, 422})
