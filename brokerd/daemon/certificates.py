# When the certificates end that connections to providers need: the provider's own, the one that brokerd presents, the
# authorities of ca_file. They are looked at again and again, because files are replaced while a daemon runs.
from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import trio

from brokerd.broker.provider import Provider
from brokerd.edge.files.certificates import ends
from brokerd.edge.http.client import HttpClient
from brokerd.edge.system.thread_limit import ThreadLimit

LOOK = 60.0  # seconds between two looks
SERVER, CLIENT, AUTHORITY = "server", "client", "authority"
_files = ThreadLimit(1)  # a disk that hangs takes one thread


async def watch_certificates(providers: Callable[[], Iterable[Provider]]) -> None:
    """For ever: keep `certificates` of each provider."""
    while True:
        for provider in list(providers()):
            await look(provider)
        await trio.sleep(LOOK)


async def look(provider: Provider) -> None:
    """A file that cannot be read has no end: the next exchange says why."""
    settings, found = provider.settings, {}
    if isinstance(provider.http, HttpClient) and provider.http.certificate_ends is not None:
        found[SERVER] = provider.http.certificate_ends
    for name, file in ((CLIENT, settings.cert_file), (AUTHORITY, settings.ca_file)):
        if file is not None:
            at = await _files.run(partial(ends, file, name == CLIENT))
            if at is not None:
                found[name] = at
    provider.certificates = found
