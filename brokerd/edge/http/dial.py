# From a host name to a TCP connection: DNS in threads of its own, attempts one after the other, and a stream that
# counts the bytes sent. A TransportError from here means that no byte of a request was sent.
from __future__ import annotations

import contextlib
import errno
import ipaddress
import itertools
import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from brokerd.core.ports import TransportError

AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
Lookup = Callable[[str, int], Sequence[AddressInfo]]

LOOKUPS_PER_HOST = 2  # threads; a host whose DNS server does not answer blocks only its own threads (law 13)
STAGGER = 0.25  # seconds after which the next address is tried as well (RFC 8305 section 5)
MAX_ADDRESSES = 8  # to try for one connection; a name with hundreds of addresses is a mistake or an attack


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The target of a TCP connection: a name, or an address without brackets. `role` stands before it in errors."""

    host: str
    port: int
    role: str = ""

    @property
    def authority(self) -> str:
        """host:port, for CONNECT and for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.role + self.authority


class TcpStream(trio.abc.Stream):
    """A TCP connection. `taken` counts the bytes that the kernel accepted; while it does not grow, nothing is sent
    (law 3)."""

    def __init__(self, sock: trio.socket.SocketType, peer: str) -> None:
        self._sock = sock
        self._stream = trio.SocketStream(sock)
        self._peer = peer
        self._waits = True
        self.taken = 0

    @property
    def reaches_loopback(self) -> bool:
        """Whether the connected address is a loopback address, whatever the name was."""
        return is_loopback(self._peer)

    @property
    def reaches_public(self) -> bool:
        """Whether the connected address is public."""
        return is_public(self._peer)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as view:
            left = len(view)
            while left:
                try:
                    sent = await self._sock.send(view[-left:])
                except OSError as error:
                    raise trio.BrokenResourceError from error
                left -= sent
                self.taken += sent

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    @contextlib.contextmanager
    def without_waiting(self) -> Iterator[None]:
        """Within this context `receive_some` raises WouldBlock if nothing has arrived. A short timeout would not do:
        on a busy machine it can expire before the socket was checked."""
        self._waits = False
        try:
            yield
        finally:
            self._waits = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._waits and not _has_input(self._sock.fileno()):
            raise trio.WouldBlock
        return await self._stream.receive_some(max_bytes)

    def probe(self, seconds: int) -> None:
        """Let the kernel ask every so many seconds of silence whether the peer is there. After three without an answer,
        or three in which nothing that was sent is acknowledged, the connection is broken."""
        times = ((socket.TCP_KEEPIDLE, seconds), (socket.TCP_KEEPINTVL, seconds), (socket.TCP_KEEPCNT, 3))
        with contextlib.suppress(OSError):  # it is broken already, and will say so
            for option, value in (*times, (socket.TCP_USER_TIMEOUT, 3 * seconds * 1000)):
                self._sock.setsockopt(socket.IPPROTO_TCP, option, value)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def detach(self) -> socket.socket:
        """The connected socket, which does not wait; this stream is of no use any more."""
        family, kind, protocol = self._sock.family, self._sock.type, self._sock.proto
        sock = socket.socket(family, kind, protocol, fileno=self._sock.detach())
        sock.setblocking(False)
        return sock

    def close(self) -> None:
        """Close at once, without close_notify of TLS: the end of every answer is known without it."""
        self._sock.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


def _has_input(descriptor: int) -> bool:
    """Whether data, an end or an error can be read."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def system_lookup(host: str, port: int) -> Sequence[AddressInfo]:
    """getaddrinfo. The name is given as bytes to avoid Python's IDNA codec, which raises other errors."""
    return socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)


