# Opens connections to providers: DNS, TCP, the tunnel of a proxy, TLS, and the rule about plain http. Whatever fails
# here fails before the first byte of a request was sent.
from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from urllib.parse import urlsplit

import h11
import trio

from brokerd.core.exchange.steps import ANSWER_TIMEOUT
from brokerd.core.ports import AddressRefused, Clock, TransportError
from brokerd.core.secret import Secret
from brokerd.edge.http import tls
from brokerd.edge.http.answer import READ_SIZE, AnswerLimits
from brokerd.edge.http.dial import Endpoint, Lookup, Resolver, TcpStream, connect, is_public
from brokerd.edge.http.proxy import Proxies, Proxy, always, from_environment, is_host, parse_proxy, tunnel

CERTIFICATE_TIMEOUT = 3.0  # seconds to fetch a certificate that was refused
VISIBLE = re.compile(r"[\x21-\x7e]+")  # RFC 3986: a URL is ASCII without blanks and control characters
PLAIN_HTTP = "plain http:// goes to loopback addresses only; use https://, or set insecure_http = true"


@dataclass(frozen=True, slots=True)
class AnswerTimeouts:
    """Seconds for each read, for the whole answer, and for everything since the DNS look-up began."""

    read: float
    answer: float
    total: float


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """How to connect to one provider. Times in seconds, sizes in bytes, files in PEM form.

    `ca_file`: trusted instead of the system's root certificates. `key_file` may be left out if `cert_file` holds the
    key too. `proxy`: a URL, which may hold a password; None takes HTTPS_PROXY, HTTP_PROXY and NO_PROXY from the
    environment, empty text means no proxy. `connect_timeout`: for DNS, TCP, proxy and TLS together. `read_timeout`: for
    each read. `total_timeout`: for everything. `answer_timeout`: for the whole answer; None: see `timeouts`.

    Many attributes: each is a key of the configuration.
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
    read_size: int = READ_SIZE  # for one read; more only for servers that are ours
    max_idle: int = 4  # connections kept per origin
    idle_timeout: float = 15.0  # shorter than the idle timeouts of common servers and NATs

    @property
    def tls_files(self) -> tls.TlsFiles:
        return tls.TlsFiles(self.ca_file, self.cert_file, self.key_file)

    def limits(self, sends_stored: bool = False) -> AnswerLimits:
        return AnswerLimits(self.max_headers, self.max_answer, self.timeouts(sends_stored).read, self.read_size)

    def timeouts(self, sends_stored: bool) -> AnswerTimeouts:
        """How long to wait for an answer: minutes if giving up could lose a refresh token (law 3)."""
        answer = ANSWER_TIMEOUT if self.answer_timeout is None and sends_stored else self.answer_timeout
        if answer is None:
            return AnswerTimeouts(self.read_timeout, self.total_timeout, self.total_timeout)
        return AnswerTimeouts(answer, answer, self.connect_timeout + self.read_timeout + answer)

    def proxies(self, environ: Mapping[str, str]) -> Proxies:
        return from_environment(environ) if self.proxy is None else always(self.proxy)


def check(settings: HttpSettings, environ: Mapping[str, str] = os.environ) -> None:
    """Check the settings without the network. It reads the files. Raises TransportError."""
    tls.build(settings.tls_files)
    routes = settings.proxies(environ)
    for url in (routes.https, routes.http):
        if url:
            parse_proxy(url)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port. A kept connection is used again for the same origin."""

    endpoint: Endpoint
    secure: bool

    @property
    def host_header(self) -> str:
        """The Host header: without the port if it is the default of the scheme (RFC 9110 section 7.2)."""
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
        raise TransportError(f"{host}: the URL holds a user or a password; move them to the credentials", sent=False)
    secure = parts.scheme == "https"
    origin = Origin(Endpoint(host, port or (443 if secure else 80)), secure)
    # The whole URL is checked, because urlsplit silently drops tabs and newlines.
    if not VISIBLE.fullmatch(url):
        raise TransportError(f"{origin.endpoint}: the URL has characters that must be percent-encoded", sent=False)
    target = parts.path or "/"
    return origin, f"{target}?{parts.query}" if parts.query else target


class Stage(Enum):
    """The stages of a request, in order."""

    FILES = auto()
    LOOKUP = auto()
    CONNECT = auto()
    TUNNEL = auto()
    HANDSHAKE = auto()
    REQUEST = auto()


@dataclass(slots=True)
class Attempt:
    """How far a request has come: what is being done now, and whether the kernel accepted a byte of it. `notice`: is
    told of each stage."""

    endpoint: Endpoint
    stage: Stage = Stage.FILES
    doing: str = "reading certificates"
    tcp: TcpStream | None = None
    taken_before: int = 0
    notice: Callable[[str, str], None] | None = None

    @property
    def sent(self) -> bool:
        return self.tcp is not None and self.tcp.taken > self.taken_before

    def begins(self, stage: Stage, doing: str) -> None:
        self.stage, self.doing = stage, doing
        if self.notice is not None:
            self.notice(stage.name.lower(), doing)

    def failed(self, reason: str) -> TransportError:
        return TransportError(f"{self.endpoint}: {reason}", sent=self.sent)


