# Proxies: which requests go through one, what the proxy is told, and that its errors name the proxy.
from __future__ import annotations

import base64
from pathlib import Path

import pytest

from brokerd.core.ports import TransportError
from brokerd.edge.http import dial, proxy
from brokerd.edge.http.client import HttpSettings, check
from brokerd.edge.http.dial import Endpoint
from brokerd.edge.http.proxy import Proxies, always, from_environment
from tests.unit.edge.http.fixtures import SECRET, ca_file, client, failure, get, post, secret, server_tls
from tests.unit.edge.http.servers import OK, Peer, always_ok, answering, proxying, serving

IDP = "idp.example"


async def test_https_goes_through_a_tunnel(tmp_path: Path) -> None:
    async with (
        serving(always_ok, tls=server_tls(IDP)) as server,
        proxying(server.port) as way,
        client(ca_file=ca_file(tmp_path), environ={"HTTPS_PROXY": way.url}) as http,
    ):
        for _ in range(2):
            assert (await http.send(post(f"https://{IDP}/token?key={SECRET}"))).status == 200
        assert way.requests == [f"CONNECT {IDP}:443 HTTP/1.1\r\nHost: {IDP}:443\r\n\r\n".encode()]
        assert server.requests[0].startswith(f"POST /token?key={SECRET} HTTP/1.1\r\nhost: {IDP}\r\n".encode())


async def test_a_login_in_the_proxys_url_goes_to_the_proxy_alone(tmp_path: Path) -> None:
    async with serving(always_ok, tls=server_tls(IDP)) as server, proxying(server.port) as way:
        url = secret(f"http://us%40er:p%3Ass@127.0.0.1:{way.port}")
        async with client(ca_file=ca_file(tmp_path), proxy=url) as http:
            await http.send(get(f"https://{IDP}:8443/"))
        login = base64.b64encode(b"us@er:p:ss")
        assert b"\r\nProxy-Authorization: Basic " + login + b"\r\n" in way.requests[0]
        assert b"proxy-authorization" not in server.requests[0].lower()


@pytest.mark.parametrize(
    ("status", "login", "reason"),
    [
        ("407 Proxy Authentication Required", "", "it wants a login; write user:password@ in the proxy's URL (407)"),
        ("407 Proxy Authentication Required", f"me:{SECRET}@", "it refuses our login (407)"),
        ("403 Forbidden", "", f"it refuses to connect to {IDP}:443 (403)"),
        ("302 Found", "", f"it refuses to connect to {IDP}:443 (302)"),
        ("502 Bad Gateway", "", f"it cannot reach {IDP}:443 (502)"),
        ("504 Gateway Timeout", "", f"it cannot reach {IDP}:443 (504)"),
    ],
)
async def test_a_refusing_proxy_is_named(status: str, login: str, reason: str) -> None:
    async with proxying(0, answer=f"HTTP/1.1 {status}\r\nX: {SECRET}\r\n\r\n".encode()) as way:
        async with client(proxy=secret(f"http://{login}127.0.0.1:{way.port}")) as http:
            error = await failure(http, post(f"https://{IDP}/?key={SECRET}", sends_stored=True))
        assert error.reason == f"proxy {way.authority}: {reason}"
        assert not error.sent
        await way.until(lambda: way.ended == [0])


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "connection closed before an answer"),
        (b"HTTP/1.1 200", "connection closed in the middle of the answer"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", f"it sent data before {IDP}:443 could"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "headers larger than 64 KiB"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\n\r\n", f"it refuses to connect to {IDP}:443 (403)"),
    ],
)
async def test_a_proxy_that_talks_rubbish_is_named(answer: bytes, reason: str) -> None:
    async with serving(answering(answer)) as way, client(environ={"https_proxy": way.url}) as http:
        error = await failure(http, post(f"https://{IDP}/"))
    assert error.reason == f"proxy {way.authority}: {reason}"
    assert not error.sent


async def test_a_silent_proxy_meets_the_connect_timeout() -> None:
    async with (
        serving(Peer.hears_the_end) as way,
        client(environ={"https_proxy": way.url}, connect_timeout=0.2) as http,
    ):
        error = await failure(http, get(f"https://{IDP}/"))
        assert error.reason == f"{IDP}:443: timed out after 0.2 s waiting for proxy {way.authority}"
        assert not error.sent


async def test_a_proxy_that_is_not_there_is_named() -> None:
    async with serving(always_ok) as way:
        pass
    async with client(environ={"https_proxy": way.url}) as http:
        error = await failure(http, get(f"https://{IDP}/"))
    assert error.reason == f"proxy {way.authority}: connection refused"


async def test_a_certificate_behind_a_proxy_is_described_too(tmp_path: Path) -> None:
    async with (
        serving(always_ok, tls=server_tls("other.example")) as server,
        proxying(server.port) as way,
        client(ca_file=ca_file(tmp_path), environ={"https_proxy": way.url}) as http,
    ):
        error = await failure(http, get(f"https://{IDP}/"))
    assert error.reason == f"{IDP}:443: the certificate is for other.example, not {IDP}"


async def test_loopback_never_goes_through_a_proxy() -> None:
    async with serving(always_ok) as server, serving(answering(b"HTTP/1.1 500 No\r\n\r\n")) as way:
        for made in (client(environ={"http_proxy": way.url}), client(proxy=secret(way.url), insecure_http=True)):
            async with made as http:
                for host in ("127.0.0.1", "localhost", "LOCALHOST"):
                    assert (await http.send(get(f"http://{host}:{server.port}/"))).status == 200
        assert way.peers == []


