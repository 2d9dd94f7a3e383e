# From a host name to a TCP connection: DNS in threads of its own, staggered attempts, a wire that counts.
# It knows nothing of TLS, proxies or HTTP; a TransportError from here means that no byte of a request was sent.
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

LOOKUPS_PER_HOST = 2  # threads; a host whose DNS hangs holds these and no other host's (law 13)
STAGGER = 0.25  # seconds before the next address is tried beside the last one (RFC 8305 section 5)
MAX_ADDRESSES = 8  # tried per connection; a name with hundreds of addresses is a mistake or an attack


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a TCP connection goes: a host name or an address without brackets. `role` precedes it in errors."""

    host: str
    port: int
    role: str = ""

    @property
    def authority(self) -> str:
        """host:port, as CONNECT and people want it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.role + self.authority


class Wire(trio.abc.Stream):
    """A TCP connection. `taken` counts the bytes that the kernel took, so that "nothing was sent" is a fact (law 3)."""

    def __init__(self, sock: trio.socket.SocketType, peer: str) -> None:
        self._sock = sock
        self._stream = trio.SocketStream(sock)
        self._peer = peer
        self._waits = True
        self.taken = 0

    @property
    def reaches_loopback(self) -> bool:
        """Of the connected address, not of the name that was asked for."""
        return is_loopback(self._peer)

    @property
    def reaches_public(self) -> bool:
        """Whether the connected address is one of the public internet."""
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
        """Until it ends, `receive_some` raises WouldBlock where nothing has arrived. A short time-out would not do: on
        a busy machine it passes before anybody has looked."""
        self._waits = False
        try:
            yield
        finally:
            self._waits = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._waits and not _has_input(self._sock.fileno()):
            raise trio.WouldBlock
        return await self._stream.receive_some(max_bytes)

    def close(self) -> None:
        """Close at once. A TLS goodbye is left out: every answer's end is known without it."""
        self._sock.close()

    async def aclose(self) -> None:
        self.close()
        await trio.lowlevel.checkpoint()


def _has_input(descriptor: int) -> bool:
    """Whether bytes, an end or an error are there to be read."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def system_lookup(host: str, port: int) -> Sequence[AddressInfo]:
    """getaddrinfo. Bytes spare the name Python's IDNA codec, which raises errors of its own."""
    return socket.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)


class Resolver:
    """Looks names up in threads, a few per name; who is cancelled leaves the thread behind."""

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        self._lookup = lookup
        self._limiters: dict[str, trio.CapacityLimiter] = {}

    async def addresses(self, endpoint: Endpoint) -> Sequence[AddressInfo]:
        """Where to connect to, best first. Raises TransportError."""
        host, port = endpoint.host, endpoint.port
        try:  # an address in digits costs no thread
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except (socket.gaierror, UnicodeError):
            pass
        # Names may come from a provider's metadata: those with no lookup under way are forgotten.
        self._limiters = {name: kept for name, kept in self._limiters.items() if kept.borrowed_tokens}
        limiter = self._limiters.setdefault(host, trio.CapacityLimiter(LOOKUPS_PER_HOST))
        try:
            found = await trio.to_thread.run_sync(self._lookup, host, port, limiter=limiter, abandon_on_cancel=True)
        except OSError as error:
            raise TransportError(f"{endpoint}: {_lookup_reason(error)}", sent=False) from None
        return _in_turn(list(dict.fromkeys(found)))[:MAX_ADDRESSES]


async def connect(addresses: Sequence[AddressInfo], endpoint: Endpoint) -> Wire:
    """The first of the addresses that answers: each is tried when the one before failed or kept us waiting for
    STAGGER seconds. Raises TransportError with what went wrong at each."""
    failures: list[OSError] = []
    won: Wire | None = None

    async def attempt(info: AddressInfo, failed: trio.Event) -> None:
        nonlocal won
        try:
            wire = await _connect_one(info)
        except OSError as error:
            failures.append(error)
            failed.set()
            return
        if won is None:
            won = wire
            nursery.cancel_scope.cancel()
        else:
            wire.close()

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


def _in_turn(found: list[AddressInfo]) -> list[AddressInfo]:
    """IPv6 and IPv4 in turn, the preferred family first: where one leads nowhere, the other comes soon (RFC 8305 4)."""
    first = [info for info in found if info[0] == found[0][0]]
    others = [info for info in found if info[0] != found[0][0]]
    return [info for pair in itertools.zip_longest(first, others) for info in pair if info]


async def _connect_one(info: AddressInfo) -> Wire:
    family, kind, protocol, _, address = info
    sock = trio.socket.socket(family, kind, protocol)
    try:
        await sock.connect(address)
        return Wire(sock, str(sock.getpeername()[0]))
    except BaseException:
        sock.close()
        raise


def is_loopback(address: str) -> bool:
    """A loopback address in digits, IPv4 written as IPv6 too. False for names: what they lead to is seen later."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def is_public(address: str) -> bool:
    """An address in digits of the public internet, IPv4 written as IPv6 too."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_global and not (mapped or ip).is_multicast


def os_reason(error: OSError) -> str:
    """What the system said, in few words."""
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
