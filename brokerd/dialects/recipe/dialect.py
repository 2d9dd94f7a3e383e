# The recipe dialect: fills a recipe's templates and sends them. file.py says what a recipe file may contain,
# outcomes.py what an answer means.
from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from brokerd.core.exchange.algorithms import UnusableKey
from brokerd.core.exchange.outcomes import Declined, Misconfigured, Outcome
from brokerd.core.exchange.steps import Exchange, Request, answered
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.grant.renewal import Ability
from brokerd.core.grant.target import Target
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError
from brokerd.dialects.answer_fields import Wanted
from brokerd.dialects.dialect import Dialect, GrantView, unsafe
from brokerd.dialects.recipe import outcomes, template
from brokerd.dialects.recipe.answer import secret_places
from brokerd.dialects.recipe.file import ALWAYS_SETTINGS, JWT, STORED, JwtFile, OperationFile, Recipe, RecipeRequest
from brokerd.dialects.refusal_advice import advised

# Credentials that identify the client and are no secrets, but for api_key.
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
            words = f"recipe {recipe.name} has no such credential; it has: {known}"
            words += f"; {name} is a setting: write settings.{name}" if name in recipe.settings else ""
            raise ConfigError(words, key=f"credentials.{name}")
        for name in sorted(set(settings) - {*recipe.settings, *ALWAYS_SETTINGS}):
            known = ", ".join(recipe.settings) or "none"
            raise ConfigError(f"recipe {recipe.name} has no such setting; it has: {known}", key=f"settings.{name}")
        have = credentials | set(settings) | set(self.settings)
        alone = recipe.renew is not None and not recipe.renew.extends  # a token can be imported for it
        if not alone and not any(each.needs <= have for each in recipe.issue):
            lacking = {each.needs - have for each in recipe.issue if not each.needs & set(STORED)}
            shortest = [each for each in lacking if not any(other < each for other in lacking)]
            wanted = " or ".join(sorted(", ".join(map(self._place, sorted(each))) for each in shortest))
            raise ConfigError(f"recipe {recipe.name} cannot get a token without {wanted}; add it", key="credentials")

    def _place(self, name: str) -> str:
        return f"settings.{name}" if name in self.recipe.settings else name

    def identity(self, view: GrantView) -> tuple[str, ...]:
        parts = urlsplit(self.base_url)
        who = tuple(f"{n}={view.credentials[n].reveal()}" for n in IDENTIFYING if n in view.credentials)
        grants = tuple(f"{name}_grant={each.grant}" for name, each in sorted(view.sources.items()) if each.grant)
        return (self.recipe.name, f"{parts.scheme}://{parts.netloc}", *who, *grants)

    def fields(self, _settings: Mapping[str, object]) -> tuple[str, ...]:
        return self.recipe.fields

    def ability(self, view: GrantView) -> Ability:
        chosen, renew = self._issue(view), self.recipe.renew
        if renew is not None and renew.extends and view.access_token is None:
            renew = None  # nothing is left that could live on
        if view.target is not None:
            chosen = chosen if _can_name(chosen, view.target) and not (chosen and chosen.sends_stored) else None
            renew = renew if _can_name(renew, view.target) else None
        return Ability(
            issue=chosen is not None,
            renew=renew is not None,
            issue_sends_stored=chosen is not None and chosen.sends_stored,
            renew_sends_stored=renew is not None and renew.sends_stored,
        )

    def takes_import(self, _settings: Mapping[str, object]) -> bool:
        renew = self.recipe.renew
        return renew is not None and bool(renew.sends & {"refresh_token", "refresh_token.id"})

    def lacks(self, view: GrantView) -> str | None:
        assert view.target is not None
        if view.refresh_token is not None and _can_name(self.recipe.renew, view.target):
            return unsafe(view, {})
        if any(_can_name(each, view.target) for each in (self.recipe.renew, *self.recipe.issue)):
            return None
        return f"recipe {self.recipe.name} has no request that can name another {' and '.join(view.target.named())}"

    def issue(self, view: GrantView) -> Exchange:
        operation = self._issue(view)
        if operation is None:
            there = set(self._values(view))
            lacking = min((each.needs - there for each in self.recipe.issue), key=len, default=frozenset())
            words = f"add {' and '.join(sorted(lacking))}" if lacking else "import a token first: brokerctl import"
            return _at_once(Misconfigured(f"recipe {self.recipe.name} cannot get a first token; {words}"))
        return self._for_tokens(operation, view)

    def renew(self, view: GrantView) -> Exchange:
        if self.recipe.renew is None:
            return _at_once(
                Misconfigured(
                    f"recipe {self.recipe.name} has no [renew]; remove the refresh token, or add one to the recipe"
                )
            )
        return self._for_tokens(self.recipe.renew, view)

    def revoke(self, view: GrantView, token: PendingRevocation) -> Exchange | None:
        operation = self.recipe.revoke_access if token.access_token else self.recipe.revoke_refresh
        if operation is None or not operation.needs <= set(self._values(view)):
            return None
        return self._for_revocation(operation, view)

    def ends_both(self, token: PendingRevocation) -> bool:
        operation = self.recipe.revoke_access if token.access_token else self.recipe.revoke_refresh
        return operation is not None and operation.ends_both

    def _issue(self, view: GrantView) -> RecipeRequest | None:
        there = set(self._values(view))
        return next((each for each in self.recipe.issue if each.needs <= there), None)

    def _for_tokens(self, operation: RecipeRequest, view: GrantView) -> Exchange:
        request = self._request(operation, view)
        if isinstance(request, Misconfigured):
            return request
        response = yield from answered(request)
        fields, held = self._wanted(operation, view), view.access_token if operation.extends else None
        outcome = outcomes.tokens(operation, self.recipe.errors, response, request, fields, held)
        shown = [name for name in self.recipe.credentials if name in operation.sends and name in view.credentials]
        outcome = advised(outcome, response, view, shown)
        # A recipe does not say whether the target or the grant was refused: the grant's next renewal finds out.
        if view.target is not None and isinstance(outcome, Misconfigured):
            return Declined(outcome.reason)
        return outcome

    def _wanted(self, operation: RecipeRequest, view: GrantView) -> Wanted:
        """The fields of the operation's answer. A renewal whose answer is said to have fewer keeps the others."""
        brings = operation.answer.fields
        kept: dict[str, Secret] = {}
        if operation is self.recipe.renew and view.target is None:
            kept = {n: each for n, each in view.fields.items() if n in self.recipe.fields and n not in brings}
        return Wanted((*brings, *kept), kept, optional=view.target is not None)

    def _for_revocation(self, operation: RecipeRequest, view: GrantView) -> Exchange:
        request = self._request(operation, view)
        if isinstance(request, Misconfigured):
            return request
        response = yield from answered(request)
        return outcomes.revoked(operation, self.recipe.errors, response, request)

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

    def _request(self, operation: RecipeRequest, view: GrantView) -> Request | Misconfigured:
        try:
            return self._filled(operation, view)
        except (template.MissingValue, UnusableKey) as error:
            return Misconfigured(f"{operation.key}: {error}")

    def _filled(self, operation: RecipeRequest, view: GrantView) -> Request:
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
            operation.method,
            url,
            tuple(headers),
            body,
            tuple(sent),
            operation.sends_stored,
            password=has_password,
            secret_places=secret_places(operation.answer),
        )


