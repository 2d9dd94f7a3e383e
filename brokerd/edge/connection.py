# Opens connections to providers: name, TCP, perhaps a proxy's tunnel, TLS, and the rule about plain http.
# It sends no request and reads no answer to one, so that whatever fails here fails before the first byte.
from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from urllib.parse import urlsplit

import h11
import trio

from brokerd.core.exchange import ANSWER_TIMEOUT
from brokerd.core.ports import AddressRefused, Clock, TransportError
from brokerd.core.secret import Secret
from brokerd.edge import tls
from brokerd.edge.answer import Limits
from brokerd.edge.dial import Endpoint, Lookup, Resolver, Wire, connect, is_public
from brokerd.edge.proxy import Proxies, Proxy, always, from_environment, is_host, parse_proxy, tunnel

LOOK_TIMEOUT = 3.0  # seconds; for a second look at a certificate that was refused
VISIBLE = re.compile(r"[\x21-\x7e]+")  # RFC 3986: a URL has no blanks, no controls, nothing but ASCII
PLAIN_HTTP = "plain http:// goes to loopback addresses only; use https://, or set insecure_http = true"


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for each read, for the whole answer, and for everything from the first look-up on."""

    read: float
    answer: float
    total: float


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """One provider's way out. Times in seconds, sizes in bytes, files in PEM form.

    `ca_file`: trusted instead of the system's roots. `key_file` may be left out where `cert_file` holds the key too.
    `proxy`: a URL, which may hold a password; None takes HTTPS_PROXY, HTTP_PROXY and NO_PROXY from the environment,
    empty text means none. `connect_timeout` covers DNS, TCP, proxy and TLS together, `read_timeout` each read,
    `total_timeout` everything. `answer_timeout`: how long an answer is waited for in all; None: as `patience` has it.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    proxy: Secret | None = None
    insecure_http: bool = False
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    total_timeout: float = 60.0
    answer_timeout: float | None = None
    max_answer: int = 1 << 20
    max_headers: int = 64 << 10
    max_idle: int = 4  # connections kept per origin
    idle_timeout: float = 15.0  # less than servers and NATs commonly grant

    @property
    def tls_files(self) -> tls.TlsFiles:
        return tls.TlsFiles(self.ca_file, self.cert_file, self.key_file)

    def limits(self, spends: bool = False) -> Limits:
        return Limits(self.max_headers, self.max_answer, self.patience(spends).read)

    def patience(self, spends: bool) -> Patience:
        """How long an answer is waited for: minutes where giving up may lose a login (law 3)."""
        answer = ANSWER_TIMEOUT if self.answer_timeout is None and spends else self.answer_timeout
        if answer is None:
            return Patience(self.read_timeout, self.total_timeout, self.total_timeout)
        return Patience(answer, answer, self.connect_timeout + self.read_timeout + answer)

    def proxies(self, environ: Mapping[str, str]) -> Proxies:
        return from_environment(environ) if self.proxy is None else always(self.proxy)


def check(settings: HttpSettings, environ: Mapping[str, str] = os.environ) -> None:
    """What can be told of the settings without the network; reads the files. Raises TransportError."""
    tls.build(settings.tls_files)
    routes = settings.proxies(environ)
    for url in (routes.https, routes.http):
        if url:
            parse_proxy(url)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a connection can be used for again."""

    endpoint: Endpoint
    secure: bool

    @property
    def host_header(self) -> str:
        """Without the scheme's own port (RFC 9110 section 7.2)."""
        usual = 443 if self.secure else 80
        authority = self.endpoint.authority
        return authority.removesuffix(f":{usual}") if self.endpoint.port == usual else authority


