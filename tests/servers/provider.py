# What all token providers of the tests share: settings, the faults a test can set, counters, the record of every
# request, the protected /me. A provider's own module says paths, forms and errors.
from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from email.utils import formatdate
from types import TracebackType
from typing import ClassVar, Generic, Literal, NoReturn, TypeVar

import trio

from tests.servers import body
from tests.servers.body import Malformed
from tests.servers.http import Answer, Close, Headers, Raw, Request, Response, Server, json_response
from tests.servers.tokens import Death, Ledger, Token

ExpiresIn = Literal["number", "string", "absent"]
Garbage = Literal[
    "html",  # a captive portal's 200
    "not_json",  # a 200 of the right content type whose JSON breaks off
    "no_token",  # a 200 with an empty JSON object
    "wrong_types",  # a 200 whose token is a number
    "oversized",  # a 200 of 2 MiB
    "truncated",  # fewer bytes than Content-Length says, then the end
    "not_http",  # bytes that are no HTTP
    "huge_headers",  # 128 KiB of headers
    "stall",  # the head and half a body, then silence
]
OVERSIZED = 2 * 1024 * 1024  # bytes; twice what the design lets an answer have
CODES = {429: "rate_limited", 500: "server_error", 503: "temporarily_unavailable"}  # of errors that a test asks for
HUGE_HEADERS = 128 * 1024  # bytes; twice what the design lets headers have


