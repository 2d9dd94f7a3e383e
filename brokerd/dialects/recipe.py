# The recipe dialect at work: fills a recipe's templates and sends them. What may stand in a recipe file is known to
# recipe_file.py, what an answer means to recipe_answer.py.
from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from brokerd.core.exchange import Exchange, Request, answered
from brokerd.core.outcome import Declined, Misconfigured, Outcome
from brokerd.core.record import Doomed
from brokerd.core.renewal import Ability
from brokerd.core.secret import Secret
from brokerd.core.signing import UnusableKey
from brokerd.core.typed import ConfigError
from brokerd.core.wanted import Wanted
from brokerd.dialects import recipe_answer, template
from brokerd.dialects.advice import advised
from brokerd.dialects.dialect import Dialect, GrantView, unsafe
from brokerd.dialects.recipe_file import (
    ALWAYS_SETTINGS,
    JWT,
    STORED,
    JwtFile,
    Operation,
    OperationFile,
    Recipe,
)

# Credentials that say who, not that.
IDENTIFYING = ("client_id", "username", "user", "email", "account", "role_id", "api_key")
PASSWORD = "password"  # noqa: S105 - the credential whose repetition locks accounts (law 7)


@dataclass(frozen=True, slots=True)
class RecipeDialect(Dialect):
    """A recipe at one provider."""

    recipe: Recipe
    base_url: str
    settings: Mapping[str, object]

    def present(self, _token_type: str) -> str:
        return self.recipe.present

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Without a path where that depends on the grant."""
        operation = next(iter(self.recipe.issue), self.recipe.renew)
        path = operation.path if operation and "{" not in operation.path else ""
        return {"token_endpoint": self.base_url + path}

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
        if view.wanted is not None:
            chosen = chosen if _varies(chosen, view.wanted) and not (chosen and chosen.spends) else None
            renew = renew if _varies(renew, view.wanted) else None
        return Ability(
            issue=chosen is not None,
            renew=renew is not None,
            issue_spends=chosen is not None and chosen.spends,
            renew_spends=renew is not None and renew.spends,
        )

    def lacks(self, view: GrantView) -> str | None:
        assert view.wanted is not None
        if view.refresh_token is not None and _varies(self.recipe.renew, view.wanted):
            return unsafe(view, {})
        if any(_varies(each, view.wanted) for each in (self.recipe.renew, *self.recipe.issue)):
            return None
        return f"{self.recipe.name} has no request for a token that could name its {' and '.join(view.wanted.named())}"

    def issue(self, view: GrantView) -> Exchange:
        operation = self._issue(view)
        if operation is None:
            there = set(self._values(view))
            lacking = min((each.needs - there for each in self.recipe.issue), key=len, default=frozenset())
            words = f"it is without {' and '.join(sorted(lacking))}" if lacking else "it begins with an import"
            return _at_once(Misconfigured(f"{self.recipe.name}: {words}"))
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

    def ends_both(self, token: Doomed) -> bool:
        operation = self.recipe.revoke_access if token.access_token else self.recipe.revoke_refresh
        return operation is not None and operation.ends_both

    def _issue(self, view: GrantView) -> Operation | None:
        there = set(self._values(view))
        return next((each for each in self.recipe.issue if each.needs <= there), None)

    def _for_tokens(self, operation: Operation, view: GrantView) -> Exchange:
        request = self._request(operation, view)
        if isinstance(request, Misconfigured):
            return request
        response = yield from answered(request)
        outcome = recipe_answer.tokens(operation, self.recipe.reason, response, request)
        shown = [name for name in self.recipe.credentials if name in operation.sends and name in view.credentials]
        outcome = advised(outcome, response, view, shown)
        # Which of the two it is, no recipe says: of the grant itself its own next renewal learns.
        if view.wanted is not None and isinstance(outcome, Misconfigured):
            return Declined(outcome.reason)
        return outcome

    def _for_revocation(self, operation: Operation, view: GrantView) -> Exchange:
        request = self._request(operation, view)
        if isinstance(request, Misconfigured):
            return request
        response = yield from answered(request)
        return recipe_answer.revoked(operation, self.recipe.reason, response, request)

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
            **_named(view),
        }
        return {name: value for name, value in values.items() if value is not None and value != []}

    def _request(self, operation: Operation, view: GrantView) -> Request | Misconfigured:
        try:
            return self._filled(operation, view)
        except (template.MissingValue, UnusableKey) as error:
            return Misconfigured(f"{operation.key}: {error}")

    def _filled(self, operation: Operation, view: GrantView) -> Request:
        file, values = operation.file, self._values(view)
        if file.jwt is not None:
            values[JWT] = _signed(file.jwt, values, view)
        headers = [] if "accept" in map(str.lower, file.headers) else [("Accept", "application/json")]
        sent = [value for value in values.values() if isinstance(value, Secret)]
        filled = template.fill(file.headers, values)
        assert isinstance(filled, dict)
        headers += [(name, _line(template.flat(value))) for name, value in filled.items()]
        if file.basic is not None:
            user, password = (template.flat(template.fill(each, values)) for each in file.basic)
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            headers.append(("Authorization", f"Basic {pair}"))
            sent.append(Secret(pair))
        body, content_type = _body(file, values)
        if content_type:
            headers.append(("Content-Type", content_type))
        url = self.base_url + template.fill_path(operation.path, values)
        if query := template.fill(file.query, values):
            assert isinstance(query, dict)
            url += "?" + urlencode({name: template.flat(value) for name, value in query.items()})
        has_password = PASSWORD in operation.sends and PASSWORD in values
        return Request(
            operation.method, url, tuple(headers), body, tuple(sent), operation.spends, password=has_password
        )


def _signed(file: JwtFile, values: template.Values, view: GrantView) -> Secret:
    """The assertion of one request. Raises MissingValue and UnusableKey."""
    key = template.fill(file.key, values)
    claims = template.revealed(template.fill(file.claims, values))
    key_id = None if file.key_id is None else template.flat(template.fill(file.key_id, values))
    assert isinstance(key, Secret)
    assert isinstance(claims, dict)
    return view.sign.assertion(claims, key, file.algorithm, key_id=key_id, lifetime=file.lifetime)


def _varies(operation: Operation | None, wanted: Wanted) -> bool:
    """Whether the operation brings an access token and can name what is wanted of it."""
    return operation is not None and bool(operation.answer.access_token) and wanted.named().keys() <= operation.sends


def _named(view: GrantView) -> dict[str, object]:
    """What a variant names in the place of the grant's own settings; a list stays a list."""
    if view.wanted is None:
        return {}
    named: dict[str, object] = {**view.wanted.named()}
    return named | ({"scope": list(view.wanted.scope)} if view.wanted.scope else {})


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
