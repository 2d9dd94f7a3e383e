# get, get_many, proof: answers with a living token at once, or later if the caller has to wait for one.
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.core.access.policy import Action
from brokerd.core.errors import Code, Failure
from brokerd.core.grant.target import Target
from brokerd.core.grant.tokens import AccessToken
from brokerd.dialects.dialect import DEFAULT_PRESENT
from brokerd.server.methods.method import AnswerLater
from brokerd.server.methods.parameters import WAIT, refused_of, target_of
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Which token a caller asked for, and by which method."""

    method: str
    grant: str
    min_ttl: float
    wait: float
    refused: bytes | None = None
    target: Target | None = None


class TokenMethods:
    def __init__(self, broker: TokenBroker, rights: Rights, events: EventLog, metrics: Metrics) -> None:
        self._broker = broker
        self._rights = rights
        self._events = events
        self._metrics = metrics

    def get(self, session: CallerSession, params: dict[str, Any]) -> object:
        """A living token at once: nearly every request is one of these. Otherwise later."""
        grant = params["grant"]
        if len(params) > 1 and (target := target_of(params)) is not None:
            return self._get_downscoped(session, params, target)
        if not self._rights.may_get(session, grant):
            self._rights.require(session, Action.GET, grant, "get")
        min_ttl, refused = params.get("min_ttl", 0.0), refused_of(params)
        token = self._broker.cached(grant, min_ttl, refused)
        if token is None or self._events.forbids_serving:
            request = TokenRequest("get", grant, min_ttl, params.get("wait", WAIT), refused)
            return AnswerLater(lambda: self._get_later(session, request))
        self._metrics.gets_cached.inc()
        return self.as_map(session, grant, token)

    def _get_downscoped(self, session: CallerSession, params: dict[str, Any], target: Target) -> object:
        """A token of the grant for another scope, audience or resource. The rules are asked again about what the
        provider granted: it may be more than was asked for."""
        grant, min_ttl, refused = params["grant"], params.get("min_ttl", 0.0), refused_of(params)
        self._rights.require(session, Action.GET, grant, "get", target)

        def served(token: AccessToken) -> dict[str, object]:
            self._rights.require_granted(session, grant, target, token.scope)
            found = self.as_map(session, grant, token, target=target)
            return found if token.scope is None else {**found, "scope": list(token.scope)}

        token = self._broker.cached(grant, min_ttl, refused, target)
        if token is not None:
            self._metrics.gets_cached.inc()
            return served(token)
        request = TokenRequest("get", grant, min_ttl, params.get("wait", WAIT), refused, target)

        @AnswerLater
        async def answer() -> object:
            return served(await self._wait_for(session, request))

        return answer

    async def _get_later(self, session: CallerSession, request: TokenRequest) -> dict[str, object]:
        token = await self._wait_for(session, request)
        with self._events.failures_of(request.method, request.grant, session.caller):
            return self.as_map(session, request.grant, token, request.method)

    async def _wait_for(self, session: CallerSession, request: TokenRequest) -> AccessToken:
        """The token, once there is one and if the caller still has the right to get it then. Nothing may be awaited
        between this and the answer (law 9). A caller that has lost the right is not told either why there is none."""
        grant, min_ttl, refused, target = request.grant, request.min_ttl, request.refused, request.target
        until, has_ended = trio.current_time() + request.wait, True
        while has_ended:
            waited, failure = True, None
            try:
                waited = await self._wait(grant, max(0.0, until - trio.current_time()), min_ttl, refused, target)
            except Failure as caught:
                failure = caught
            had = self._has(grant, min_ttl, refused, target)
            await self._rights.require_again(session, Action.GET, grant, request.method, target)
            # The token may end while that is looked at: then the next one is waited for.
            has_ended = had and not self._has(grant, min_ttl, refused, target) and trio.current_time() < until
        with self._events.failures_of(request.method, grant, session.caller):
            return self._broker.found_token(grant, min_ttl, refused, target, waited=waited, failure=failure)

    def _has(self, grant: str, min_ttl: float, refused: bytes | None = None, target: Target | None = None) -> bool:
        """Whether there is such a token now. False also if there can be none: `_wait` says why."""
        try:
            return self._broker.cached(grant, min_ttl, refused, target) is not None
        except Failure:
            return False

    async def _wait(
        self, grant: str, wait: float, min_ttl: float, refused: bytes | None = None, target: Target | None = None
    ) -> bool:
        """As the broker's `wait_for_token`. How long a request waited is counted, also if it waited in vain."""
        began, waited = trio.current_time(), True
        try:
            waited = await self._broker.wait_for_token(grant, wait, min_ttl, refused, target)
            return waited
        finally:
            if waited:
                self._metrics.get_wait.observe(trio.current_time() - began)

    def forbidden(self) -> Failure | None:
        """Why no token may be served now, even a living one: the audit log could not say who got it."""
        if (why := self._events.forbids_serving) is None:
            return None
        words = f'the audit log cannot be written, and [daemon] audit = "stop" forbids serving tokens without it: {why}'
        return Failure(Code.UNAVAILABLE, words, retry_after=5.0)

    def as_map(
        self,
        session: CallerSession,
        grant: str,
        token: AccessToken,
        method: str = "get",
        *,
        target: Target | None = None,
    ) -> dict[str, object]:
        """The only place where a token is given out. Raises Failure."""
        if (failure := self.forbidden()) is not None:
            raise failure
        found: dict[str, object] = {
            "grant": grant,
            "value": token.value.reveal(),
            "token_type": token.token_type,
            "expires_at": self._broker.expires_at(token),
        }
        present = self._broker.grants[grant].settings.provider.dialect.present(token.token_type)
        if present is not DEFAULT_PRESENT:
            found["present"] = present
        if token.fields:
            found["fields"] = {name: value.reveal() for name, value in token.fields.items()}
        self._events.fetched(grant, session.caller, token, self._rights.rule_for, method, target)
        return found

    async def get_many(self, session: CallerSession, params: dict[str, Any]) -> object:
        """Wait for all at the same time, then ask the rules again and give out all in one step (law 9). A token may end
        while another one is waited for: then the next one is waited for too."""
        grants: list[str] = params["grants"]
        min_ttl, until = params.get("min_ttl", 0.0), trio.current_time() + params.get("wait", WAIT)
        failures: dict[int, Failure] = {}
        waited: dict[int, bool] = {}
        had: dict[int, bool] = {}

        async def wait_for(number: int, grant: str) -> None:
            try:
                waited[number] = await self._wait(grant, max(0.0, until - trio.current_time()), min_ttl)
            except Failure as failure:
                failures[number] = failure
            had[number] = self._has(grant, min_ttl)

        def entry(number: int, grant: str) -> dict[str, object]:
            try:
                self._rights.require(session, Action.GET, grant, "get_many")
                with self._events.failures_of("get_many", grant, session.caller):
                    token = self._broker.found_token(
                        grant, min_ttl, waited=waited.get(number, False), failure=failures.get(number)
                    )
                    return {"token": self.as_map(session, grant, token, "get_many")}
            except Failure as failure:
                return {"error": failure.as_map()}

        denied: dict[int, dict[str, object]] = {}
        for number, grant in enumerate(grants):
            try:
                self._rights.require(session, Action.GET, grant, "get_many")
                had[number] = self._has(grant, min_ttl)
            except Failure as failure:
                denied[number] = {"error": failure.as_map()}
                await trio.lowlevel.checkpoint()  # each denial is logged; others have their turn in between
        lacking = [number for number in had if not had[number]]
        while True:
            async with trio.open_nursery() as nursery:
                for number in lacking:
                    nursery.start_soon(wait_for, number, grants[number])
            await self._rights.look_again(session, grants or [None], "get_many")
            lacking = [number for number in had if had[number] and not self._has(grants[number], min_ttl)]
            if not lacking or trio.current_time() >= until:
                break
        return [denied.get(number) or entry(number, grant) for number, grant in enumerate(grants)]

    async def proof(self, session: CallerSession, params: dict[str, Any]) -> object:
        """A token that is bound to a key, and a proof for one request with that token (RFC 9449 §7)."""
        grant, nonce = params["grant"], params.get("nonce")
        await self._wait_for(session, TokenRequest("proof", grant, 0.0, params.get("wait", WAIT)))
        with self._events.failures_of("proof", grant, session.caller):
            token, proof = await self._broker.proof(grant, params["http_method"], params["url"], nonce=nonce, wait=0.0)
            return {**self.as_map(session, grant, token, "proof"), "proof": proof.reveal()}
