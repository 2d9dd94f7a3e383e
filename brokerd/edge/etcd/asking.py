# Asks the servers of one etcd cluster: one is the current one; when it fails, the next. A request that changes
# something is sent again only if surely nothing was done (TransportError.sent, and what etcd said).
from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from enum import Enum, auto
from typing import TypeVar

import trio

from brokerd.core.exchange.steps import Request
from brokerd.core.fleet import gateway_json
from brokerd.core.fleet.etcd import Compacted, EtcdAway, EtcdError, EtcdFull, EtcdRefused, EtcdUnanswered, LeaseGone
from brokerd.core.fleet.gateway_errors import EtcdFailure, FailureKind, refused_answer
from brokerd.core.fleet.gateway_json import BadGatewayAnswer
from brokerd.core.ports import AnswerTooLarge, Clock, TransportError
from brokerd.core.secret import Secret
from brokerd.edge.etcd.lines import PIECE
from brokerd.edge.etcd.login import EtcdLogin, EtcdUser
from brokerd.edge.etcd.servers import Servers
from brokerd.edge.http.client import HttpClient
from brokerd.edge.http.connection import HttpSettings, Opener, split_url
from brokerd.edge.http.dial import system_lookup

T = TypeVar("T")
Attempt = Callable[[str, "Secret | None"], Awaitable["T | EtcdFailure"]]  # the server, the token of our user

CONNECT, ONE_TRY = 2.0, 3.0  # seconds for a connection, and for one request to one server with its answer
ALL_TRIES = 4.5  # seconds after which no further try begins
ELECTION = 2.0  # seconds to wait for a leader before the next server is asked; an election takes one or two
PAUSE = 0.1  # seconds before a server without a leader is asked again
AT_ONCE = 32  # requests; more of them wait
ANSWER = 16 << 20  # bytes
IDLE = 8  # connections that are kept

ERRORS: dict[FailureKind, type[EtcdError]] = {
    FailureKind.COMPACTED: Compacted,
    FailureKind.LEASE_GONE: LeaseGone,
    FailureKind.FULL: EtcdFull,
    FailureKind.REFUSED: EtcdRefused,
    FailureKind.TOKEN: EtcdRefused,
}


class Effect(Enum):
    """What happens if a request is carried out twice."""

    NONE = auto()  # it reads
    SAME_TWICE = auto()  # the same as once
    ONCE = auto()  # it must not


class PageTooLarge(EtcdAway):
    """The answer is larger than etcd's gateway reads, or than we do."""