@dataclass(slots=True)
class HttpConnection:
    """An open connection. `tcp`: the TCP connection. `stream`: what HTTP is sent over, `tcp` itself or TLS over it.
    `protocol`: the state of HTTP on it. `is_public`: it goes to a public address without a proxy."""

    tcp: TcpStream
    stream: trio.abc.Stream
    protocol: h11.Connection
    is_public: bool = False
    idle_since: float = 0.0  # CLOCK_BOOTTIME

    def may_be_kept(self) -> bool:
        """Both sides have finished, neither sent `Connection: close`, and nothing was received after the answer."""
        done = self.protocol.our_state is h11.DONE and self.protocol.their_state is h11.DONE
        return done and not self.protocol.trailing_data[0]

    async def is_quiet(self) -> bool:
        """Whether nothing was received while it was kept, neither data nor an end. Closes it otherwise."""
        quiet = False
        try:
            with self.tcp.without_waiting():
                await self.stream.receive_some(1)
        except trio.WouldBlock:
            quiet = True
        except trio.BrokenResourceError:
            pass
        finally:
            if not quiet:
                self.tcp.close()
        return quiet


class Opener:
    """Opens the connections to one provider."""

    def __init__(self, settings: HttpSettings, clock: Clock, environ: Mapping[str, str], lookup: Lookup) -> None:
        self._settings = settings
        self._clock = clock
        self._tls_context = tls.shared_context(settings.tls_files)
        self._proxies = settings.proxies(environ)
        self._resolver = Resolver(lookup)
        self.certificate_ends: float | None = None  # of the server that was connected to last, in Unix seconds

    def route(self, origin: Origin) -> Proxy | None:
        """The proxy to go through, or None. Raises TransportError where the rule about plain http forbids it."""
        proxy = self._proxies.route(origin.endpoint, secure=origin.secure)
        if proxy and not origin.secure and not self._settings.insecure_http:
            raise TransportError(f"{origin.endpoint}: {PLAIN_HTTP}", sent=False)
        return proxy

    async def open(self, origin: Origin, attempt: Attempt, *, guarded: bool = False) -> HttpConnection:
        """A new connection with verified TLS. `guarded`: to a public address only; this is not checked with a proxy,
        because the proxy does the DNS look-up. Raises TransportError."""
        try:
            with trio.move_on_after(self._settings.connect_timeout):
                context = await self._tls_context.current() if origin.secure else None
                tcp, stream = await self._open(origin, context, attempt, guarded=guarded)
                self.certificate_ends = tls.expiry(stream)
                protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=self._settings.max_headers)
                return HttpConnection(tcp, stream, protocol, tcp.reaches_public and self.route(origin) is None)
            raise attempt.failed(f"timed out after {self._settings.connect_timeout:g} s {attempt.doing}")
        except tls.UntrustedError as error:
            untrusted = error
        certificate = await self._fetch_certificate(origin)
        now = self._clock.now().wall
        raise attempt.failed(tls.untrusted_reason(untrusted, origin.endpoint.host, certificate, now))

    async def _open(
        self, origin: Origin, context: ssl.SSLContext | None, attempt: Attempt, *, guarded: bool = False
    ) -> tuple[TcpStream, trio.abc.Stream]:
        proxy = self.route(origin)
        peer = proxy.endpoint if proxy else origin.endpoint
        attempt.begins(Stage.LOOKUP, f"looking up {peer.host}")
        addresses = await self._resolver.addresses(peer)
        if guarded and not proxy and not all(is_public(str(address[0])) for *_, address in addresses):
            words = "the metadata of a public issuer names this host, but its address is not public"
            raise AddressRefused(f"{origin.endpoint}: {words}", sent=False)
        attempt.begins(Stage.CONNECT, f"connecting to {peer}" if proxy else "connecting")
        tcp = await connect(addresses, peer)
        try:
            if context is None:
                if not (tcp.reaches_loopback or self._settings.insecure_http):
                    raise attempt.failed(PLAIN_HTTP)
                return tcp, tcp
            if proxy:
                attempt.begins(Stage.TUNNEL, f"waiting for {peer}")
                await tunnel(tcp, proxy, origin.endpoint, self._settings.limits())
            attempt.begins(Stage.HANDSHAKE, "in the TLS handshake")
            return tcp, await tls.handshake(tcp, context, origin.endpoint)
        except BaseException:
            tcp.close()
            raise

    async def _fetch_certificate(self, origin: Origin) -> bytes | None:
        """The certificate that was refused. OpenSSL does not return it, so it is fetched over a second connection. No
        request is sent over that connection."""
        with trio.move_on_after(CERTIFICATE_TIMEOUT):
            try:
                tcp, stream = await self._open(origin, tls.unverified_context(), Attempt(origin.endpoint))
            except (TransportError, tls.UntrustedError):
                return None
            tcp.close()
            assert isinstance(stream, trio.SSLStream)
            certificate: bytes | None = stream.getpeercert(binary_form=True)
            return certificate
        return None
