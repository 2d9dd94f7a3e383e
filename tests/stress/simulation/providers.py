# Model providers: OAuth 2.0 servers that rotate single-use refresh tokens, detect reuse and kill families, and answer
# late, wrongly or never as their faults say. What they know is the truth that the laws are held against.
from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from math import ceil, inf
from random import Random
from urllib.parse import parse_qs

from brokerd.core.exchange.steps import Request, Response
from brokerd.core.ports import TransportError
from tests.stress.simulation import answers
from tests.stress.simulation.clock import Clock
from tests.stress.simulation.schedule import ProviderSetup

MINUTE = 60.0
DEADLINE = 60.0  # seconds: the HTTP client's own
LATEST = 200.0  # seconds: the latest answer
FORBIDDEN = "admin"  # a scope that is refused where it is asked for alone
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
DEVICE_LIFE = 120.0  # seconds
RIGHT = "test-only-password-0"

Pause = Callable[[float], Awaitable[None]]


@dataclass
class RefreshToken:
    grant: str
    family: int
    expires: float
    used: float | None = None


@dataclass
class Device:
    """A login by a code. `answered`: its tokens were given out, which happens once."""

    grant: str
    user_code: str
    expires: float
    approved: bool = False
    answered: bool = False


@dataclass
class AccessToken:
    """`rotated`: a new refresh token came with it, so that it is derived from a replaced one. `scope`: as asked for."""

    grant: str
    expires: float
    rotated: bool
    boots: int
    scope: str | None = None


@dataclass
class Fault:
    kind: str
    requests: float = inf
    until: float = inf
    seconds: float | None = None
    date: bool = False


@dataclass
class Reply:
    """What the provider did with a request: its answer, and what only it knows about that."""

    status: int
    body: dict[str, object]
    issued: str | None = None  # the new refresh token
    rejected: bool = False  # the refresh token, in the provider's own form
    refused: bool = False  # the password
    used_up: bool = False  # a scope was refused once the refresh token had been replaced, as npm's oidc-provider does


