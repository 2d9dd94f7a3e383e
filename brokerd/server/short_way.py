# The short way for the plain get: its answer is bytes that are made already; in MessagePack, the id is put in. This
# file alone decides whether they may be sent. They may if everything that the answer depends on is as it was when the
# long way (methods/tokens.py) gave it:
# - the request: the same bytes on the same connection, apart from MessagePack's id;
# - the rules, which each reload replaces, and the evidence that they name: the caller shows the same one now;
# - the grant: brokerd is not locked, the configuration of the grant is the same, and by both clocks it serves the
#   same token for this request now. A renewal, a revocation, an expiry and a removed grant end that;
# - the time of expiry on the wall clock, which is part of the answer, and in HTTP the whole seconds until then;
# - the audit log: tokens may be served, and it counts this fetch with the last one of the connection.
# Everything else takes the long way. For both ways, connection.py attests each message, charges it, and looks whether
# the caller lives when the answer is sent.
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import ref

import msgspec
from brokerd_client.wire import pack_request

from brokerd.broker.broker import TokenBroker
from brokerd.core.access.admission import ANSWERED
from brokerd.core.access.policy import Caller, Policy
from brokerd.core.errors import Failure
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.timing.moment import Moment, wall_time
from brokerd.server.http.messages import expires_in
from brokerd.server.methods.parameters import refused_of, target_of
from brokerd.server.rights import Rights
from brokerd.server.session import CallerSession
from brokerd.telemetry.event_log import EventLog, Fetch
from brokerd.telemetry.metrics import Metrics

MOST_REQUESTS = 8  # remembered on one connection,
LONGEST = 256  # bytes of each
MOST_ANSWERS = 1_024  # remembered for all connections together; each is the bytes of one grant's token
BEGINNING, SHORTEST = b"\x94\x00", 16  # of a request: an array of four, whose first is 0; and bytes of a plain get
WITHIN = 0.00499  # seconds: a little less than half of a hundredth, because floating-point numbers are not exact
ANSWER, NO_ERROR = b"\x94\x01", b"\xc0"
ANY = b""  # the form of an answer that is the same for all requests with one grant and token


class WrittenExpiry(msgspec.Struct, frozen=True, gc=False):
    """What an answer says of the token's end."""

    expires_at: float | None = None
    expires_in: int | None = None


UNSAID = WrittenExpiry()


@dataclass(slots=True, eq=False)
class Made:
    """The bytes of an answer, in MessagePack those behind its id and error. They end with the token: nobody else keeps
    it alive."""

    token: ref[AccessToken]
    settings: object
    least: (
        float  # the wall clock less CLOCK_BOOTTIME, in seconds: between these two, the result has the same expires_at
    )
    most: float
    expiry: WrittenExpiry
    result: bytes


@dataclass(slots=True, eq=False)
class KnownRequest:
    """A request that the long way answered at once, and what that depended on. `form`: what else than grant and token
    shapes the bytes of its answer."""

    grant: str
    form: bytes
    min_ttl: float
    token: ref[AccessToken]
    rules: Policy
    needs: frozenset[str]  # the evidence that the rules name,
    seen: Caller | None  # as the caller showed it,
    caller: Caller  # and the caller with all that is known of it
    fetch: Fetch | None  # as the audit log has it


class MadeAnswers:
    """The results of plain gets as bytes, by grant and form."""

    def __init__(self, broker: TokenBroker) -> None:
        self._broker, self._registry, self._now = broker, broker.registry, broker.now
        self._made: dict[tuple[str, bytes], Made] = {}

    def keep(
        self, name: str, token: AccessToken, result: bytes, form: bytes = ANY, expiry: WrittenExpiry = UNSAID
    ) -> None:
        """The long way gave this result now."""
        key = name, form
        if len(self._made) >= MOST_ANSWERS and key not in self._made:
            self._made.clear()
        held, settings = ref(token, lambda gone: self._end(key, gone)), self._registry.grants[name].settings
        self._made[key] = Made(held, settings, *_same_expiry(token, self._now()), expiry, result)

    def _end(self, key: tuple[str, bytes], token: ref[AccessToken]) -> None:
        if (made := self._made.get(key)) is not None and made.token is token:
            del self._made[key]

    def find(self, name: str, token: ref[AccessToken], min_ttl: float, form: bytes = ANY) -> bytes | None:
        """The result with that token, if the long way would give the same now."""
        made, grant = self._made.get((name, form)), self._registry.grants.get(name)
        if made is None or grant is None or self._broker.locked or grant.settings is not made.settings:
            return None
        served = grant.serves(now := self._now(), min_ttl)
        if served is None or token() is not served or made.token() is not served:
            return None
        if not made.least < now.wall - now.boot < made.most:
            return None
        said = made.expiry
        return made.result if said.expires_in is None or said.expires_in == expires_in(said.expires_at) else None


