# The way to a provider, walked as the daemon walks it and by its own code: name, connection, proxy, TLS, and a request
# that holds no credential and asks for nothing.
from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from shlex import quote

import trio

from brokerd.config import ProviderSettings
from brokerd.core.exchange import Request, Response
from brokerd.core.metadata import Metadata
from brokerd.core.outcome import Outcome
from brokerd.core.ports import AddressRefused, Clock, TransportError
from brokerd.dialects.answer import dated
from brokerd.dialects.dialect import Dialect
from brokerd.doctor.finding import Finding, ok, problem, told, warning
from brokerd.doctor.scene import Scene
from brokerd.edge import tls
from brokerd.edge.connection import Attempt, HttpSettings, Opener, Origin, Stage, check, split_url
from brokerd.edge.dial import system_lookup
from brokerd.edge.http import HttpClient
from brokerd.edge.proxy import Proxy, from_environment
from brokerd.installation import http_settings

FIRST = "token_endpoint"
ASKED = ("revocation_endpoint", "introspection_endpoint", "device_authorization_endpoint")  # by brokerd besides
HAS_LETTERS = re.compile("[A-Za-z]")  # a name, where it has no colon
Tell = Callable[[Finding], None]
PATIENCE = 5.0  # seconds for a connection, and for an answer
SOON = 14 * 86_400.0  # seconds; who renews certificates by machine does it earlier
SKEWED = 10.0  # seconds between our clock and a provider's: a Date has whole ones, and its answer was on its way
WRONG = 300.0  # seconds; signed assertions are refused then


async def ask(settings: ProviderSettings, environ: Mapping[str, str], clock: Clock, tell: Tell) -> None:
    """Everything about one provider, up to the first thing that is in the way."""
    way_out = replace(
        http_settings(settings), connect_timeout=PATIENCE, read_timeout=PATIENCE, total_timeout=2 * PATIENCE
    )
    try:
        await trio.to_thread.run_sync(check, way_out, environ)
    except TransportError:  # it is the configuration that is wrong, and is found to be
        return
    walk = _Walk(settings.name, way_out, environ, clock, tell)
    try:
        await walk.to_endpoints(settings.dialect)
    finally:
        await walk.http.aclose()


class _Walk:
    def __init__(self, name: str, way_out: HttpSettings, environ: Mapping[str, str], clock: Clock, tell: Tell) -> None:
        self._name = name
        self.http = HttpClient(way_out, clock, environ=environ)
        self._opener = Opener(way_out, clock, environ, system_lookup)
        self._clock = clock
        self._tell = tell
        self._walked: dict[Origin, bool] = {}

    async def to_endpoints(self, dialect: Dialect) -> None:
        """To the token endpoint, and to where else brokerd sends requests: as configured, or as the issuer says."""
        ways = {name: (url, False) for name, url in dialect.endpoints.items()}
        if FIRST not in ways:
            assert dialect.issuer is not None, "a provider has a URL, or an issuer that names one"
            if not await self._is_open(dialect.issuer) or (found := await self._discovered(dialect)) is None:
                return
            ways = {name: (url, found.guarded) for name, url in found.endpoints.items()} | ways
        url, guarded = ways[FIRST]
        if await self._is_open(url, guarded=guarded):
            await self._ask(url, guarded=guarded)
        for url, guarded in (ways[name] for name in ASKED if name in ways):
            await self._is_open(url, guarded=guarded)

    async def _is_open(self, url: str, *, guarded: bool = False) -> bool:
        """Opens a connection like those that requests go over, and closes it unused."""
        origin, _ = split_url(url)
        if origin in self._walked:
            return self._walked[origin]
        self._walked[origin] = False
        attempt, way = Attempt(origin.endpoint), None
        try:
            way = self._opener.route(origin)
            connection = await self._opener.open(origin, attempt, guarded=guarded)
        except AddressRefused as error:
            self._tell(self._refused(error))
            return False
        except TransportError as error:
            self._tell(_in_the_way(attempt.stage, error.reason, origin, way))
            return False
        connection.wire.close()
        self._walked[origin] = True
        near = way.endpoint if way else origin.endpoint
        if HAS_LETTERS.search(near.host) and ":" not in near.host:
            self._tell(ok("dns", f"{near.host} has an address"))
        if way is not None:
            self._tell(ok("proxy", f"{way.endpoint.authority} leads to {origin.endpoint}"))
        if origin.secure:
            self._tell(of_certificate(tls.expiry(connection.stream), self._clock.now().wall, origin))
        return True

    async def _discovered(self, dialect: Dialect) -> Metadata | None:
        """What the issuer says of itself, asked for as an exchange asks; None where it was told why not."""
        discovery, answer = dialect.discover(None), None
        found: Metadata | Outcome
        try:
            while True:
                step = discovery.send(answer)
                assert isinstance(step, Request), "a discovery only asks"
                answer = await self.http.send(step)
        except StopIteration as stop:
            found = stop.value
        except TransportError as error:
            self._tell(told("endpoint", f"discovery: {error.reason}", f"curl -v {dialect.issuer}"))
            return None
        finally:
            discovery.close()
        if isinstance(found, Metadata):
            return found
        reason = getattr(found, "reason", "the issuer's metadata cannot be had")
        self._tell(told("endpoint", reason, f"curl -v {dialect.issuer}/.well-known/openid-configuration"))
        return None

    async def _ask(self, url: str, *, guarded: bool) -> None:
        origin, _ = split_url(url)
        try:
            response = await self.http.send(Request("GET", url, guarded=guarded))
        except AddressRefused as error:
            self._tell(self._refused(error))
            return
        except TransportError as error:
            subject = "proxy" if error.reason.startswith("proxy ") else "endpoint"
            self._tell(told(subject, error.reason, f"curl -v {_bare(origin)}"))
            return
        self._tell(of_answer(response, url))
        if (skew := skew_of(response)) is not None and abs(skew) > SKEWED:
            words = f"ours is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the provider's"
            self._tell((problem if abs(skew) > WRONG else warning)("clock", words, "timedatectl status; date -u"))

    def _refused(self, error: AddressRefused) -> Finding:
        """Whether somebody agreed to it lies in the store, sealed."""
        return warning(
            "endpoint", f"{error.reason}, and was not asked", f"if it is right: brokerctl trust {self._name}"
        )