def _signed(file: JwtFile, values: template.Values, view: GrantView) -> Secret:
    """The assertion of one request. Raises MissingValue and UnusableKey."""
    key = template.fill(file.key, values)
    claims = template.revealed(template.fill(file.claims, values))
    key_id = None if file.key_id is None else template.flat(template.fill(file.key_id, values))
    assert isinstance(key, Secret)
    assert isinstance(claims, dict)
    return view.sign.assertion(claims, key, file.algorithm, key_id=key_id, lifetime=file.lifetime)


def _can_name(operation: RecipeRequest | None, target: Target) -> bool:
    """Whether the operation brings an access token and can name the target."""
    return (
        operation is not None
        and not operation.extends
        and bool(operation.answer.access_token)
        and target.named().keys() <= operation.sends
    )


def _named(view: GrantView) -> dict[str, object]:
    """The target of a downscoped token, which replaces the grant's own settings; the scope stays a list."""
    if view.target is None:
        return {}
    named: dict[str, object] = {**view.target.named()}
    return named | ({"scope": list(view.target.scope)} if view.target.scope else {})


def _at_once(outcome: Outcome) -> Exchange:
    """An exchange that sends nothing."""
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
    """multipart/form-data (RFC 7578). The boundary is a hash of the fields, so that none of them contains it."""
    boundary = hashlib.sha256(repr(fields).encode()).hexdigest()[:32]
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return "".join((*parts, f"--{boundary}--\r\n")).encode(), f"multipart/form-data; boundary={boundary}"


def _line(value: str) -> str:
    """A header value without line breaks: a setting must not add headers."""
    if any(each in value for each in "\r\n\0"):
        raise template.MissingValue("a value for a header has a line break in it")
    return value
