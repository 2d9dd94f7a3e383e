# Tries a recipe once at its real server, without a daemon: what was sent, what came and what was read, in lines without
# a secret. A request is shown as it would be with every secret masked, an answer with whatever may be a secret masked.
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec import structs

from brokerd.broker.provider import Provider
from brokerd.config.grants import PUBLIC, read_grant
from brokerd.config.providers import read_provider
from brokerd.config.recipes import Recipes
from brokerd.config.settings import GrantSettings
from brokerd.config.toml_files import exposure, read_toml, within
from brokerd.core.exchange.outcomes import (
    Declined,
    Done,
    Issued,
    IssuedToken,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
    Unsupported,
)
from brokerd.core.exchange.redaction import reason
from brokerd.core.exchange.signing import Signer
from brokerd.core.exchange.steps import Exchange, Request, Response
from brokerd.core.grant import attempts, issuance
from brokerd.core.grant.record import PendingRevocation, Record
from brokerd.core.secret import MASK, Secret
from brokerd.core.timing.breaker import Breaker
from brokerd.dialects.answer_body import json_object
from brokerd.dialects.answer_words import without_tokens
from brokerd.dialects.dialect import GrantView
from brokerd.edge.files.secret_sources import read_secret
from brokerd.edge.http.client import HttpClient
from brokerd.edge.system.clock import SystemClock
from brokerd.edge.system.entropy import SystemEntropy
from brokerd.setup.installation import http_settings

MASKED = Secret(MASK)
LONGEST_WORD = 16  # characters; what is longer may be a token
SHOWN = {"content-type", "content-length", "date", "retry-after", "cache-control", "server", "allow"}  # headers
SECRET_NAME = re.compile(
    r"token(?!_type)|secret|passw|key|jwt|ticket|cookie|session|otp|nonce|sign|credential", re.IGNORECASE
)
HARMLESS = re.compile(
    r"[A-Za-z_.-]{0,16}|\d{1,10}|\d{4}-\d\d-\d\d([T ][\d:.,]+(Z|[+-]\d\d:?\d\d)?)?|https?://[\w.:-]+(/[a-z./_-]{0,60})?"
)
MOST = 4_000  # characters of a body
TRIAL = "try"  # the name of the provider and of the grant


def trial(
    recipe: Path, provider: Mapping[str, Any], grant: Mapping[str, Any], credentials: Path | None
) -> GrantSettings:
    """The keys of both tables, and a file with the grant's credentials. Raises ConfigError."""
    at = read_provider(TRIAL, Recipes(recipe.parent), None, {"dialect": recipe.stem, **provider})
    raw, exposed = (read_toml(credentials), exposure(credentials)) if credentials else ({}, None)
    with within(credentials or Path(), ""):
        return read_grant(TRIAL, {TRIAL: at}, exposed, (TRIAL,), {}, {"provider": TRIAL, **grant, "credentials": raw})


class Trial:
    """One grant's exchanges with its provider. `lines` grows with each. Raises SecretUnreadable."""

    def __init__(self, grant: GrantSettings) -> None:
        self.lines: list[str] = []
        self._grant = grant
        self._dialect = grant.provider.dialect
        self._clock, self._entropy = SystemClock(), SystemEntropy()
        self._credentials = {name: read_secret(source) for name, source in grant.credentials.items()}
        self._record = Record(grant.name)
        self._http = _RecordingClient(HttpClient(http_settings(grant.provider), self._clock))
        self._provider = Provider(grant.provider, self._http, Breaker(), self._clock, self._entropy)

    async def run(self, operation: str) -> Outcome:
        """Issue, then renew or revoke what came, where that is asked for. The last outcome, or the first bad one."""
        try:
            outcome = await self._ask("issue")
            if isinstance(outcome, Issued) and operation == "renew":
                return await self._ask("renew")
            if isinstance(outcome, Issued) and operation == "revoke":
                return await self._revoke()
            return outcome
        finally:
            await self._http.aclose()

    async def _ask(self, operation: str) -> Outcome:
        start = getattr(self._dialect, operation)
        outcome = await self._show(start(self._view()), start(self._view(masked=True)))
        if isinstance(outcome, Issued):
            begun = attempts.begun(self._record)
            self._record = issuance.issued(begun, outcome.tokens, self._clock.now(), 0.0, "")
        return outcome

    async def _revoke(self) -> Outcome:
        outcome: Outcome | None = None
        for kind in ("access_token", "refresh_token"):
            exchanges = [self._revocation(kind, self._view(masked=masked)) for masked in (False, True)]
            if exchanges[0] is not None and exchanges[1] is not None:
                outcome = await self._show(exchanges[0], exchanges[1])
        return outcome or Misconfigured("the recipe has no revocation for what came")

    def _revocation(self, kind: str, view: GrantView) -> Exchange | None:
        token = getattr(view, kind)
        return None if token is None else self._dialect.revoke(view, PendingRevocation(**{kind: token}))

    async def _show(self, exchange: Exchange, masked: Exchange) -> Outcome:
        """Run it, and put it into lines."""
        shown = next(masked, None)
        masked.close()
        outcome = (await self._provider.converse(exchange)).outcome
        if isinstance(shown, Request):
            self.lines += _sent(shown)
        for request, response in self._http.take():
            self.lines += _came(response, (*request.secrets, *_brought(outcome)))
            if response.status < 300 and isinstance(outcome, RetryLater):
                words = "no token is where [answer] says, or it is none that can be sent: see the names above"
                self.lines.append(f"= {words}")
        self.lines += [f"= {line}" for line in _read(outcome)]
        return outcome

    def _view(self, *, masked: bool = False) -> GrantView:
        access, refresh = self._record.access_token, self._record.refresh_token
        signer, fields = Signer(self._clock, self._entropy), access.fields if access else {}
        view = GrantView(self._credentials, self._grant.settings, access, refresh, signer, fields=fields)
        if not masked:
            return view
        return replace(
            view,
            credentials={name: each if name in PUBLIC else MASKED for name, each in self._credentials.items()},
            access_token=access and structs.replace(access, value=MASKED),
            refresh_token=refresh and replace(refresh, value=MASKED),
            signer=_SignsNothing(self._clock, self._entropy),
        )


