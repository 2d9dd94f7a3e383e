# The connections to one upstream: those that wait for the next request, and new ones.
from __future__ import annotations

import os
from collections.abc import Mapping

from trio import current_time

from brokerd.config.proxies import ProxySettings
from brokerd.edge.http.connection import HttpSettings, split_url
from brokerd.edge.http.dial import Lookup, system_lookup
from brokerd.edge.http.wire import Wire, WireOpener
from brokerd.proxy.turns import HANDSHAKE, Turn

KEPT = 64  # connections that wait
IDLE = 15.0  # seconds that one waits, shorter than the idle timeouts of common servers


def http_settings(proxy: ProxySettings) -> HttpSettings:
    return HttpSettings(
        ca_file=proxy.ca_file, cert_file=proxy.cert_file, key_file=proxy.key_file, insecure_http=proxy.insecure_http
    )


class UpstreamConnections:
    def __init__(
        self, proxy: ProxySettings, environ: Mapping[str, str] = os.environ, lookup: Lookup = system_lookup
    ) -> None:
        origin, _ = split_url(proxy.url)
        self._opener = WireOpener(http_settings(proxy), origin, proxy.timeout, environ, lookup)
        self._kept: list[tuple[Wire, float]] = []
        self._closed = False

    def take_kept(self) -> Wire | None:
        """A connection that has been used before, the newest first."""
        while self._kept:
            wire, since = self._kept.pop()
            if current_time() - since < IDLE and wire.is_quiet():
                return wire
            wire.close()
        return None

    async def open(self, turn: Turn) -> Wire:
        """A new one. Raises TransportError."""
        await turn.take(HANDSHAKE)
        return await self._opener.open()

    def keep(self, wire: Wire) -> None:
        """For the next request."""
        if self._closed or len(self._kept) >= KEPT:
            wire.close()
        else:
            self._kept.append((wire, current_time()))

    def sweep(self) -> None:
        """Close those that have waited for too long."""
        oldest = current_time() - IDLE
        for wire, _ in [each for each in self._kept if each[1] <= oldest]:
            wire.close()
        self._kept = [each for each in self._kept if each[1] > oldest]

    def close(self) -> None:
        """Requests under way go on; their connections are closed when they end."""
        self._closed = True
        for wire, _ in self._kept:
            wire.close()
        self._kept.clear()
