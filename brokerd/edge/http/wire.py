# A connected socket, plain or TLS, for brokerd-proxy: bytes in and out without buffers and locks of their own. One task
# reads and one task writes at a time.
from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from brokerd.core.ports import TransportError
from brokerd.edge.http.connection import PLAIN_HTTP, Attempt, HttpSettings, Origin, Stage
from brokerd.edge.http.dial import AddressInfo, Endpoint, Lookup, Resolver, connect, system_lookup
from brokerd.edge.http.proxy import tunnel
from brokerd.edge.http.tls import UntrustedError, reason_of, shared_context, untrusted_reason

LOOKUP_COUNTS = 1.0  # seconds for which the addresses of a name are used again
RECORDS = 32  # of TLS that are read in one go: records of one byte each must not delay other connections
TURNS = 16  # reads or writes that need not wait, before other tasks have their turn
LAST_READS, LAST_BYTES = 2.0, 16 * 1024 * 1024  # seconds and bytes that are read and dropped before a socket is closed


class Broken(Exception):
    """The other side broke the connection. The text says how."""


class Wire:
    """`broken`: what it raises when the connection breaks. `patience`: seconds for which the other side may neither
    send nor read while something is awaited of it. `sent`: bytes that the kernel or TLS accepted. `is_watched`: a
    Arrivals know the socket."""

    def __init__(self, sock: socket.socket, broken: type[Exception] = Broken, patience: float = math.inf) -> None:
        self.sock = sock
        self.sent = 0
        self.is_watched = False
        self.broken = broken
        self._patience = patience
        self._turns = 0
        self._secured = isinstance(sock, ssl.SSLSocket)
        self._has_ended = False  # TLS has ended: the kernel may have nothing more to say then
        self._arrivals: select.poll | None = None

    async def receive_into(self, room: memoryview) -> int:
        """Waits for bytes, and takes those that are there. 0: the other side ends its sending. Raises `broken`."""
        while (taken := self.receive_at_once(room)) < 0:
            await self._wait(trio.lowlevel.wait_readable)
        await self._breathe()
        return taken + self.receive_more(room[taken:]) if taken else 0

    def receive_more(self, room: memoryview) -> int:
        """Behind bytes that were received just now: further records of TLS, each of which brings 16 KiB at most."""
        taken = 0
        with contextlib.suppress(self.broken):  # an end is seen again next time
            for _ in range(RECORDS if self._secured else 0):
                if taken == len(room) or (more := self.receive_at_once(room[taken:])) <= 0:
                    break
                taken += more
        return taken

    @property
    def has_ahead(self) -> bool:
        """Whether TLS holds bytes that the kernel has given out already: it is not readable then."""
        return self._secured and bool(self.sock.pending())  # type: ignore[attr-defined]

    def receive_at_once(self, room: memoryview) -> int:
        """As `receive_into`, but it takes no more than one record of TLS. -1: nothing is there."""
        try:
            taken = self.sock.recv_into(room)
        except (BlockingIOError, ssl.SSLWantReadError):
            return -1
        except OSError as error:
            self._has_ended = True
            raise self.broken(reason_of(error)) from None
        if not taken:
            self._has_ended = True
        return taken

    def send_at_once(self, data: bytes) -> int:
        """How many bytes were taken, perhaps fewer than all. Raises `broken`."""
        try:
            taken = self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        except OSError as error:
            raise self.broken(reason_of(error)) from None
        self.sent += taken
        return taken

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Raises `broken`."""
        with memoryview(data) as view:
            left = len(view)
            while left:
                try:
                    taken = self.sock.send(view[-left:])
                except (BlockingIOError, ssl.SSLWantWriteError):
                    await self._wait(trio.lowlevel.wait_writable)
                except ssl.SSLWantReadError:
                    await self._wait(trio.lowlevel.wait_readable)
                except OSError as error:
                    raise self.broken(reason_of(error)) from None
                else:
                    left -= taken
                    self.sent += taken
        await self._breathe()

    async def _wait(self, until: Callable[[socket.socket], Awaitable[None]]) -> None:
        with trio.move_on_after(self._patience) as scope:
            await until(self.sock)
        if scope.cancelled_caught:
            raise self.broken(f"neither sent nor read anything for {self._patience:g} s")

    async def _breathe(self) -> None:
        self._turns += 1
        if self._turns >= TURNS:
            self._turns = 0
            await trio.lowlevel.checkpoint()

    def is_quiet(self) -> bool:
        """Whether nothing has come, neither bytes nor an end."""
        if self._has_ended:
            return False
        if self._arrivals is None:
            self._arrivals = select.poll()
            self._arrivals.register(self.sock, select.POLLIN)
        return not self._arrivals.poll(0) and not self.has_ahead

    async def wait_until_gone(self) -> None:
        """Until the other side has closed its socket. At a Unix socket the end of its sending alone is no end; at TCP
        it counts as one, because there it looks the same."""
        while True:
            await trio.lowlevel.wait_readable(self.sock)
            poll = select.poll()
            poll.register(self.sock, 0)
            if any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
                return
            try:
                if self.sock.recv(1, socket.MSG_PEEK):  # the next request came: the other side is there
                    await trio.sleep_forever()
            except OSError:
                return
            if self.sock.family != socket.AF_UNIX:
                return
            await trio.sleep(1.0)

    async def finish(self) -> None:
        """End the sending, and drop what still comes. If the socket were closed with unread bytes in it, the kernel
        would reset the connection, and the other side might never read what was sent last."""
        left = LAST_BYTES
        with contextlib.suppress(OSError), trio.move_on_after(LAST_READS):
            self.sock.shutdown(socket.SHUT_WR)
            while left > 0:
                await trio.lowlevel.wait_readable(self.sock)
                size = len(self.sock.recv(64 * 1024))
                left = left - size if size else 0

    def close(self) -> None:
        self.sock.close()


class WireOpener:
    """Opens connections to one origin. Nothing is sent over them before they are returned. `patience`: of each wire.
    `environ`: names the proxy for https (HTTPS_PROXY, NO_PROXY); plain http goes through none."""

    def __init__(
        self,
        settings: HttpSettings,
        origin: Origin,
        patience: float,
        environ: Mapping[str, str],
        lookup: Lookup = system_lookup,
    ) -> None:
        self._settings = settings
        self._patience = patience
        self._origin = origin
        self._proxies = settings.proxies(environ)
        self._tls = shared_context(settings.tls_files)
        self._resolver = Resolver(lookup)
        self._looking_up = trio.Lock()
        self._found: tuple[float, Sequence[AddressInfo] | TransportError] = (-math.inf, ())  # until when it counts

    async def open(self) -> Wire:
        """Raises TransportError."""
        origin, attempt = self._origin, Attempt(self._origin.endpoint)
        with trio.move_on_after(self._settings.connect_timeout):
            context = await self._tls.current() if origin.secure else None
            sock = await self._connect(attempt)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
                if context is None:
                    return Wire(sock, patience=self._patience)
                attempt.begins(Stage.HANDSHAKE, "in the TLS handshake")
                return Wire(await _secured(sock, context, origin.endpoint), patience=self._patience)
            except BaseException:
                sock.close()
                raise
        raise attempt.failed(f"timed out after {self._settings.connect_timeout:g} s {attempt.doing}")

    async def _addresses(self, peer: Endpoint) -> Sequence[AddressInfo]:
        """One look-up for all who open a connection at the same time: threads are few. Raises TransportError."""
        async with self._looking_up:
            until, found = self._found
            if trio.current_time() >= until:
                try:
                    found = await self._resolver.addresses(peer)
                except TransportError as error:
                    found = error
                self._found = trio.current_time() + LOOKUP_COUNTS, found
        if isinstance(found, TransportError):
            raise TransportError(found.reason, sent=False)
        return found

    async def _connect(self, attempt: Attempt) -> socket.socket:
        """A TCP connection to the origin, or a tunnel through the proxy to it."""
        origin = self._origin
        proxy = self._proxies.route(origin.endpoint, secure=True) if origin.secure else None
        peer = proxy.endpoint if proxy else origin.endpoint
        attempt.begins(Stage.LOOKUP, f"looking up {peer.host}")
        addresses = await self._addresses(peer)
        attempt.begins(Stage.CONNECT, f"connecting to {peer}" if proxy else "connecting")
        tcp = await connect(addresses, peer)
        try:
            if not (origin.secure or tcp.reaches_loopback or self._settings.insecure_http):
                raise attempt.failed(PLAIN_HTTP)
            if proxy:
                attempt.begins(Stage.TUNNEL, f"waiting for {peer}")
                await tunnel(tcp, proxy, origin.endpoint, self._settings.limits())
        except BaseException:
            tcp.close()
            raise
        return tcp.detach()


async def _secured(sock: socket.socket, context: ssl.SSLContext, endpoint: Endpoint) -> ssl.SSLSocket:
    """Takes over the socket."""
    name = endpoint.host.removesuffix(".")
    secured = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False, suppress_ragged_eofs=False)
    try:
        while True:
            try:
                secured.do_handshake()
                return secured
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secured)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(secured)
    except ssl.SSLCertVerificationError as error:
        secured.close()
        untrusted = UntrustedError(error.verify_code, error.verify_message)
        words = untrusted_reason(untrusted, name, None, time.time())
        raise TransportError(f"{endpoint}: {words}", sent=False) from None
    except OSError as error:
        secured.close()
        raise TransportError(f"{endpoint}: TLS handshake: {reason_of(error)}", sent=False) from None
    except BaseException:
        secured.close()
        raise