@dataclass
class Provider:
    """One model provider. Times are the true ones."""

    name: str
    setup: ProviderSetup
    clock: Clock
    random: Random
    faults: list[Fault] = field(default_factory=list)
    refresh: dict[str, RefreshToken] = field(default_factory=dict)
    access: dict[str, AccessToken] = field(default_factory=dict)
    killed: set[int] = field(default_factory=set)
    revoked: set[str] = field(default_factory=set)
    password: str = RIGHT
    families: int = 0
    devices: dict[str, Device] = field(default_factory=dict)  # by device code
    limit: int | None = None
    _lately: deque[float] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.limit = self.setup.limit

    def valid(self, token: str) -> bool:
        """Whether that refresh token would bring new tokens now."""
        known = self.refresh.get(token)
        return (
            known is not None
            and known.family not in self.killed
            and token not in self.revoked
            and self.clock.true() < known.expires
            and known.used is None
        )

    def login(self, grant: str) -> str:
        """A person logs in: the first refresh token of a new family."""
        self.families += 1
        return self._new_refresh(grant, self.families)

    def kill(self, grant: str) -> None:
        """An administrator ends every login of the grant."""
        self.killed.update(token.family for token in self.refresh.values() if token.grant == grant)

    def fault(self) -> Fault | None:
        """The fault that befalls the next request, if any does."""
        now = self.clock.true()
        self.faults = [fault for fault in self.faults if fault.requests > 0 and fault.until > now]
        found = self.faults[0] if self.faults else None
        if found is not None:
            found.requests -= 1
            return found
        return self._limited(now)

    def _limited(self, now: float) -> Fault | None:
        while self._lately and self._lately[0] <= now - MINUTE:
            self._lately.popleft()
        if self.limit is not None and len(self._lately) >= self.limit:
            return Fault("429", seconds=float(ceil(self._lately[0] + MINUTE - now)))
        self._lately.append(now)
        return None

    def latency(self) -> float:
        return self.random.random() * self.setup.latency

    def do(self, grant: str, fields: dict[str, str], request: Request, fault: str = "") -> Reply:
        """What the provider does when a request has reached it."""
        if request.url.endswith("/revoke"):
            return self._revoke(fields["token"])
        if request.url.endswith("/device"):
            return self._begin_device(grant)
        if fault == "invalid_client":
            return Reply(401, {"error": "invalid_client"})
        scope = fields.get("scope")
        if scope == FORBIDDEN and not (fields["grant_type"] == "refresh_token" and self.setup.rotates):
            return Reply(400, {"error": "invalid_scope"})
        match fields["grant_type"]:
            case found if found == DEVICE_CODE:
                return self._device(fields["device_code"], fault)
            case "refresh_token":
                return self._renew(grant, fields["refresh_token"], fault, scope)
            case "password":
                if fields["password"] != self.password:
                    echo = f"bad password {fields['password']}"
                    return Reply(400, {"error": "invalid_grant", "error_description": echo}, refused=True)
                self.families += 1
                return self._issue(grant, self.families, fault, scope, refresh=True)
            case _:
                return self._issue(grant, 0, fault, scope, refresh=False)

    def approve(self, user_code: str) -> None:
        """The person has typed it in."""
        for device in self.devices.values():
            device.approved = device.approved or device.user_code == user_code

    def _begin_device(self, grant: str) -> Reply:
        number = len(self.devices)
        code, shown = f"test-only-device-{self.name}-{number}", f"CODE-{number}"
        self.devices[code] = Device(grant, shown, self.clock.true() + DEVICE_LIFE)
        body: dict[str, object] = {"device_code": code, "user_code": shown, "expires_in": DEVICE_LIFE, "interval": 5}
        return Reply(200, {**body, "verification_uri": f"https://{self.name}.test/activate"})

    def _device(self, code: str, fault: str) -> Reply:
        device = self.devices[code]
        if device.answered or self.clock.true() >= device.expires:
            return Reply(400, {"error": "invalid_grant" if device.answered else "expired_token"})
        if not device.approved:
            return Reply(400, {"error": "authorization_pending"})
        device.answered = True
        self.families += 1
        return self._issue(device.grant, self.families, fault, None, refresh=True)

    def respond(self, reply: Reply, sent: object, headers: dict[str, str] | None = None) -> Response:
        body = json.dumps(reply.body).encode()
        named = {"content-type": "application/json", **(headers or {})}
        return Response(reply.status, tuple(named.items()), body, sent, self.clock.now())  # type: ignore[arg-type]

    def written(self, kind: str, reply: Reply, sent: object) -> Response:
        """Tokens in a form of the server's own."""
        made = {**answers.READABLE, **answers.RESCUED}[kind](reply.body)
        return Response(200, (), made.read(), sent, self.clock.now(), cut=made.cut)  # type: ignore[arg-type]

    def skewed(self, sent: object) -> Response:
        """A refusal by a clock that is behind the machine's, whatever that one is."""
        headers, body = answers.skewed(sent.wall)  # type: ignore[attr-defined]
        return self.respond(Reply(401, dict(body)), sent, headers)

    def strange(self, kind: str, reply: Reply | None, sent: object, fault: Fault) -> Response:
        """An answer that is not the provider's own form, or says nothing about the grant."""
        if kind in answers.UNDONE:
            status, said = answers.UNDONE[kind]
            return Response(status, self._retry_after(fault), json.dumps(said).encode(), sent, self.clock.now())  # type: ignore[arg-type]
        if kind in ("429", "503"):
            return Response(int(kind), self._retry_after(fault), b"", sent, self.clock.now())  # type: ignore[arg-type]
        status, body = {
            "html": (200, b"<html>log in to our network</html>"),
            "html-403": (403, b"<html>forbidden</html>"),
            "407": (407, b""),
            "500": (500, b'{"error": "invalid_grant"}'),
            "200-error": (200, b'{"error": "temporarily_unavailable"}'),
            "no-token": (200, b'{"ok": true}'),
            "500-with-tokens": (500, json.dumps(reply.body).encode() if reply else b""),
            "truncated": (200, json.dumps(reply.body).encode()[:-9] if reply else b""),
        }[kind]
        return Response(status, (), body, sent, self.clock.now())  # type: ignore[arg-type]

    def _retry_after(self, fault: Fault) -> tuple[tuple[str, str], ...]:
        if fault.seconds is None:
            return ()
        if not fault.date:
            return (("retry-after", f"{fault.seconds:g}"),)
        now = ceil(self.clock.server_wall())
        return (("date", formatdate(now, usegmt=True)), ("retry-after", formatdate(now + fault.seconds, usegmt=True)))

    def _renew(self, grant: str, token: str, fault: str, scope: str | None) -> Reply:
        echo = f"no such token: {token}"  # frameworks show in an error what they were sent
        dead = Reply(400, {"error": "invalid_grant", "error_description": echo}, rejected=True)
        known = self.refresh.get(token)
        if known is None or known.family in self.killed or token in self.revoked:
            return dead
        if self.clock.true() >= known.expires:
            return dead
        if not self.setup.rotates:
            return self._issue(grant, known.family, fault, scope, refresh=False)
        if known.used is not None and self.clock.true() - known.used > self.setup.grace:
            self.killed.add(known.family)
            return dead
        known.used = self.clock.true() if known.used is None else known.used
        if scope == FORBIDDEN:
            issued = self._new_refresh(grant, known.family)
            return Reply(400, {"error": "invalid_scope"}, issued=issued, used_up=True)
        return self._issue(grant, known.family, fault, scope, refresh=True)

    def _issue(self, grant: str, family: int, fault: str, scope: str | None, *, refresh: bool) -> Reply:
        value = f"test-only-access-{self.name}-{len(self.access)}"
        lifetime: object = {
            "expires-text": f"{self.setup.lifetime:g}",
            "expires-absent": None,
            "expires-zero": 0,
            "expires-negative": -5,
            "expires-epoch": self.clock.server_wall() // 1 + self.setup.lifetime,
            "expires-milliseconds": 1_000 * self.setup.lifetime,
        }.get(fault, self.setup.lifetime)
        lasts = inf if lifetime is None else float(str(lifetime))
        self.access[value] = AccessToken(grant, self.clock.true() + lasts, refresh, self.clock.boots, scope)
        body: dict[str, object] = {"access_token": value, "token_type": "Bearer", "id": f"of {value}"}
        if scope is not None:
            body["scope"] = scope
        if lifetime is not None:
            body["expires_in"] = lifetime
        if not refresh:
            return Reply(200, body)
        body["refresh_token"] = issued = self._new_refresh(grant, family)
        if self.setup.refresh_lifetime is not None:
            body["refresh_expires_in"] = self.setup.refresh_lifetime
        return Reply(200, body, issued=issued)

    def _revoke(self, token: str) -> Reply:
        self.revoked.add(token)
        if token in self.refresh:
            self.killed.add(self.refresh[token].family)
        return Reply(200, {})

    def _new_refresh(self, grant: str, family: int) -> str:
        value = f"test-only-refresh-{self.name}-{len(self.refresh)}"
        expires = self.clock.true() + (self.setup.refresh_lifetime or inf)
        self.refresh[value] = RefreshToken(grant, family, expires)
        return value


def fields_of(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}


def unreachable() -> TransportError:
    return TransportError("connection refused", sent=False)


def lost() -> TransportError:
    return TransportError("connection closed in the middle of the answer", sent=True)
