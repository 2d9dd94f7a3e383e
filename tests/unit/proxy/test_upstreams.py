# Connections to upstreams through a proxy of the environment (HTTPS_PROXY, NO_PROXY), as brokerd itself uses it.
from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from brokerd.config.proxies import ProxySettings, read
from brokerd.core.ports import TransportError
from brokerd.edge.http.dial import AddressInfo
from brokerd.proxy.turns import Turn, Turns
from brokerd.proxy.upstreams import UpstreamConnections
from tests.unit.edge.http.fixtures import ca_file, server_tls
from tests.unit.edge.http.servers import always_ok, proxying, serving

API = "api.example"
GET = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def proxy_for(folder: Path, url: str, **more: str) -> ProxySettings:
    keys = {"ca_file": str(ca_file(folder)), **more}
    lines = "".join(f'{name} = "{value}"\n' for name, value in keys.items())
    (folder / "proxy.toml").write_text(
        f'[proxies.x]\ngrant = "x"\nsocket = "/x"\ncaller = {{ uid = 0 }}\nupstream = "{url}"\n{lines}'
    )
    (found,), errors = read(folder / "proxy.toml")
    assert not errors
    assert isinstance(found, ProxySettings)
    return found


@asynccontextmanager
async def opened(proxy: ProxySettings, environ: Mapping[str, str], port: int = 0) -> AsyncIterator[bytes]:
    """What an upstream answers over a new connection. Names lead to that port of this machine."""

    def lookup(host: str, _port: int) -> list[AddressInfo]:
        if host == "127.0.0.1":
            port_of = _port
        else:
            assert port, f"{host} was looked up"
            port_of = port
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port_of))]

    wire = await UpstreamConnections(proxy, environ, lookup).open(Turn(Turns(), 0))
    await wire.send(GET)
    room = bytearray(65_536)
    yield bytes(room[: await wire.receive_into(memoryview(room))])
    wire.close()


async def test_https_goes_through_the_tunnel_of_the_environments_proxy(tmp_path: Path) -> None:
    proxy = proxy_for(tmp_path, f"https://{API}:8443/v2")
    async with serving(always_ok, tls=server_tls(API)) as server, proxying(server.port) as way:
        url = f"http://us%40er:p%3Ass@127.0.0.1:{way.port}"
        async with opened(proxy, {"HTTPS_PROXY": url}) as answer:
            assert answer.startswith(b"HTTP/1.1 200 ")
        login = base64.b64encode(b"us@er:p:ss").decode()
        lines = f"Host: {API}:8443\r\nProxy-Authorization: Basic {login}\r\n"
        assert way.requests == [f"CONNECT {API}:8443 HTTP/1.1\r\n{lines}\r\n".encode()]
        assert server.requests == [GET]


@pytest.mark.parametrize(
    "exempt", [f".{API}", API, "*", f"127.0.0.1,{API}:443"], ids=["domain", "name", "all", "name and port"]
)
async def test_no_proxy_leads_straight_to_the_upstream(tmp_path: Path, exempt: str) -> None:
    async with serving(always_ok, tls=server_tls(API)) as server, proxying(server.port) as way:
        environ = {"https_proxy": way.url, "NO_PROXY": exempt}
        async with opened(proxy_for(tmp_path, f"https://{API}"), environ, server.port) as answer:
            assert answer.startswith(b"HTTP/1.1 200 ")
        assert way.requests == []


async def test_this_machine_and_plain_http_use_no_proxy(tmp_path: Path) -> None:
    async with serving(always_ok) as server, proxying(server.port) as way:
        environ = {"HTTPS_PROXY": way.url, "HTTP_PROXY": way.url}
        proxy = proxy_for(tmp_path, f"http://127.0.0.1:{server.port}")
        async with opened(proxy, environ) as answer:
            assert answer.startswith(b"HTTP/1.1 200 ")
        assert way.requests == []


async def test_a_proxy_that_refuses_is_named_without_its_password(tmp_path: Path) -> None:
    async with proxying(0, answer=b"HTTP/1.1 407 No\r\n\r\n") as way:
        environ = {"HTTPS_PROXY": f"http://me:pass-word@127.0.0.1:{way.port}"}
        with pytest.raises(TransportError) as caught:
            async with opened(proxy_for(tmp_path, f"https://{API}"), environ):
                pass
    assert caught.value.reason == f"proxy 127.0.0.1:{way.port}: it refuses our login (407)"


async def test_the_upstreams_certificate_is_checked_through_the_tunnel_too(tmp_path: Path) -> None:
    async with serving(always_ok, tls=server_tls("other.example")) as server, proxying(server.port) as way:
        with pytest.raises(TransportError, match="certificate"):
            async with opened(proxy_for(tmp_path, f"https://{API}"), {"HTTPS_PROXY": way.url}):
                pass
        assert server.requests == []


async def test_many_who_connect_at_once_look_the_name_up_once(tmp_path: Path) -> None:
    looked_up = list[str]()

    def lookup(host: str, _port: int) -> list[AddressInfo]:
        looked_up.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    upstreams, failed = UpstreamConnections(proxy_for(tmp_path, f"https://{API}"), {}, lookup), list[str]()

    async def connect() -> None:
        with pytest.raises(TransportError) as caught:
            await upstreams.open(Turn(Turns(), 0))
        failed.append(caught.value.reason)

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(connect)
    assert failed == [f"{API}:443: no such host"] * 50
    assert looked_up == [API]