class RepeatedGets:
    """Of all connections."""

    def __init__(self, broker: TokenBroker, rights: Rights, events: EventLog, metrics: Metrics) -> None:
        self.made = MadeAnswers(broker)
        self._broker = broker
        self._rights = rights
        self._events = events
        self._metrics = metrics

    def answer(self, session: CallerSession, data: bytes, batch: object) -> bytes | None:
        """The whole answer in MessagePack, if `data` is one request that was answered before and the same answer holds
        now. It counts as served. None: take the long way, which also finds out why. `batch`: of requests that were read
        together."""
        if not (behind := _behind_id(data)) or (result := self._result(session, data[behind:], batch)) is None:
            return None
        return b"".join((ANSWER, data[2:behind], NO_ERROR, result))

    def answer_http(self, session: CallerSession, data: bytes, batch: object) -> bytes | None:
        """The same in HTTP."""
        return self._result(session, data, batch) if len(data) <= LONGEST else None

    def _result(self, session: CallerSession, request: bytes, batch: object) -> bytes | None:
        if (known := session.short.get(request)) is None:
            return None
        if self._rights.policy is not known.rules or session.caller is not known.caller:
            return None
        if known.needs and (known.seen is None or not session.process.still_shows(known.needs, known.seen, batch)):
            return None
        result = self.made.find(known.grant, known.token, known.min_ttl, known.form)
        if result is None or not self._events.fetched_again(known.fetch):
            return None
        self._metrics.gets_cached.inc()
        return result

    def remember(self, session: CallerSession, data: bytes, number: int, params: dict[str, Any], answer: bytes) -> None:
        """The long way has just answered the get at once; `data` is all that had come."""
        behind = _behind_id(data)
        if behind and len(answer) <= ANSWERED and data == pack_request(number, "get", params):
            self._keep(session, data[behind:], params, answer[behind + len(NO_ERROR) :])

    def remember_http(self, session: CallerSession, data: bytes, params: Mapping[str, Any], answer: bytes) -> None:
        """The same in HTTP; `data` is the whole request, and the connection goes on."""
        if len(data) <= LONGEST and len(answer) <= ANSWERED:
            # What was written counts: since then, a second may have ended.
            expiry = msgspec.json.decode(answer[answer.index(b"\r\n\r\n") :], type=WrittenExpiry)
            self._keep(session, data, params, answer, data, expiry)

    def _keep(
        self,
        session: CallerSession,
        request: bytes,
        params: Mapping[str, Any],
        result: bytes,
        form: bytes = ANY,
        expiry: WrittenExpiry = UNSAID,
    ) -> None:
        if (known := self._known(session, params, form)) is None or (token := known.token()) is None:
            return
        if len(session.short) >= MOST_REQUESTS:
            session.short.clear()
        session.short[request] = known
        self.made.keep(known.grant, token, result, form, expiry)

    def _known(self, session: CallerSession, params: Mapping[str, Any], form: bytes) -> KnownRequest | None:
        """What the answer depended on: nothing was awaited since. None: another request is not to be answered so."""
        grant, min_ttl, rights = params["grant"], params.get("min_ttl", 0.0), self._rights
        if target_of(params) is not None:
            return None
        try:
            token = self._broker.cached(grant, min_ttl, refused_of(params))
        except Failure:
            return None
        fetch = self._events.last_fetch(grant, session.caller)
        if token is None or not self._events.counts(fetch, token, session.caller):
            return None
        needs = rights.needs(session, [grant])
        seen, caller = session.seen[0], session.caller
        return KnownRequest(grant, form, min_ttl, ref(token), rights.policy, needs, seen, caller, fetch)


def _same_expiry(token: AccessToken, now: Moment) -> tuple[float, float]:
    """How far the wall clock may be from CLOCK_BOOTTIME while the token expires at the same hundredth of a second."""
    if token.lifetime is None or token.issued.boot_id != now.boot_id:
        return -math.inf, math.inf
    middle = wall_time(token.issued, now) - token.issued.boot
    return middle - WITHIN, middle + WITHIN


def _behind_id(data: bytes) -> int:
    """Where a request goes on behind its id, if the id is packed as pack_request does; else 0."""
    if len(data) < SHORTEST or len(data) > LONGEST or data[:2] != BEGINNING:
        return 0
    kind = data[2]
    if kind < 0x80:
        return 3  # up to 127
    if kind == 0xCC:
        return 4 if data[3] >= 0x80 else 0
    if kind == 0xCD:
        return 5 if data[3] else 0
    return 7 if kind == 0xCE and (data[3] or data[4]) else 0
