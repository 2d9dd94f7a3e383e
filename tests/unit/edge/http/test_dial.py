# Names, addresses and TCP: DNS that hangs or fails, addresses that do not answer, and the errors for operators.
from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio

from brokerd.core.ports import TransportError
from brokerd.edge.http import dial
from brokerd.edge.http.client import HttpSettings
from brokerd.edge.http.dial import AddressInfo, Endpoint, Resolver
from tests.unit.edge.http.fixtures import client, failure, get
from tests.unit.edge.http.servers import always_ok, serving


def on_loopback(*addresses: str, port: int) -> list[AddressInfo]:
    return [
        (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
        for address in addresses
        for family in [socket.AF_INET6 if ":" in address else socket.AF_INET]
    ]


class HangingDns:
    """Hangs for the names that begin with `slow`; the others are 127.0.0.1."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.hanging = 0

    def __call__(self, host: str, port: int) -> Sequence[AddressInfo]:
        if host.startswith("slow"):
            self.hanging += 1
            self.release.wait(10)
        return on_loopback("127.0.0.1", port=port)


@contextmanager
def hanging_dns() -> Iterator[HangingDns]:
    dns = HangingDns()
    try:
        yield dns
    finally:
        dns.release.set()


async def test_a_host_with_dns_that_hangs_delays_no_other_host() -> None:
    with hanging_dns() as dns:
        async with serving(always_ok) as server, client(lookup=dns, connect_timeout=0.3) as http:
            async with trio.open_nursery() as nursery:
                for _ in range(60):
                    nursery.start_soon(failure, http, get("http://slow.example/"))
                while dns.hanging < dial.LOOKUPS_PER_HOST:
                    await trio.testing.wait_all_tasks_blocked(0.001)
                assert (await http.send(get(f"http://quick.example:{server.port}/"))).status == 200
            error = await failure(http, get("http://slow.example/"))
            assert error.reason == "slow.example:80: timed out after 0.3 s looking up slow.example"
            assert not error.sent
            assert dns.hanging == dial.LOOKUPS_PER_HOST


async def test_a_cancelled_lookup_is_left_behind() -> None:
    with hanging_dns() as dns, trio.fail_after(5):
        async with client(lookup=dns) as http:
            with trio.move_on_after(0.05) as scope:
                await http.send(get("http://slow.example/"))
            assert scope.cancelled_caught


async def test_names_that_were_looked_up_are_not_remembered() -> None:
    resolver = Resolver(lambda host, port: on_loopback("127.0.0.1", port=port))
    for number in range(50):
        await resolver.addresses(Endpoint(f"host{number}.example", 1))
    assert len(resolver._limiters) <= 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "no such host"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "the name servers do not answer"),
        (socket.gaierror(socket.EAI_NODATA, "No address"), "the host name has no address"),
        (socket.gaierror(-99, "Odd"), "the name could not be looked up"),
        (OSError(errno.EMFILE, "Too many"), "the name could not be looked up: too many open files in brokerd"),
    ],
)
async def test_a_failing_lookup_is_explained(error: OSError, reason: str) -> None:
    def lookup(host: str, port: int) -> Sequence[AddressInfo]:
        raise error

    async with client(lookup=lookup) as http:
        failed = await failure(http, get("https://idp.example/"))
    assert failed.reason == f"idp.example:443: {reason}"
    assert not failed.sent


async def test_a_name_that_cannot_be_one_is_no_such_host() -> None:
    """Python's own IDNA codec would raise UnicodeError for it. Nothing is asked of a name server."""
    with pytest.raises(socket.gaierror):
        dial.system_lookup("a..invalid", 80)


async def test_a_closed_port_refuses() -> None:
    async with serving(always_ok) as server:
        pass
    async with client() as http:
        error = await failure(http, get(server.url))
    assert error.reason == f"{server.authority}: connection refused"
    assert not error.sent


async def test_the_next_address_is_tried_when_one_fails() -> None:
    async with serving(always_ok) as server:

        def lookup(host: str, port: int) -> Sequence[AddressInfo]:
            return on_loopback("::1", "127.0.0.2", "127.0.0.1", port=port)

        async with client(lookup=lookup) as http:
            assert (await http.send(get(f"http://idp.example:{server.port}/"))).status == 200


async def test_each_kind_of_failure_is_told_once_when_all_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(info: AddressInfo) -> dial.TcpStream:
        raise OSError(errno.ENETUNREACH if info[0] is socket.AF_INET6 else errno.ECONNREFUSED, "")

    monkeypatch.setattr(dial, "_connect_one", fail)
    with pytest.raises(TransportError, match="network is unreachable; connection refused") as caught:
        await dial.connect(on_loopback("::1", "::2", "127.0.0.1", port=1), Endpoint("idp.example", 1))
    assert caught.value.reason == "idp.example:1: network is unreachable; connection refused"
    with pytest.raises(TransportError, match="no such host"):
        await dial.connect([], Endpoint("idp.example", 1))


class SlowConnects:
    """Stands in for one attempt: an address that begins with `slow` never answers."""

    def __init__(self) -> None:
        self.tried: list[tuple[float, str]] = []

    async def __call__(self, info: AddressInfo) -> dial.TcpStream:
        address = info[4][0]
        self.tried.append((trio.current_time(), address))
        if address.startswith("slow"):
            await trio.sleep_forever()
        return dial.TcpStream(trio.socket.socket(), address)


async def test_an_address_that_keeps_us_waiting_is_overtaken(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    slow = SlowConnects()
    monkeypatch.setattr(dial, "_connect_one", slow)
    tcp = await dial.connect(on_loopback("slow1", "slow2", "quick", "never", port=1), Endpoint("idp.example", 1))
    tcp.close()
    start = slow.tried[0][0]
    assert [(round(when - start, 3), address) for when, address in slow.tried] == [
        (0, "slow1"),
        (dial.STAGGER, "slow2"),
        (2 * dial.STAGGER, "quick"),
    ]


async def test_addresses_that_never_answer_meet_the_connect_timeout(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    async def never(info: AddressInfo) -> dial.TcpStream:
        await trio.sleep_forever()

    monkeypatch.setattr(dial, "_connect_one", never)
    async with client() as http:
        error = await failure(http, get("http://127.0.0.1:1/"))
        assert error.reason == "127.0.0.1:1: timed out after 10 s connecting"
        assert not error.sent
        assert trio.current_time() == pytest.approx(10)
    async with client(total_timeout=5) as http:
        assert (await failure(http, get("http://127.0.0.1:1/"))).reason.endswith("timed out after 5 s connecting")


def test_the_deadlines_are_those_of_the_design() -> None:
    settings = HttpSettings()
    assert (settings.connect_timeout, settings.read_timeout, settings.total_timeout) == (10, 30, 60)


async def test_both_families_are_tried_in_turn() -> None:
    """With many IPv6 addresses that lead nowhere, IPv4 must come before time and MAX_ADDRESSES run out."""
    many = on_loopback(*[f"::{number}" for number in range(1, 20)], "127.0.0.1", "127.0.0.2", port=1)
    resolver = Resolver(lambda host, port: many)
    found = await resolver.addresses(Endpoint("idp.example", 1))
    assert [info[4][0] for info in found] == ["::1", "127.0.0.1", "::2", "127.0.0.2", "::3", "::4", "::5", "::6"]


async def test_a_name_with_hundreds_of_addresses_is_cut_short() -> None:
    found = on_loopback(*[f"127.0.0.{number}" for number in range(1, 200)], port=1)
    resolver = Resolver(lambda host, port: found + found)
    assert await resolver.addresses(Endpoint("idp.example", 1)) == found[: dial.MAX_ADDRESSES]


def test_an_endpoint_shows_as_people_write_it() -> None:
    assert str(Endpoint("idp.example", 443)) == "idp.example:443"
    assert str(Endpoint("::1", 80)) == "[::1]:80"
    assert str(Endpoint("p.example", 80, role="proxy ")) == "proxy p.example:80"


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("127.0.0.1", True),
        ("127.255.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("localhost", False),
    ],
)
def test_loopback_is_a_matter_of_addresses(address: str, near: bool) -> None:
    assert dial.is_loopback(address) is near


async def test_the_kernel_asks_whether_a_silent_peer_is_there() -> None:
    async with serving(always_ok) as server:
        tcp = await dial.connect(on_loopback("127.0.0.1", port=server.port), Endpoint("127.0.0.1", server.port))
        tcp.probe(5)
        with tcp.detach() as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [5, 5, 3, 15_000]
