# Checks the way to a provider with the daemon's own code: name, connection, proxy, TLS, and a request that carries no
# credential and asks for nothing.
from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from shlex import quote

import trio

from brokerd.config.settings import ProviderSettings
from brokerd.core.exchange.outcomes import Outcome
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.steps import Request, Response
from brokerd.core.ports import AddressRefused, Clock, TransportError
from brokerd.dialects.answer_values import dated
from brokerd.dialects.dialect import Dialect
from brokerd.doctor.context import Facts
from brokerd.doctor.finding import Finding, ok, problem, problem_from, warning
from brokerd.edge.http import tls
from brokerd.edge.http.client import HttpClient
from brokerd.edge.http.connection import Attempt, HttpSettings, Opener, Origin, Stage, check, split_url
from brokerd.edge.http.dial import system_lookup
from brokerd.edge.http.proxy import Proxy, from_environment
from brokerd.setup.installation import http_settings

FIRST = "token_endpoint"
ASKED = ("revocation_endpoint", "introspection_endpoint", "device_authorization_endpoint")  # by brokerd besides
HAS_LETTERS = re.compile("[A-Za-z]")  # a name, where it has no colon
Tell = Callable[[Finding], None]
PATIENCE = 5.0  # seconds for a connection, and for an answer
SOON = 14 * 86_400.0  # seconds; who renews certificates by machine does it earlier
SKEWED = 10.0  # seconds between our clock and a provider's: a Date has whole ones, and its answer was on its way
WRONG = 300.0  # seconds; signed assertions are refused then


async def ask(settings: ProviderSettings, environ: Mapping[str, str], clock: Clock, tell: Tell) -> None:
    """Everything about one provider, up to the first thing that fails. A provider without a URL is never asked."""
    if not settings.dialect.endpoints and settings.dialect.issuer is None:
        return
    http = replace(http_settings(settings), connect_timeout=PATIENCE, read_timeout=PATIENCE, total_timeout=2 * PATIENCE)
    try:
        await trio.to_thread.run_sync(check, http, environ)
    except TransportError:  # the check of the configuration says so
        return
    walk = _Walk(settings.name, http, environ, clock, tell)
    try:
        await walk.to_endpoints(settings.dialect)
    finally:
        await walk.http.aclose()


class _Walk:
    def __init__(self, name: str, http: HttpSettings, environ: Mapping[str, str], clock: Clock, tell: Tell) -> None:
        self._name = name
        self.http = HttpClient(http, clock, environ=environ)
        self._opener = Opener(http, clock, environ, system_lookup)
        self._clock = clock
        self._tell = tell
        self._walked: dict[Origin, bool] = {}

    async def to_endpoints(self, dialect: Dialect) -> None:
        """The token endpoint and the others that brokerd sends requests to, as configured or as the issuer says."""
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
        """Open a connection as a request would, and close it unused."""
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
            self._tell(in_the_way(attempt.stage, error.reason, origin, way))
            return False
        connection.tcp.close()
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
        """The issuer's metadata, fetched as an exchange does it; None: a finding says why not."""
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
            self._tell(problem_from("endpoint", f"discovery: {error.reason}", f"curl -v {dialect.issuer}"))
            return None
        finally:
            discovery.close()
        if isinstance(found, Metadata):
            return found
        reason = getattr(found, "reason", "the issuer's metadata could not be fetched")
        self._tell(problem_from("endpoint", reason, f"curl -v {dialect.issuer}/.well-known/openid-configuration"))
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
            self._tell(problem_from(subject, error.reason, f"curl -v {_bare(origin)}"))
            return
        self._tell(of_answer(response, url))
        if (skew := skew_of(response)) is not None and abs(skew) > SKEWED:
            words = f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the provider's"
            self._tell((problem if abs(skew) > WRONG else warning)("clock", words, "timedatectl status; date -u"))

    def _refused(self, error: AddressRefused) -> Finding:
        """Whether an operator agreed to this address is in the sealed store, which this command does not open."""
        words, remedy = f"{error.reason}, so it was not asked", f"if that is right: brokerctl trust {self._name}"
        return warning("endpoint", words, remedy)


def proxy(facts: Facts) -> Iterator[Finding]:
    """A proxy in the shell's environment that the daemon's lacks: what works by hand may not work for the daemon."""
    here, there = from_environment(os.environ), from_environment(facts.environ)
    if here.https and not there.https:
        name = "HTTPS_PROXY=http://HOST:PORT"
        how = facts.edit(name if facts.unit is None else f"Environment={name}")
        words = "HTTPS_PROXY is set in this shell and not for brokerd"
        yield warning("proxy", words, f"{how}, or set proxy in [providers.NAME]")


def of_answer(response: Response, url: str) -> Finding:
    """Any answer below 500 to a GET without credentials is good: the server speaks HTTP. Most say 405. Pure."""
    status, url = response.status, quote(url)  # its issuer may have named it
    if status >= 500:
        return warning("endpoint", f"{url} answers {status}: the provider has a fault", f"curl -v {url}")
    if 300 <= status < 400:
        words = f"{url} answers {status}, a redirect, which brokerd does not follow"
        return warning("endpoint", words, f"find the new URL: curl -v {url}; then write it into the configuration")
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


def in_the_way(stage: Stage, reason: str, origin: Origin, way: Proxy | None) -> Finding:
    """The finding about a failure on the way."""
    near = way.endpoint if way else origin.endpoint
    look = f"curl -sv -o /dev/null {_bare(origin)}"
    if stage is Stage.TUNNEL or (way is not None and stage in (Stage.LOOKUP, Stage.CONNECT)):
        change = "change proxy in the configuration, or HTTPS_PROXY of the unit"
        return problem_from("proxy", reason, f"{look}; or {change}")
    match stage:
        case Stage.FILES:
            return problem_from("proxy" if "roxy" in reason else "tls", reason, look)
        case Stage.LOOKUP:
            return problem_from("dns", reason, f"getent ahosts {quote(near.host)} || resolvectl status")
        case Stage.HANDSHAKE:
            at, host = quote(str(origin.endpoint)), quote(origin.endpoint.host)
            peer = f"openssl s_client -connect {at} -servername {host} </dev/null"
            return problem_from("tls", reason, peer)
        case _:
            return problem_from("connection", reason, look)


def _bare(origin: Origin) -> str:
    return quote(f"{'https' if origin.secure else 'http'}://{origin.host_header}/")
