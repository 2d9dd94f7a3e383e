# What every guarded server has: it looks for a living access token of a provider, as the password of Basic
# authentication or as a Bearer token, and remembers every credential that it was shown.
from __future__ import annotations

import base64
import binascii
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import trustme

from tests.servers.http import Answer, Request, Response, Server
from tests.servers.provider import Provider

CHALLENGES = {"Basic": 'Basic realm="tests"', "Bearer": 'Bearer realm="tests"'}


class Shown(NamedTuple):
    """A credential in a request. `user` is empty for Bearer."""

    host: str
    scheme: str
    user: str
    secret: str


class Guarded(ABC):
    """A mount. `schemes`: what it accepts and asks for."""

    down = False

    def __init__(self, provider: Provider[Any], *schemes: str) -> None:
        self.provider, self.schemes = provider, schemes or ("Basic",)
        self.shown: list[Shown] = []
        self.refused = 0
        self.url = ""

    def mounted(self, server: Server, url: str) -> None:
        self.url = url

    async def answer(self, request: Request) -> Answer:
        shown = shown_in(request)
        if shown is not None:
            self.shown.append(shown)
            token = self.provider.ledger.find(shown.secret, "access")
            if shown.scheme in self.schemes and token and token.alive(self.provider.settings.now()):
                return await self.serve(request, shown)
        self.refused += 1
        return self.refusal(request)

    def refusal(self, request: Request) -> Response:
        """The answer to who shows no living token."""
        return Response(401, tuple(("www-authenticate", CHALLENGES[scheme]) for scheme in self.schemes))

    @abstractmethod
    async def serve(self, request: Request, shown: Shown) -> Answer:
        """The answer to who shows one."""


def shown_in(request: Request) -> Shown | None:
    scheme, _, secret = (request.header("authorization") or "").partition(" ")
    user = ""
    if scheme == "Basic":
        try:
            user, _, secret = base64.b64decode(secret, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
    return Shown(request.header("host") or "", scheme, user, secret) if secret else None


def certified(ca: trustme.CA, *names: str) -> Any:
    """A server's TLS context for these names, besides localhost and 127.0.0.1."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1", *names).configure_cert(context)
    return context