def proxy(scene: Scene) -> Iterator[Finding]:
    """What a shell's environment has and the daemon's has not: the way that works by hand is not the one it takes."""
    here, there = from_environment(os.environ), from_environment(scene.environ)
    if here.https and not there.https:
        name = "HTTPS_PROXY=http://HOST:PORT"
        how = scene.edit(name if scene.unit is None else f"Environment={name}")
        yield warning("proxy", "HTTPS_PROXY is set here, and not for brokerd", f"{how}, or set proxy of the provider")


def of_answer(response: Response, url: str) -> Finding:
    """Whatever it says to a GET without credentials, it speaks HTTP: most say 405, many 404 or 401. Pure."""
    status, url = response.status, quote(url)  # its issuer may have named it
    if status >= 500:
        return warning("endpoint", f"{url} answers {status}: the provider has a fault", f"curl -v {url}")
    if 300 <= status < 400:
        words = f"{url} answers {status} and leads elsewhere, where brokerd does not follow"
        return warning("endpoint", words, f"curl -v {url}; write the URL that it leads to into the configuration")
    return ok("endpoint", f"{url} answers {status}")


def of_certificate(expires: float | None, now: float, origin: Origin) -> Finding:
    """Pure."""
    if expires is None:
        return ok("tls", f"{origin.endpoint} is trusted")
    left = expires - now
    words = f"{origin.endpoint} is trusted; its certificate ends in {left / 86_400:.0f} days"
    if left < SOON:
        return warning("tls", words.replace("; its", ", and its"), "ask its operator to renew it")
    return ok("tls", words)


def skew_of(response: Response) -> float | None:
    """Seconds that our clock is ahead of the answer's Date. Pure."""
    date = dated(response)
    return None if date is None else response.at.wall - date


def _in_the_way(stage: Stage, reason: str, origin: Origin, way: Proxy | None) -> Finding:
    """What a failure on the way is about."""
    near = way.endpoint if way else origin.endpoint
    look = f"curl -sv -o /dev/null {_bare(origin)}"
    if stage is Stage.TUNNEL or (way is not None and stage in (Stage.LOOKUP, Stage.CONNECT)):
        return told("proxy", reason, f"{look}; or change proxy in the configuration, or HTTPS_PROXY of the unit")
    match stage:
        case Stage.FILES:
            return told("proxy" if "roxy" in reason else "tls", reason, look)
        case Stage.LOOKUP:
            return told("dns", reason, f"getent ahosts {quote(near.host)} || resolvectl status")
        case Stage.HANDSHAKE:
            at, host = quote(str(origin.endpoint)), quote(origin.endpoint.host)
            peer = f"openssl s_client -connect {at} -servername {host} </dev/null"
            return told("tls", reason, peer)
        case _:
            return told("connection", reason, look)


def _bare(origin: Origin) -> str:
    return quote(f"{'https' if origin.secure else 'http'}://{origin.host_header}/")