async def test_plain_http_through_a_proxy_needs_insecure_http() -> None:
    async with serving(always_ok) as way:
        environ = {"http_proxy": f"http://me:you@{way.authority}"}
        async with client(environ=environ) as http:
            error = await failure(http, post(f"http://{IDP}/"))
            assert error.reason.startswith(f"{IDP}:80: plain http:// goes to loopback addresses only")
            assert (error.sent, way.peers) == (False, [])
        async with client(environ=environ, insecure_http=True) as http:
            assert (await http.send(get(f"http://{IDP}:8080/a?b=c"))).status == 200
    assert way.requests[0].startswith(f"GET http://{IDP}:8080/a?b=c HTTP/1.1\r\nhost: {IDP}:8080\r\n".encode())
    assert b"\r\nproxy-authorization: Basic " + base64.b64encode(b"me:you") + b"\r\n" in way.requests[0]


async def test_a_407_to_plain_http_is_the_proxys() -> None:
    async with (
        serving(answering(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")) as way,
        client(environ={"http_proxy": way.url}, insecure_http=True) as http,
    ):
        error = await failure(http, get(f"http://{IDP}/"))
    assert error.reason.startswith(f"proxy {way.authority}: it wants a login")
    assert error.sent


async def test_a_407_without_a_proxy_is_an_answer() -> None:
    async with serving(answering(OK.replace(b"200", b"407"))) as server, client() as http:
        assert (await http.send(get(server.url))).status == 407


def goes(routes: Proxies, host: str, port: int = 443, *, secure: bool = True) -> str | None:
    way = routes.route(Endpoint(host, port), secure=secure)
    return way.endpoint.authority if way else None


@pytest.mark.parametrize(
    ("no_proxy", "near", "far"),
    [
        ("idp.example", ["idp.example", "a.idp.example", "IDP.example", "idp.example."], ["notidp.example", "example"]),
        (".idp.example", ["idp.example", "a.idp.example"], ["notidp.example"]),
        ("*.idp.example", ["a.idp.example"], ["notidp.example"]),
        ("*", ["idp.example", "10.0.0.1"], []),
        ("a.example, b.example c.example", ["a.example", "b.example", "c.example"], ["d.example"]),
        ("idp.example:443", ["idp.example"], ["idp.example:8443"]),
        ("10.0.0.0/8,192.0.2.1", ["10.1.2.3", "192.0.2.1"], ["11.0.0.1", "192.0.2.10", "10.example"]),
        ("fd00::/8,[2001:db8::1]:443", ["fd00::1", "2001:db8::1"], ["2001:db8::2"]),
        (",, .", [], ["idp.example"]),
        ("", [], ["idp.example", "127.example", "localhost.example"]),
        ("", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "localhost", "a.localhost", "localhost."], []),
    ],
)
def test_no_proxy_names_who_is_reached_straight(no_proxy: str, near: list[str], far: list[str]) -> None:
    routes = from_environment({"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": no_proxy})
    for host in near:
        assert goes(routes, host) is None, host
    for host in far:
        name, _, port = host.partition(":") if host.count(":") == 1 else (host, "", "")
        assert goes(routes, name, int(port or 443)) == "proxy.example:3128", host


def test_the_environment_is_read_as_curl_reads_it() -> None:
    assert goes(from_environment({"https_proxy": "a:1", "HTTPS_PROXY": "http://b:2"}), IDP) == "a:1"
    assert goes(from_environment({"https_proxy": "", "HTTPS_PROXY": "http://b:2"}), IDP) is None
    assert goes(from_environment({"HTTP_PROXY": "http://b:2"}), IDP) is None
    assert goes(from_environment({"HTTP_PROXY": "http://b"}), IDP, 80, secure=False) == "b:80"
    assert goes(always(secret("http://c:3")), IDP) == "c:3"
    assert goes(always(secret("")), IDP) is None


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:{SECRET}@proxy.example:3128",
        f"socks5://me:{SECRET}@proxy.example",
        f"http://me:{SECRET}@",
        f"http://proxy.example:{SECRET}",
        f"http://me:{SECRET}@proxy example:1",
        f"http://me:{SECRET}@[::1",
        "http://proxy.example:0",
        f"http://me:1234/{SECRET}@proxy.example:3128",
        f"http://me:1234#{SECRET}@proxy.example:3128",
        f"http://me:1234?{SECRET}@proxy.example:3128",
    ],
)
async def test_a_proxy_url_that_cannot_be_used_is_not_shown(url: str) -> None:
    async with client(proxy=secret(url)) as http:
        error = await failure(http, get(f"https://{IDP}/"))
    assert error.reason.startswith("proxy setting or HTTPS_PROXY: expected http://host:port")
    assert "1234" not in error.reason
    assert not error.sent
    with pytest.raises(TransportError) as caught:
        check(HttpSettings(proxy=secret(url)), {})
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(HttpSettings(proxy=secret(url)))


def test_nothing_shows_a_login() -> None:
    made = proxy.parse_proxy(secret(f"http://me:{SECRET}@proxy.example:1"))
    assert base64.b64encode(f"me:{SECRET}".encode()).decode() not in repr(made)
    assert str(made.endpoint) == "proxy proxy.example:1"
    assert dial.is_loopback("proxy.example") is False
