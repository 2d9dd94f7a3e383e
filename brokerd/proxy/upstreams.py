# The connections to one upstream: those that wait for the next request, and new ones.
from __future__ import annotations

from trio import current_time

from brokerd.config.proxies import ProxySettings
from brokerd.edge.http.connection import HttpSettings, split_url
from brokerd.edge.http.wire import Wire, WireOpener

KEPT = 64  # connections that wait
IDLE = 15.0  # seconds that one waits, shorter than the idle timeouts of common servers


class UpstreamConnections:
    def __init__(self, proxy: ProxySettings) -> None:
        origin, _ = split_url(proxy.url)
        settings = HttpSettings(
            ca_file=proxy.ca_file,
            cert_file=proxy.cert_file,
            key_file=proxy.key_file,
            insecure_http=proxy.insecure_http,
        )
        self._opener = WireOpener(settings, origin, proxy.timeout)
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

    async def open(self) -> Wire:
        """A new one. Raises TransportError."""
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