class Asking:
    """What all requests share: the servers, the token of our user, kept connections."""

    def __init__(self, urls: Sequence[str], settings: HttpSettings, user: EtcdUser | None, clock: Clock) -> None:
        self.servers = Servers(urls)
        settings = _within_limits(settings)
        self.opener, self.limits = Opener(settings, clock, {}, system_lookup), settings.limits()
        self._http = HttpClient(settings, clock, environ={})
        self._login = EtcdLogin(user, self._log_in)
        self._turns = trio.CapacityLimiter(AT_ONCE)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def ask(
        self, path: str, body: bytes, read: Callable[[bytes], T], effect: Effect = Effect.NONE, *, urgent: bool = False
    ) -> T:
        """What the gateway answers, as `read` reads it. `urgent`: before all that waits. Raises EtcdError."""

        async def post(server: str, token: Secret | None) -> T | EtcdFailure:
            return await self._post(server, path, body, read, token)

        if urgent:
            return await self.tried(post, effect)
        with trio.move_on_after(ALL_TRIES) as waits:
            await self._turns.acquire()
        if waits.cancelled_caught:
            raise EtcdAway(f"etcd: {AT_ONCE} other requests wait for an answer")
        try:
            return await self.tried(post, effect)
        finally:
            self._turns.release()

    async def tried(self, attempt: Attempt[T], effect: Effect = Effect.NONE) -> T:
        """What the first server answers that can. Raises EtcdError."""
        began = trio.current_time()
        failed: list[str] = []
        may_be_done = False
        leaderless: float | None = None
        while True:
            server = self.servers.current
            answer = await self._with_token(attempt, server)
            if not isinstance(answer, EtcdFailure):
                return answer
            words, now = words_of(server, answer), trio.current_time()
            _raise_if_final(answer.kind, words, effect)
            is_over = now - began >= ALL_TRIES
            if answer.kind is FailureKind.LATER or (
                answer.kind is FailureKind.LEADER_CHANGED and effect is Effect.NONE
            ):
                leaderless = now if leaderless is None else leaderless
                if now - leaderless < ELECTION and not is_over:
                    await trio.sleep(PAUSE)
                    continue
            elif answer.kind is not FailureKind.ELSEWHERE:
                may_be_done = effect is not Effect.NONE
            self.servers.failed(server, words)
            failed.append(words)
            if is_over or len(failed) == len(self.servers) or (may_be_done and effect is Effect.ONCE):
                said = "; ".join(dict.fromkeys(failed))
                raise EtcdUnanswered(said) if may_be_done else EtcdAway(said)

    async def _with_token(self, attempt: Attempt[T], server: str) -> T | EtcdFailure:
        """An attempt, and a second one with a new token if the first one's does not count any more."""
        token = await self._login.token(server)
        answer = token if isinstance(token, EtcdFailure) else await attempt(server, token)
        if not isinstance(answer, EtcdFailure) or answer.kind is not FailureKind.TOKEN or token is None:
            return answer
        assert isinstance(token, Secret)
        self._login.forget(token)
        token = await self._login.token(server)
        return token if isinstance(token, EtcdFailure) else await attempt(server, token)

    async def _post(
        self, server: str, path: str, body: bytes, read: Callable[[bytes], T], token: Secret | None
    ) -> T | EtcdFailure:
        try:
            response = await self._http.send(Request("POST", server + path, headers_with(token), body))
        except AnswerTooLarge as error:
            return EtcdFailure(FailureKind.TOO_LARGE, without(server, error))
        except TransportError as error:
            return EtcdFailure(FailureKind.UNCLEAR if error.sent else FailureKind.ELSEWHERE, without(server, error))
        if response.status != 200:
            return refused_answer(response.status, response.body)
        try:
            return read(response.body)
        except BadGatewayAnswer as error:
            return EtcdFailure(FailureKind.UNCLEAR, f"it answered with {error}")

    async def _log_in(self, server: str, user: str, password: Secret) -> Secret | EtcdFailure:
        body = gateway_json.login_request(user, password)
        answer = await self._post(server, "/v3/auth/authenticate", body, gateway_json.token, None)
        if isinstance(answer, EtcdFailure) and answer.kind in (FailureKind.UNCLEAR, FailureKind.TOKEN):
            return EtcdFailure(FailureKind.ELSEWHERE, answer.words)  # a login changes nothing, so it can be repeated
        return answer


def _within_limits(settings: HttpSettings) -> HttpSettings:
    return replace(
        settings,
        connect_timeout=CONNECT,
        read_timeout=ONE_TRY,
        total_timeout=ONE_TRY,
        max_answer=ANSWER,
        max_idle=IDLE,
        read_size=PIECE,
    )


def _raise_if_final(kind: FailureKind, words: str, effect: Effect) -> None:
    """Raise the error behind which asking again is of no use."""
    if kind is FailureKind.TOO_LARGE:
        # What changed something has a small answer. So it was the request, or the pairs that were not as expected.
        raise PageTooLarge(words) if effect is Effect.NONE else EtcdRefused(words)
    if kind in ERRORS:
        raise ERRORS[kind](words)


def headers_with(token: Secret | None) -> tuple[tuple[str, str], ...]:
    """`Hasleader`: a server without a leader says so at once, and ends its watches."""
    known = (("Content-Type", "application/json"), ("Grpc-Metadata-Hasleader", "true"))
    return known if token is None else (*known, ("Authorization", token.reveal()))


def name_of(server: str) -> str:
    """Host and port."""
    try:
        return str(split_url(server)[0].endpoint)
    except TransportError:
        return "an address that is no URL"


def without(server: str, error: Exception) -> str:
    """The reason without the server's name, which stands before it."""
    return str(error).removeprefix(f"{name_of(server)}: ")


def words_of(server: str, failure: EtcdFailure) -> str:
    return f"etcd {name_of(server)}: {failure.words}"
