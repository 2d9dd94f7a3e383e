"""Token providers for the tests: real HTTP servers on loopback, strict about the documented APIs, and no brokerd.

    async with serve(ix := IxApi()) as server:      # one provider, or several under their prefixes
        ix.base_url                                  # http://127.0.0.1:PORT/ix/api/v2
    async with serve_all(lifetime=6) as fleet:       # all five on one port
        fleet.occam.fail_with(503, {"Retry-After": "2"})

As a process of its own: `python -m tests.servers --lifetime 6` (see __main__.py).
"""

# What makes the providers of one test run: constructing and mounting them. Each API is in its own module.
from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from tests.servers import click2mail, ix_api, oauth2, occam, treezor
from tests.servers.click2mail import Click2Mail
from tests.servers.credentials import (
    CLICK2MAIL_CLIENT,
    CLICK2MAIL_OTPS,
    CLICK2MAIL_SECRET,
    IX_API_KEY,
    IX_API_SECRET,
    OAUTH2_CLIENT,
    OAUTH2_ODD_CLIENT,
    OAUTH2_ODD_SECRET,
    OAUTH2_PASSWORD,
    OAUTH2_POST_CLIENT,
    OAUTH2_POST_SECRET,
    OAUTH2_PUBLIC_CLIENT,
    OAUTH2_SECRET,
    OAUTH2_USER,
    OCCAM_KEY,
    OCCAM_PASSWORD,
    OCCAM_USER,
    TREEZOR_CLIENT,
    TREEZOR_PASSWORD,
    TREEZOR_SECRET,
    TREEZOR_USER,
)
from tests.servers.http import Mount, Server
from tests.servers.ix_api import IxApi
from tests.servers.oauth2 import Client, OAuth2
from tests.servers.occam import Occam
from tests.servers.provider import Clock, Gate, Provider, Recorded
from tests.servers.treezor import Treezor

REFRESH_LIFETIMES = 10  # a refresh token's lifetime in access tokens' lifetimes, where only the latter is given


@dataclass(frozen=True)
class Fleet:
    """One of each."""

    ix_api: IxApi
    occam: Occam
    treezor: Treezor
    click2mail: Click2Mail
    oauth2: OAuth2

    @property
    def by_name(self) -> dict[str, Provider[Any]]:
        """Recipe name → provider."""
        every = (self.ix_api, self.occam, self.treezor, self.click2mail, self.oauth2)
        return {provider.name: provider for provider in every}


def fleet(
    lifetime: float | None = None,
    *,
    refresh_lifetime: float | None = None,
    now: Callable[[], float] = time.time,
) -> Fleet:
    """All five providers; without a lifetime (seconds) each has its own default."""
    made = Fleet(IxApi(), Occam(), Treezor(), Click2Mail(), OAuth2())
    for provider in made.by_name.values():
        provider.settings.now = now
        if lifetime is not None:
            provider.settings.access_lifetime = lifetime
            provider.settings.refresh_lifetime = lifetime * REFRESH_LIFETIMES
        if refresh_lifetime is not None:
            provider.settings.refresh_lifetime = refresh_lifetime
    return made


@asynccontextmanager
async def serve(
    *providers: Provider[Any],
    tls: ssl.SSLContext | None = None,
    port: int = 0,
    keep_alive: bool = True,
) -> AsyncIterator[Server]:
    """Run one server with these providers under their prefixes; each knows its `base_url` from then on."""
    mounts: dict[str, Mount] = {provider.prefix: provider for provider in providers}
    assert len(mounts) == len(providers), "two providers of one kind need a server each"
    async with trio.open_nursery() as nursery:
        server = Server(mounts, tls, port, keep_alive=keep_alive)
        await nursery.start(server.run)
        yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serve_all(
    lifetime: float | None = None,
    *,
    refresh_lifetime: float | None = None,
    now: Callable[[], float] = time.time,
    tls: ssl.SSLContext | None = None,
    port: int = 0,
) -> AsyncIterator[Fleet]:
    """Run all five on one port."""
    made = fleet(lifetime, refresh_lifetime=refresh_lifetime, now=now)
    async with serve(*made.by_name.values(), tls=tls, port=port):
        yield made


__all__ = [
    "CLICK2MAIL_CLIENT",
    "CLICK2MAIL_OTPS",
    "CLICK2MAIL_SECRET",
    "IX_API_KEY",
    "IX_API_SECRET",
    "OAUTH2_CLIENT",
    "OAUTH2_ODD_CLIENT",
    "OAUTH2_ODD_SECRET",
    "OAUTH2_PASSWORD",
    "OAUTH2_POST_CLIENT",
    "OAUTH2_POST_SECRET",
    "OAUTH2_PUBLIC_CLIENT",
    "OAUTH2_SECRET",
    "OAUTH2_USER",
    "OCCAM_KEY",
    "OCCAM_PASSWORD",
    "OCCAM_USER",
    "TREEZOR_CLIENT",
    "TREEZOR_PASSWORD",
    "TREEZOR_SECRET",
    "TREEZOR_USER",
    "Click2Mail",
    "Client",
    "Clock",
    "Fleet",
    "Gate",
    "IxApi",
    "OAuth2",
    "Occam",
    "Provider",
    "Recorded",
    "Server",
    "Treezor",
    "click2mail",
    "fleet",
    "ix_api",
    "oauth2",
    "occam",
    "serve",
    "serve_all",
    "treezor",
]