class Resolver:
    """DNS look-ups in threads, a few for each name. A cancelled look-up leaves its thread behind."""

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        self._lookup = lookup
        self._limiters: dict[str, trio.CapacityLimiter] = {}

    async def addresses(self, endpoint: Endpoint) -> Sequence[AddressInfo]:
        """The addresses to try, best first. Raises TransportError."""
        host, port = endpoint.host, endpoint.port
        try:  # an address in digits needs no thread
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (socket.gaierror, UnicodeError):
            pass
        # Providers can choose names in their metadata, so names without a look-up under way are dropped.
        self._limiters = {name: kept for name, kept in self._limiters.items() if kept.borrowed_tokens}
        limiter = self._limiters.setdefault(host, trio.CapacityLimiter(LOOKUPS_PER_HOST))
        try:
            found = await trio.to_thread.run_sync(self._lookup, host, port, limiter=limiter, abandon_on_cancel=True)
        except OSError as error:
            raise TransportError(f"{endpoint}: {_lookup_reason(error)}", sent=False) from None
        return _alternating(list(dict.fromkeys(found)))[:MAX_ADDRESSES]


async def connect(addresses: Sequence[AddressInfo], endpoint: Endpoint) -> TcpStream:
    """A connection to the first address that answers. The next address is tried when the one before has failed or has
    not answered for STAGGER seconds. Raises TransportError with the reason of each failure."""
    failures: list[OSError] = []
    won: TcpStream | None = None

    async def attempt(info: AddressInfo, failed: trio.Event) -> None:
        nonlocal won
        try:
            tcp = await _connect_one(info)
        except OSError as error:
            failures.append(error)
            failed.set()
            return
        if won is None:
            won = tcp
            nursery.cancel_scope.cancel()
        else:
            tcp.close()

    try:
        async with trio.open_nursery() as nursery:
            for info in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, info, failed)
                with trio.move_on_after(STAGGER):
                    await failed.wait()
    except BaseException:
        if won is not None:
            won.close()
        raise
    if won is not None:
        return won
    reason = "; ".join(dict.fromkeys(map(os_reason, failures))) or "no such host"
    raise TransportError(f"{endpoint}: {reason}", sent=False)


def _alternating(found: list[AddressInfo]) -> list[AddressInfo]:
    """IPv6 and IPv4 in turn, the preferred family first, so that one broken family costs little (RFC 8305 4)."""
    first = [info for info in found if info[0] == found[0][0]]
    others = [info for info in found if info[0] != found[0][0]]
    return [info for pair in itertools.zip_longest(first, others) for info in pair if info]


async def _connect_one(info: AddressInfo) -> TcpStream:
    family, kind, protocol, _, address = info
    sock = trio.socket.socket(family, kind, protocol)
    try:
        await sock.connect(address)
        return TcpStream(sock, str(sock.getpeername()[0]))
    except BaseException:
        sock.close()
        raise


def is_loopback(address: str) -> bool:
    """Whether it is a loopback address in digits, also IPv4 written as IPv6. False for names: their address is checked
    after connecting."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def is_public(address: str) -> bool:
    """Whether it is a public address in digits, also IPv4 written as IPv6."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_global and not (mapped or ip).is_multicast


def os_reason(error: OSError) -> str:
    """The system's error in a few words."""
    if error.errno in REASONS:
        return REASONS[error.errno]
    return os.strerror(error.errno).lower() if error.errno else "connection failed"


def _lookup_reason(error: OSError) -> str:
    if not isinstance(error, socket.gaierror):
        return f"the name could not be looked up: {os_reason(error)}"
    return LOOKUP_REASONS.get(error.errno or 0, "the name could not be looked up")


REASONS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ETIMEDOUT: "the host does not answer",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network is unreachable",
    errno.EADDRNOTAVAIL: "address not available",
    errno.EMFILE: "too many open files in brokerd",
}

LOOKUP_REASONS = {
    socket.EAI_NONAME: "no such host",
    socket.EAI_NODATA: "the host name has no address",
    socket.EAI_AGAIN: "the name servers do not answer",
    socket.EAI_FAIL: "the name servers failed",
}