class Clock:
    """A clock that a test moves: `now=Clock()`, later `clock.advance(60)`. Skewed from the start by `start`."""

    def __init__(self, start: float | None = None) -> None:
        self.time = time.time() if start is None else start

    def __call__(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


@dataclass(kw_only=True)
class Settings:
    """What all providers have. Mutable: a test may change it while the provider runs. Lifetimes are in seconds.

    Where an API states lifetimes or times as integers they are rounded up, and the token lives as long as stated.
    """

    now: Callable[[], float] = time.time  # the provider's clock, its Date header included
    access_lifetime: float = 3600.0
    refresh_lifetime: float = 30 * 86_400.0
    access_padding: int = 0  # characters that an opaque access token is longer
    rotation: bool = True  # a refresh replaces the refresh token
    reuse_detection: bool = True  # a replaced refresh token that comes again kills its family, living tokens included
    reuse_grace: float = 0.0  # seconds in which a replaced refresh token is accepted once more
    date_header: bool = True
    echo_input: bool = False  # error texts repeat what was sent, secrets included, as frameworks do


S = TypeVar("S", bound=Settings)


class Refusal(Exception):
    """An error answer, before it is put into the provider's form."""

    def __init__(
        self,
        status: int,
        reason: str,
        code: str = "",
        *,
        where: tuple[str, ...] = (),
        headers: Headers = (),
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.code = code
        self.where = where  # where in the request the fault lies, for forms that say so
        self.headers = headers


@dataclass
class Recorded:
    """One request as it came. `time` is on the provider's clock, `at` trio's. `status` None: no answer (yet)."""

    operation: str
    request: Request
    time: float
    at: float
    status: int | None = None


@dataclass
class Counts:
    """What has happened at a provider, requests aside."""

    issued: int = 0  # times that credentials (a key, a password, …) brought tokens
    renewed: int = 0  # times that a refresh token (click2mail: a long token) brought tokens
    revoked: int = 0  # tokens that died because a client asked for it
    refused: int = 0  # access tokens refused by /me: dead, unknown or of the wrong kind
    reused: int = 0  # refresh tokens that came although an earlier answer had replaced or rejected them
    families_killed: int = 0  # by reuse detection
    wrong_credentials: int = 0  # wrong keys, passwords, client secrets


@dataclass
class Fault:
    """What happens instead of an answer, to requests of `operation` (None: all but /me)."""

    answer: Answer
    operation: str | None
    times: int | None  # None: always
    processed: bool  # the request takes effect first: tokens are issued, rotated, revoked


class Gate:
    """Holds answers until released. As a context manager it is released at the end."""

    def __init__(self, operation: str | None, processed: bool, notify: Callable[[], None]) -> None:
        self.operation = operation
        self.processed = processed
        self.waiting = 0  # requests held now
        self._arrived = trio.Condition()
        self._released = trio.Event()
        self._notify = notify

    def __enter__(self) -> Gate:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    async def reached(self, count: int = 1) -> None:
        """Wait until so many requests are held."""
        async with self._arrived:
            while self.waiting < count:
                await self._arrived.wait()

    def release(self) -> None:
        """Let everybody through, later requests too."""
        self._released.set()
        self._notify()

    @property
    def released(self) -> bool:
        return self._released.is_set()

    async def wait(self) -> None:
        async with self._arrived:
            self.waiting += 1
            self._arrived.notify_all()
        try:
            await self._released.wait()
        finally:
            self.waiting -= 1


Handler = Callable[[Request], Response]


class Provider(ABC, Generic[S]):
    """A token API with its protected `GET /me`; mount it with `serve`. Its tokens are in `ledger`."""

    name: ClassVar[str]  # of the recipe
    prefix: ClassVar[str]  # where it is mounted: its base URL's path
    paths: ClassVar[Mapping[str, Mapping[str, str]]]  # path → method → operation

    def __init__(self, settings: S) -> None:
        self.settings = settings
        self.ledger = Ledger(self.name, lambda: self.settings.now())
        self.base_url = ""  # known once mounted
        self.counts = Counts()
        self.requests: list[Recorded] = []
        self.by_operation: Counter[str] = Counter()
        self.by_path: Counter[str] = Counter()
        self.active = 0  # requests being answered now
        self.peak = 0  # the most there ever were at once
        self.refusals: list[str] = []  # why /me refused, for the message of a failing test
        self.chunked = False  # answers come in chunks
        self._server: Server | None = None
        self._down = False
        self._faults: list[Fault] = []
        self._gates: list[Gate] = []
        self._unknown: set[str] = set()  # refresh tokens that were rejected though never issued
        self._changed = trio.Event()

    # What each API says for itself.

    @abstractmethod
    def handlers(self) -> Mapping[str, Handler]:
        """What carries out each operation; a Refusal or a Malformed raised there becomes the answer."""

    @abstractmethod
    def render(self, refusal: Refusal, request: Request | None) -> Response:
        """An error in the API's own form; `request` is there to be echoed (None: it is not)."""

    def malformed(self, error: Malformed) -> Refusal:
        """How the API answers a request that is not of the documented form."""
        return Refusal(400, _reason(error), "invalid_request", where=(error.where, error.field))

    def methods(self, path: str) -> Mapping[str, str] | None:
        """Method → operation for a path, None for a path that does not exist."""
        return self.paths.get(path)

    def operation_of(self, request: Request) -> str:
        """The name under which a request is counted, before it is found right or wrong."""
        return (self.methods(request.path) or {}).get(request.method, "unknown")

    # Faults.

    @property
    def down(self) -> bool:
        """Set it to be out of order. Alone on its server: connections are refused, open ones closed. Sharing one with
        providers that are up: each connection is closed when its request has come, and nothing is done."""
        return self._down

    @down.setter
    def down(self, value: bool) -> None:
        self._down = value
        if self._server is not None:
            self._server.review()

    def fail_with(
        self,
        status: int,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | dict[str, object] | list[object] | None = None,
        times: int | None = 1,
        *,
        operation: str | None = None,
        processed: bool = False,
    ) -> None:
        """Answer with `status` and exactly that body (a dict or list as JSON); without one, in the API's own form.

        `times` None: until `clear_faults`. Faults take effect in the order in which they were set.
        """
        given = tuple((name.lower(), value) for name, value in (headers or {}).items())
        if body is None:
            refusal = Refusal(status, "made to fail by the test", CODES.get(status, "made_to_fail"), headers=given)
            answer = replace(self.render(refusal, None), status=status)
        elif isinstance(body, (dict, list)):
            answer = json_response(status, body, given)
        else:
            answer = Response(status, given, body.encode() if isinstance(body, str) else body)
        self._faults.append(Fault(answer, operation, times, processed))

    def drop(
        self,
        times: int | None = 1,
        *,
        operation: str | None = None,
        processed: bool = False,
        reset: bool = False,
    ) -> None:
        """Close the connection instead of answering."""
        self._faults.append(Fault(Close(reset), operation, times, processed))

    def drop_after_request(self, times: int | None = 1, *, operation: str | None = None) -> None:
        """Carry the request out (issue, rotate, revoke!) and close the connection without an answer."""
        self.drop(times, operation=operation, processed=True)

    def garbage(
        self,
        kind: Garbage = "html",
        times: int | None = 1,
        *,
        operation: str | None = None,
        processed: bool = False,
    ) -> None:
        """Answer with something that is not the provider's."""
        self._faults.append(Fault(_garbage(kind), operation, times, processed))

    def hold(self, operation: str | None = None, *, processed: bool = True) -> Gate:
        """Hold answers (of one operation) until the gate is released; `processed` False: hold before doing anything.

        Use: `with provider.hold("refresh") as gate: …; await gate.reached(); …; gate.release()`.
        """
        gate = Gate(operation, processed, self._notify)
        self._gates.append(gate)
        return gate

    def clear_faults(self) -> None:
        """Up again, no faults, all gates released."""
        self._faults.clear()
        self.release()
        self.down = False

    def release(self) -> None:
        """Release all gates."""
        for gate in self._gates:
            gate.release()
        self._gates.clear()

    def forget_access_tokens(self) -> None:
        """All access tokens die at the provider's, as after a password change: an early 401 for their holders."""
        for token in self.ledger.of_kind("access"):
            token.revoked = True

    def new_refresh_token(
        self, who: str, *, client: str = "", scopes: tuple[str, ...] = (), lifetime: float | None = None
    ) -> Token:
        """A refresh token as a login in a browser would have brought it, to import."""
        seconds = self.settings.refresh_lifetime if lifetime is None else lifetime
        return self.issue_refresh(self.ledger.family(), who, client, scopes, self.settings.now() + seconds)

    # Counters.

    def count(self, operation: str | None = None) -> int:
        """Requests that came, of one operation or of all but /me."""
        if operation is not None:
            return self.by_operation[operation]
        return self.by_operation.total() - self.by_operation["me"]

    def times(self, operation: str | None = None) -> list[float]:
        """When they came, on the provider's clock."""
        return [entry.time for entry in self.requests if _matches(operation, entry.operation)]

    def statuses(self, operation: str | None = None) -> list[int | None]:
        """What they were answered, in the order in which they came."""
        return [entry.status for entry in self.requests if _matches(operation, entry.operation)]

    def snapshot(self) -> dict[str, object]:
        """All counters, as JSON has them."""
        return {
            "requests": len(self.requests),
            **asdict(self.counts),
            "by_operation": dict(self.by_operation),
            "by_path": dict(self.by_path),
            "peak": self.peak,
        }

    def secret_values(self) -> set[str]:
        """Every token value ever issued: what must not be found in any log."""
        return set(self.ledger.tokens)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition over this provider's state holds; it is looked at whenever a request comes or ends."""
        while not condition():
            await self._changed.wait()

    async def reached(self, count: int, operation: str | None = None) -> None:
        """Wait until so many requests have come."""
        await self.until(lambda: self.count(operation) >= count)

    # Answering.

    def mounted(self, server: Server, url: str) -> None:
        self._server = server
        self.base_url = url

    async def answer(self, request: Request) -> Answer:
        operation = self.operation_of(request)
        entry = Recorded(operation, request, self.settings.now(), trio.current_time())
        self.requests.append(entry)
        self.by_operation[operation] += 1
        self.by_path[request.path] += 1
        self.active += 1
        self.peak = max(self.peak, self.active)
        self._notify()
        try:
            answer = await self._answer(operation, request)
        finally:
            self.active -= 1
            self._notify()
        if isinstance(answer, Response):
            entry.status = answer.status
            self._notify()
            if self.settings.date_header:
                date = ("date", formatdate(self.settings.now(), usegmt=True))
                answer = replace(answer, headers=(date, *answer.headers))
            answer = replace(answer, chunked=answer.chunked or self.chunked)
        return answer

    async def _answer(self, operation: str, request: Request) -> Answer:
        fault = None if self.down else self._next_fault(operation)
        await self._pass_gates(operation, processed=False)
        if self.down:
            return Close()
        answer: Answer = Close()
        if fault is None or fault.processed:
            answer = self.process(operation, request)
        await self._pass_gates(operation, processed=True)
        return answer if fault is None else fault.answer

    def process(self, operation: str, request: Request) -> Response:
        """Carry a request out, faults aside."""
        echoed = request if self.settings.echo_input else None
        try:
            if operation == "unknown":
                self._not_there(request)
            if operation == "me":
                return self._me(request)
            return self.handlers()[operation](request)
        except Malformed as error:
            return self.render(self.malformed(error), echoed)
        except Refusal as refusal:
            return self.render(refusal, echoed)

    def _not_there(self, request: Request) -> NoReturn:
        methods = self.methods(request.path)
        if methods is None:
            raise Refusal(404, "Not Found", "not_found")
        allow = ", ".join(methods)
        raise Refusal(405, "Method Not Allowed", "method_not_allowed", headers=(("allow", allow),))

    def _me(self, request: Request) -> Response:
        """The protected API (RFC 6750 §3): who the token's holder is."""
        presented = body.bearer(request)
        if presented is None:
            raise Refusal(401, "No access token", "unauthorized", headers=(("www-authenticate", "Bearer"),))
        token = self.ledger.find(presented)
        now = self.settings.now()
        if token is None or token.kind != "access" or not token.alive(now):
            self.counts.refused += 1
            self.refusals.append(_why(token, now))
            challenge = (("www-authenticate", 'Bearer error="invalid_token"'),)
            raise Refusal(401, "The access token is expired or invalid", "invalid_token", headers=challenge)
        about = {"who": token.who, "client": token.client, "scopes": token.scopes, "audience": token.audience}
        return json_response(200, about)

    # What the APIs have in common.

    def issue_access(
        self,
        family: int,
        who: str,
        client: str = "",
        scopes: tuple[str, ...] = (),
        expires_at: float | None = None,
        audience: tuple[str, ...] = (),
    ) -> Token:
        return self.ledger.add(
            "access",
            family=family,
            who=who,
            client=client,
            scopes=scopes,
            expires_at=expires_at,
            audience=audience,
            padding=self.settings.access_padding,
        )

    def issue_refresh(
        self,
        family: int,
        who: str,
        client: str = "",
        scopes: tuple[str, ...] = (),
        expires_at: float | None = None,
        audience: tuple[str, ...] = (),
    ) -> Token:
        return self.ledger.add(
            "refresh",
            family=family,
            who=who,
            client=client,
            scopes=scopes,
            expires_at=expires_at,
            audience=audience,
        )

    def check_refresh(self, value: str) -> Token | Death:
        """The living token, or why it is dead; where that is reuse, reuse detection strikes."""
        token = self.ledger.find(value, "refresh")
        if token is None:
            self.counts.reused += value in self._unknown
            self._unknown.add(value)
            return Death.UNKNOWN
        death = self._death(token)
        if death is None:
            return token
        if token.rejected or token.used_at is not None:
            self.counts.reused += 1
        token.rejected = True
        if token.used_at is not None and self.settings.reuse_detection:
            self.counts.families_killed += self.ledger.revoke_family(token.family)
        return death

    def replace_refresh(self, token: Token) -> None:
        """A successful refresh has used this token up, where the provider rotates."""
        if self.settings.rotation and token.used_at is None:
            token.used_at = self.settings.now()

    def wrong_credentials(self) -> None:
        self.counts.wrong_credentials += 1

    def _death(self, token: Token) -> Death | None:
        now = self.settings.now()
        if token.used_at is not None and not now < token.used_at + self.settings.reuse_grace:
            return Death.USED
        if token.revoked:
            return Death.REVOKED
        return None if token.alive(now) else Death.EXPIRED

    def _next_fault(self, operation: str) -> Fault | None:
        for fault in self._faults:
            if _matches(fault.operation, operation) and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    async def _pass_gates(self, operation: str, *, processed: bool) -> None:
        for gate in list(self._gates):
            if gate.processed is processed and _matches(gate.operation, operation) and not gate.released:
                await gate.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def expiry(form: ExpiresIn, seconds: int) -> dict[str, object]:
    """`expires_in` as servers state it."""
    match form:
        case "number":
            return {"expires_in": seconds}
        case "string":
            return {"expires_in": str(seconds)}
        case "absent":
            return {}


def whole(seconds: float) -> int:
    """Seconds as an integer, rounded up."""
    return math.ceil(seconds)


def echo(request: Request | None) -> str:
    """The request as an error text repeats it, secrets and all; empty where the provider does not echo."""
    if request is None:
        return ""
    sent = "&".join(filter(None, (request.query, request.body.decode("utf-8", "replace"))))
    return f" (input was: {sent})"


def _reason(error: Malformed) -> str:
    return f"{error.field}: {error.reason}" if error.field else error.reason


def _matches(wanted: str | None, operation: str) -> bool:
    return operation != "me" if wanted is None else wanted == operation


def _why(token: Token | None, now: float) -> str:
    if token is None:
        return "never issued"
    if token.kind != "access":
        return "a refresh token"
    if token.revoked or token.expires_at is None:
        return f"{token.id}: revoked"
    return f"{token.id}: expired {now - token.expires_at:.3f} s ago"


def _garbage(kind: Garbage) -> Answer:
    json_type = (("content-type", "application/json"),)
    match kind:
        case "html":
            page = b"<!doctype html><title>Welcome</title><p>Please sign in to use this network."
            return Response(200, (("content-type", "text/html; charset=utf-8"),), page)
        case "not_json":
            return Response(200, json_type, b'{"access_token": "test-only-garb')
        case "no_token":
            return json_response(200, {})
        case "wrong_types":
            return json_response(200, {"access_token": 17, "token_type": 1, "expires_in": [], "refresh_token": {}})
        case "oversized":
            return Response(200, json_type, json.dumps({"padding": "x" * OVERSIZED}).encode())
        case "truncated":
            return Raw(_head("Content-Length: 1000") + b'{"access_token": "test-only-trunc')
        case "not_http":
            return Raw(b"SSH-2.0-OpenSSH_9.6\r\n")
        case "huge_headers":
            return Raw(_head("X-Padding: " + "x" * HUGE_HEADERS, "Content-Length: 2") + b"{}")
        case "stall":
            return Raw(_head("Content-Length: 1000") + b'{"access_token": "test-only-st', stall=True)


def _head(*headers: str) -> bytes:
    return "\r\n".join(("HTTP/1.1 200 OK", "Content-Type: application/json", *headers, "", "")).encode()
