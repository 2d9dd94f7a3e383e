# A recipe tried at its real server, once and without a daemon: what was sent, what came and what was read, in lines
# that hold no secret. A request is shown as it would be with every secret masked; of an answer, what is plainly none.
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from brokerd.config import GrantSettings
from brokerd.config.grants import PUBLIC
from brokerd.core import record as records
from brokerd.core.breaker import Breaker
from brokerd.core.exchange import Exchange, Request, Response
from brokerd.core.outcome import (
    Declined,
    Done,
    Issued,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
    Token,
    Unsupported,
)
from brokerd.core.reason import reason
from brokerd.core.record import Doomed, Record
from brokerd.core.secret import MASK, Secret
from brokerd.core.signing import Signer
from brokerd.dialects.body import json_object
from brokerd.dialects.dialect import GrantView
from brokerd.edge.clock import SystemClock
from brokerd.edge.entropy import SystemEntropy
from brokerd.edge.http import HttpClient
from brokerd.edge.secrets import read_secret
from brokerd.installation import http_settings
from brokerd.provider import Provider

MASKED = Secret(MASK)
LONGEST_WORD = 16  # characters; what is longer may be a token
SHOWN = {"content-type", "content-length", "date", "retry-after", "cache-control", "server", "allow"}  # headers
TELLING = re.compile(
    r"token(?!_type)|secret|passw|key|jwt|ticket|cookie|session|otp|nonce|sign|credential", re.IGNORECASE
)
HARMLESS = re.compile(
    r"[A-Za-z_.-]{0,16}|\d{1,10}|\d{4}-\d\d-\d\d([T ][\d:.,]+(Z|[+-]\d\d:?\d\d)?)?|https?://[\w.:-]+(/[a-z./_-]{0,60})?"
)
MOST = 4_000  # characters of a body


class Trial:
    """One grant's exchanges with its provider. `lines` grows with each. Raises SecretUnreadable."""

    def __init__(self, grant: GrantSettings) -> None:
        self.lines: list[str] = []
        self._grant = grant
        self._dialect = grant.provider.dialect
        self._clock, self._entropy = SystemClock(), SystemEntropy()
        self._credentials = {name: read_secret(source) for name, source in grant.credentials.items()}
        self._record = Record(grant.name)
        self._http = _Overheard(HttpClient(http_settings(grant.provider), self._clock))
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
            begun = records.begun(self._record)
            self._record = records.issued(begun, outcome.tokens, self._clock.now(), 0.0, "")
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
        return None if token is None else self._dialect.revoke(view, Doomed(**{kind: token}))

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
                self.lines.append(
                    "= no token is where [answer] says, or it is none that can be sent: see the names above"
                )
        self.lines += [f"= {line}" for line in _read(outcome)]
        return outcome

    def _view(self, *, masked: bool = False) -> GrantView:
        access, refresh = self._record.access_token, self._record.refresh_token
        view = GrantView(self._credentials, self._grant.settings, access, refresh, Signer(self._clock, self._entropy))
        if not masked:
            return view
        return replace(
            view,
            credentials={name: each if name in PUBLIC else MASKED for name, each in self._credentials.items()},
            access_token=access and replace(access, value=MASKED),
            refresh_token=refresh and replace(refresh, value=MASKED),
            signer=_SignsNothing(self._clock, self._entropy),
        )


class _SignsNothing(Signer):
    """The signer of a view whose keys are masked."""

    def assertion(self, *_: object, **__: object) -> Secret:
        return MASKED


class _Overheard:
    """A provider's way out that remembers each request with its answer until they are taken."""

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._heard: list[tuple[Request, Response]] = []

    async def send(self, request: Request) -> Response:
        response = await self._http.send(request)
        self._heard.append((request, response))
        return response

    def take(self) -> list[tuple[Request, Response]]:
        heard, self._heard = self._heard, []
        return heard

    def sweep(self) -> None:
        self._http.sweep()

    async def aclose(self) -> None:
        await self._http.aclose()


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
        if text := _words(response.body.decode(errors="replace")[:MOST], secrets):
            yield f"< {text}"
        return
    for line in json.dumps(_plain(body, "", secrets), indent=2, ensure_ascii=True)[:MOST].splitlines():
        yield f"< {line}"


def _plain(value: object, name: str, secrets: tuple[Secret, ...]) -> object:
    """What may be shown of an answer: its form, its numbers, and text that is plainly no secret."""
    match value:
        case Mapping():
            return {reason(key, secrets): _plain(each, key, secrets) for key, each in value.items()}
        case list():
            return [_plain(each, name, secrets) for each in value]
        case str() if TELLING.search(name) or not (" " in value or HARMLESS.fullmatch(value)):
            return _hidden(value)
        case str():
            return _words(value, secrets)
        case _:
            return value


def _words(text: str, secrets: tuple[Secret, ...]) -> str:
    """A sentence, without the secrets that were sent, and then without the words that may be tokens."""
    words = reason(text, secrets).split()
    return " ".join(word if len(word) <= LONGEST_WORD or HARMLESS.fullmatch(word) else MASK for word in words)


def _hidden(value: str) -> str:
    return f"{MASK} ({len(value)} characters)"


def _brought(outcome: Outcome) -> Iterator[Secret]:
    if isinstance(outcome, Issued):
        for token in (outcome.tokens.access_token, outcome.tokens.refresh_token):
            if token is not None:
                yield token.value


def _read(outcome: Outcome) -> Iterator[str]:
    match outcome:
        case Issued(tokens):
            yield f"access token: {_token(tokens.access_token)}"
            yield f"refresh token: {_token(tokens.refresh_token)}"
            yield f"token type: {reason(tokens.token_type)}"
            yield f"scope: {'not named' if tokens.scope is None else reason(' '.join(tokens.scope))}"
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


def _token(token: Token | None) -> str:
    if token is None:
        return "none"
    lifetime = "no expiry is known" if token.lifetime is None else f"lives {token.lifetime:.0f} s"
    return f"{len(token.value.reveal())} characters, {lifetime}" + (", with an id" if token.id else "")
