# get, get_many, proof: a living token at once, or the wait for one.
from __future__ import annotations

from typing import Any

import trio

from brokerd.audit import Audit
from brokerd.broker import Broker
from brokerd.core.failure import Code, Failure
from brokerd.core.policy import Action
from brokerd.core.record import AccessToken
from brokerd.core.wanted import Wanted
from brokerd.dialects.dialect import DEFAULT_PRESENT
from brokerd.methods.parameters import WAIT
from brokerd.methods.parameters import refused as refused_of
from brokerd.methods.parameters import wanted as wanted_of
from brokerd.methods.session import Later, Rights, Session
from brokerd.metrics import Metrics


class Fetching:
    def __init__(self, broker: Broker, rights: Rights, audit: Audit, metrics: Metrics) -> None:
        self._broker = broker
        self._rights = rights
        self._audit = audit
        self._metrics = metrics

    def get(self, session: Session, params: dict[str, Any]) -> object:
        """A living token at once: nearly every request is one of these. Else later."""
        grant = params["grant"]
        if len(params) > 1 and (wanted := wanted_of(params)) is not None:
            return self._get_variant(session, params, wanted)
        if not self._rights.may_get(session, grant):
            self._rights.require(session, Action.GET, grant, "get")
        min_ttl, refused = params.get("min_ttl", 0.0), refused_of(params)
        token = self._broker.cached(grant, min_ttl, refused)
        if token is None or self._audit.forbids:
            return lambda: self._fetch(session, grant, min_ttl, params.get("wait", WAIT), refused)
        self._metrics.gets_cached.inc()
        return self.as_map(session, grant, token)

    def _get_variant(self, session: Session, params: dict[str, Any], wanted: Wanted) -> object:
        """A token of the grant for something else than its own. What the provider granted is looked at again by the
        rules: it may be more than was asked for."""
        grant, min_ttl, refused = params["grant"], params.get("min_ttl", 0.0), refused_of(params)
        self._rights.require(session, Action.GET, grant, "get", wanted)

        def served(token: AccessToken) -> dict[str, object]:
            self._rights.require_granted(session, grant, wanted, token.scope)
            found = self.as_map(session, grant, token, wanted=wanted)
            return found if token.scope is None else {**found, "scope": list(token.scope)}

        async def later() -> dict[str, object]:
            wait = params.get("wait", WAIT)
            return served(await self._awaited(session, "get", grant, min_ttl, wait, refused, wanted))

        token = self._broker.cached(grant, min_ttl, refused, wanted)
        if token is None:
            return later
        self._metrics.gets_cached.inc()
        return served(token)

    async def _fetch(
        self,
        session: Session,
        grant: str,
        min_ttl: float,
        wait: float,
        refused: bytes | None = None,
        method: str = "get",
    ) -> dict[str, object]:
        token = await self._awaited(session, method, grant, min_ttl, wait, refused)
        with self._audit.asked(method, grant, session.caller):
            return self.as_map(session, grant, token, method)

    async def _awaited(
        self,
        session: Session,
        method: str,
        grant: str,
        min_ttl: float,
        wait: float,
        refused: bytes | None = None,
        wanted: Wanted | None = None,
    ) -> AccessToken:
        """The token once it is there, if the caller may still have it then; to be answered at once (law 9). Whoever may
        not have it any more does not hear either why there is none."""
        failure = None
        try:
            with self._audit.asked(method, grant, session.caller):
                await self._broker.get(grant, min_ttl=min_ttl, wait=wait, refused=refused, wanted=wanted)
        except Failure as caught:
            failure = caught
        await self._rights.require_again(session, Action.GET, grant, method, wanted)
        token = self._broker.cached(grant, min_ttl, refused, wanted)
        if token is None:
            raise failure or self._broker.failure(self._broker.held(grant), wanted)
        return token

    def forbidden(self) -> Failure | None:
        """Why no token may be served now, though there may be one: nobody would know of it."""
        if (why := self._audit.forbids) is None:
            return None
        words = f'the audit log cannot be written, and without it nothing is served ([daemon] audit = "stop"): {why}'
        return Failure(Code.UNAVAILABLE, words, retry_after=5.0)

    def as_map(
        self, session: Session, grant: str, token: AccessToken, method: str = "get", *, wanted: Wanted | None = None
    ) -> dict[str, object]:
        """The one place where a token is given out. Raises Failure."""
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
        self._audit.fetched(grant, session.caller, token, session.told, self._rights.ground, method, wanted)
        return found

    def get_many(self, session: Session, params: dict[str, Any]) -> Later:
        """All are waited for together; then the rules are asked again, and all are given out in one step (law 9)."""
        grants: list[str] = params["grants"]
        min_ttl, wait = params.get("min_ttl", 0.0), params.get("wait", WAIT)
        failures: dict[int, Failure] = {}

        async def wait_for(number: int, grant: str) -> None:
            try:
                with self._audit.asked("get_many", grant, session.caller):
                    await self._broker.get(grant, min_ttl=min_ttl, wait=wait)
            except Failure as failure:
                failures[number] = failure

        def entry(number: int, grant: str) -> dict[str, object]:
            try:
                self._rights.require(session, Action.GET, grant, "get_many")
                token = self._broker.cached(grant, min_ttl)
                if token is None:
                    raise failures.get(number) or self._broker.failure(self._broker.held(grant))
                with self._audit.asked("get_many", grant, session.caller):
                    return {"token": self.as_map(session, grant, token, "get_many")}
            except Failure as failure:
                return {"error": failure.as_map()}

        async def all_of_them() -> object:
            denied: dict[int, dict[str, object]] = {}
            async with trio.open_nursery() as nursery:
                for number, grant in enumerate(grants):
                    try:
                        self._rights.require(session, Action.GET, grant, "get_many")
                        nursery.start_soon(wait_for, number, grant)
                    except Failure as failure:
                        denied[number] = {"error": failure.as_map()}
                        await trio.lowlevel.checkpoint()  # each is logged: others have their turn in between
            await self._rights.see_again(session, grants or [None], "get_many")
            return [denied.get(number) or entry(number, grant) for number, grant in enumerate(grants)]

        return all_of_them

    def proof(self, session: Session, params: dict[str, Any]) -> Later:
        """A token that is bound to a key, and a proof for one request with it (RFC 9449 §7)."""
        grant = params["grant"]
        self._rights.require(session, Action.GET, grant, "proof")

        async def later() -> object:
            nonce, wait = params.get("nonce"), params.get("wait", WAIT)
            await self._awaited(session, "proof", grant, 0.0, wait)
            with self._audit.asked("proof", grant, session.caller):
                token, proof = await self._broker.proof(
                    grant, params["http_method"], params["url"], nonce=nonce, wait=0.0
                )
                return {**self.as_map(session, grant, token, "proof"), "proof": proof.reveal()}

        return later