class _SignsNothing(Signer):
    """The signer of a view whose keys are masked."""

    def assertion(self, *_: object, **__: object) -> Secret:
        return MASKED


class _RecordingClient:
    """A provider's HTTP client that keeps each request with its answer until they are taken."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._recorded: list[tuple[Request, Response]] = []
        self.sweep, self.aclose = http.sweep, http.aclose

    async def send(self, request: Request) -> Response:
        response = await self._http.send(request)
        self._recorded.append((request, response))
        return response

    def take(self) -> list[tuple[Request, Response]]:
        recorded, self._recorded = self._recorded, []
        return recorded


def _sent(request: Request) -> Iterator[str]:
    yield f"> {request.method} {_unquoted(request.url)}"
    for name, value in request.headers:
        yield f"> {name}: {f'Basic {MASK}' if value.startswith('Basic ') else value}"
    for line in _unquoted(request.body.decode()).splitlines():
        yield f"> {line}"


def _unquoted(text: str) -> str:
    return text.replace("%2A%2A%2A", MASK)


def _came(response: Response, secrets: tuple[Secret, ...]) -> Iterator[str]:
    yield f"< {response.status}"
    for name, value in response.headers:
        yield f"< {name}: {reason(value, secrets) if name in SHOWN else _hidden(value)}"
    body = json_object(response)
    if body is None:
        if text := without_tokens(response.body.decode(errors="replace")[:MOST], secrets, LONGEST_WORD, HARMLESS):
            yield f"< {text}"
        return
    for line in json.dumps(_plain(body, "", secrets), indent=2, ensure_ascii=True)[:MOST].splitlines():
        yield f"< {line}"


def _plain(value: object, name: str, secrets: tuple[Secret, ...]) -> object:
    """What may be shown of an answer: its form, its numbers, and text that is certainly no secret."""
    match value:
        case Mapping():
            return {reason(key, secrets): _plain(each, key, secrets) for key, each in value.items()}
        case list():
            return [_plain(each, name, secrets) for each in value]
        case str() if SECRET_NAME.search(name) or not (" " in value or HARMLESS.fullmatch(value)):
            return _hidden(value)
        case str():
            return without_tokens(value, secrets, LONGEST_WORD, HARMLESS)
        case _:
            return value


def _hidden(value: str) -> str:
    return f"{MASK} ({len(value)} characters)"


def _brought(outcome: Outcome) -> Iterator[Secret]:
    if isinstance(outcome, Issued):
        for token in (outcome.tokens.access_token, outcome.tokens.refresh_token):
            if token is not None:
                yield token.value
        yield from outcome.tokens.fields.values()


def _read(outcome: Outcome) -> Iterator[str]:
    match outcome:
        case Issued(tokens):
            yield f"access token: {_token(tokens.access_token)}"
            yield f"refresh token: {_token(tokens.refresh_token)}"
            yield f"token type: {reason(tokens.token_type)}"
            yield f"scope: {'not named' if tokens.scope is None else reason(' '.join(tokens.scope))}"
            for name, value in tokens.fields.items():
                yield f"field {name}: {len(value.reveal())} characters"
        case Done():
            yield "done"
        case Rejected(words):
            yield f"rejected: {words}"
        case Misconfigured(words) | Declined(words):
            yield f"misconfigured: {words}"
        case Unsupported(words):
            yield f"not supported: {words}"
        case _:
            yield f"to be tried again later ({outcome.cause.label}): {outcome.reason}"


def _token(token: IssuedToken | None) -> str:
    if token is None:
        return "none"
    lifetime = "no expiry is known" if token.lifetime is None else f"lives {token.lifetime:.0f} s"
    return f"{len(token.value.reveal())} characters, {lifetime}" + (", with an id" if token.id else "")