def split_url(url: str) -> tuple[Origin, str]:
    """Origin and request target. Raises TransportError, which shows nothing of the URL."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise TransportError("the URL is broken: expected https://host/path", sent=False) from None
    if parts.scheme not in ("https", "http") or not is_host(host) or port == 0:
        raise TransportError("the URL is broken: expected https://host/path, in ASCII", sent=False)
    if parts.username is not None:
        raise TransportError(f"{host}: the URL holds a user or password; they belong into credentials", sent=False)
    secure = parts.scheme == "https"
    origin = Origin(Endpoint(host, port or (443 if secure else 80)), secure)
    # Of the whole URL, for urlsplit silently drops tabs and newlines from it.
    if not VISIBLE.fullmatch(url):
        raise TransportError(f"{origin.endpoint}: the URL has characters that must be percent-encoded", sent=False)
    target = parts.path or "/"
    return origin, f"{target}?{parts.query}" if parts.query else target


class Stage(Enum):
    """The parts of a way to a provider."""

    FILES = auto()
    LOOKUP = auto()
    CONNECT = auto()
    TUNNEL = auto()
    HANDSHAKE = auto()
    REQUEST = auto()


@dataclass(slots=True)
class Attempt:
    """How far a request came: what is being done for it, and whether the kernel took a byte of it."""

    endpoint: Endpoint
    stage: Stage = Stage.FILES
    doing: str = "reading certificates"
    wire: Wire | None = None
    taken_before: int = 0

    @property
    def sent(self) -> bool:
        return self.wire is not None and self.wire.taken > self.taken_before

    def begins(self, stage: Stage, doing: str) -> None:
        self.stage, self.doing = stage, doing

    def failed(self, reason: str) -> TransportError:
        return TransportError(f"{self.endpoint}: {reason}", sent=self.sent)


@dataclass(slots=True)
class Connection:
    """An open connection: the wire, what is spoken over it, and where the HTTP conversation on it stands. `is_public`:
    it goes straight to a public address."""

    wire: Wire
    stream: trio.abc.Stream
    protocol: h11.Connection
    is_public: bool = False
    idle_since: float = 0.0  # CLOCK_BOOTTIME

    def may_be_kept(self) -> bool:
        """Both sides are done, nobody said close, and nothing came after the answer."""
        done = self.protocol.our_state is h11.DONE and self.protocol.their_state is h11.DONE
        return done and not self.protocol.trailing_data[0]

    async def is_quiet(self) -> bool:
        """Nothing came while it was kept: no end, and no answer that nobody asked for. Closes it otherwise."""
        quiet = False
        try:
            with self.wire.without_waiting():
                await self.stream.receive_some(1)
        except trio.WouldBlock:
            quiet = True
        except trio.BrokenResourceError:
            pass
        finally:
            if not quiet:
                self.wire.close()
        return quiet


class Opener:
    """Opens one provider's connections."""

    def __init__(self, settings: HttpSettings, clock: Clock, environ: Mapping[str, str], lookup: Lookup) -> None:
        self._settings = settings
        self._clock = clock
        self._trust = tls.trust(settings.tls_files)
        self._proxies = settings.proxies(environ)
        self._resolver = Resolver(lookup)

    def route(self, origin: Origin) -> Proxy | None:
        """The proxy to go through, or None. Raises TransportError where the rule about plain http forbids it."""
        way = self._proxies.route(origin.endpoint, secure=origin.secure)
        if way and not origin.secure and not self._settings.insecure_http:
            raise TransportError(f"{origin.endpoint}: {PLAIN_HTTP}", sent=False)
        return way

    async def open(self, origin: Origin, attempt: Attempt, *, guarded: bool = False) -> Connection:
        """A new connection, TLS verified; `guarded`: to a public address only. Through a proxy it is the proxy that
        looks the name up, and has to know where it goes. Raises TransportError."""
        try:
            with trio.move_on_after(self._settings.connect_timeout):
                context = await self._trust.context() if origin.secure else None
                wire, stream = await self._open(origin, context, attempt, guarded=guarded)
                protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=self._settings.max_headers)
                return Connection(wire, stream, protocol, wire.reaches_public and self.route(origin) is None)
            raise attempt.failed(f"timed out after {self._settings.connect_timeout:g} s {attempt.doing}")
        except tls.UntrustedError as error:
            untrusted = error
        certificate = await self._look_at_certificate(origin)
        now = self._clock.now().wall
        raise attempt.failed(tls.untrusted_reason(untrusted, origin.endpoint.host, certificate, now))

    async def _open(
        self, origin: Origin, context: ssl.SSLContext | None, attempt: Attempt, *, guarded: bool = False
    ) -> tuple[Wire, trio.abc.Stream]:
        way = self.route(origin)
        near = way.endpoint if way else origin.endpoint
        attempt.begins(Stage.LOOKUP, f"looking up {near.host}")
        addresses = await self._resolver.addresses(near)
        if guarded and not way and not all(is_public(str(address[0])) for *_, address in addresses):
            words = "the metadata of a public issuer names it, and it is at an address that is not public"
            raise AddressRefused(f"{origin.endpoint}: {words}", sent=False)
        attempt.begins(Stage.CONNECT, f"connecting to {near}" if way else "connecting")
        wire = await connect(addresses, near)
        try:
            if context is None:
                if not (wire.reaches_loopback or self._settings.insecure_http):
                    raise attempt.failed(PLAIN_HTTP)
                return wire, wire
            if way:
                attempt.begins(Stage.TUNNEL, f"waiting for {near}")
                await tunnel(wire, way, origin.endpoint, self._settings.limits())
            attempt.begins(Stage.HANDSHAKE, "in the TLS handshake")
            return wire, await tls.handshake(wire, context, origin.endpoint)
        except BaseException:
            wire.close()
            raise

    async def _look_at_certificate(self, origin: Origin) -> bytes | None:
        """The certificate that was refused: OpenSSL does not give it out, so it is looked at over a second
        connection, on which nothing is asked and nobody is believed."""
        with trio.move_on_after(LOOK_TIMEOUT):
            try:
                wire, stream = await self._open(origin, tls.looking_context(), Attempt(origin.endpoint))
            except (TransportError, tls.UntrustedError):
                return None
            wire.close()
            assert isinstance(stream, trio.SSLStream)
            certificate: bytes | None = stream.getpeercert(binary_form=True)
            return certificate
        return None
