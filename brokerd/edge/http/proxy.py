# Which proxy a connection goes through (HTTPS_PROXY, HTTP_PROXY, NO_PROXY), and CONNECT, which opens a tunnel.
# Proxy URLs can hold passwords: errors show only their host and port.
from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

import h11
import trio

from brokerd.core.ports import TransportError
from brokerd.core.secret import Secret
from brokerd.edge.http.answer import AnswerLimits, AnswerReader, BadAnswer
from brokerd.edge.http.dial import Endpoint, is_loopback

HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")
MAX_HOST = 253  # characters; RFC 1035 section 2.3.4


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy. `login` is the value of Proxy-Authorization."""

    endpoint: Endpoint
    login: Secret | None = None


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy URL for each scheme of a request; None or empty text: no proxy. `exempt` is NO_PROXY."""

    https: Secret | None = None
    http: Secret | None = None
    exempt: str = ""

    def route(self, endpoint: Endpoint, *, secure: bool) -> Proxy | None:
        """The proxy for a connection to the endpoint. Raises TransportError if the proxy's URL cannot be used."""
        url = self.https if secure else self.http
        if not url or is_near(endpoint.host) or is_exempt(endpoint, self.exempt):
            return None
        return parse_proxy(url)


def from_environment(environ: Mapping[str, str]) -> Proxies:
    """As curl reads it: the lower-case name wins, even if it is empty."""

    def read(name: str) -> str:
        return environ.get(name, environ.get(name.upper(), "")).strip()

    return Proxies(Secret(read("https_proxy")), Secret(read("http_proxy")), read("no_proxy"))


def always(url: Secret) -> Proxies:
    """One proxy for everything but loopback. Empty text: no proxy."""
    return Proxies(url, url)


def parse_proxy(url: Secret) -> Proxy:
    """http://user:password@host:port; the scheme may be left out. Raises TransportError."""
    text = url.reveal().strip()
    scheme, mark, _ = text.partition("://")
    if mark and scheme.lower() != "http":
        raise TransportError(
            "proxy setting or HTTPS_PROXY: expected http://host:port, found https:// or socks, which are not supported",
            sent=False,
        )
    try:
        parts = urlsplit(text if mark else f"http://{text}")
        host, port = parts.hostname or "", parts.port
        # A / or # in a password ends the host early. What then looks like host and port is a part of the password.
        whole = "@" not in parts.path + parts.query + parts.fragment
    except ValueError:
        whole = False
    if not whole or not is_host(host) or port == 0:
        reason = "proxy setting or HTTPS_PROXY: expected http://host:port, found no host or no port"
        raise TransportError(reason, sent=False)
    login = None
    if parts.username is not None:
        user_and_password = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
        login = Secret("Basic " + base64.b64encode(user_and_password).decode())
    return Proxy(Endpoint(host, port or 80, role="proxy "), login)


def is_host(text: str) -> bool:
    """A host name in ASCII or an address, as a URL may hold it."""
    return len(text) <= MAX_HOST and HOST.fullmatch(text) is not None


def is_near(host: str) -> bool:
    """Whether the host is this machine, which is never reached through a proxy (RFC 6761 section 6.3)."""
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def is_exempt(endpoint: Endpoint, no_proxy: str) -> bool:
    """Whether NO_PROXY covers the endpoint. It lists `*`, domains, host:port, addresses and networks."""
    host = endpoint.host.lower().removesuffix(".")
    for entry in re.split(r"[,\s]+", no_proxy.lower()):
        name, port = _split_port(entry)
        if port in ("", str(endpoint.port)) and _covers(name, host):
            return True
    return False


def _split_port(entry: str) -> tuple[str, str]:
    found = re.fullmatch(r"\[(.*)\](?::(\d+))?|([^:]*):(\d+)", entry)
    if found is None:
        return entry, ""
    return found[1] or found[3] or "", found[2] or found[4] or ""


def _covers(name: str, host: str) -> bool:
    if name == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
    except ValueError:  # one of them is a name
        suffix = name.removeprefix("*").strip(".")
        return bool(suffix) and (host == suffix or host.endswith("." + suffix))


async def tunnel(stream: trio.abc.Stream, proxy: Proxy, target: Endpoint, limits: AnswerLimits) -> None:
    """Ask the proxy for a tunnel to the target (RFC 9110 section 9.3.6). Raises TransportError."""
    protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.head)
    headers = [("Host", target.authority)]
    if proxy.login is not None:
        headers.append(("Proxy-Authorization", proxy.login.reveal()))
    question = protocol.send(h11.Request(method="CONNECT", target=target.authority, headers=headers))
    question += protocol.send(h11.EndOfMessage())
    try:
        await stream.send_all(question)
        answer = await AnswerReader(protocol, stream, limits).head()
    except trio.BrokenResourceError:
        raise TransportError(f"{proxy.endpoint}: connection closed", sent=False) from None
    except BadAnswer as error:
        raise TransportError(f"{proxy.endpoint}: {error}", sent=False) from None
    if refusal := refused(answer.status_code, proxy, target):
        raise TransportError(refusal, sent=False)
    if protocol.trailing_data[0]:
        raise TransportError(f"{proxy.endpoint}: it sent data before {target} could", sent=False)


def refused(status: int, proxy: Proxy, target: Endpoint) -> str | None:
    """The error for a status that the proxy itself sent; None for 2xx."""
    if 200 <= status < 300:
        return None
    if status == 407:
        problem = "refuses our login" if proxy.login else "wants a login; write user:password@ in the proxy's URL"
        return f"{proxy.endpoint}: it {problem} (407)"
    if status in (502, 503, 504):
        return f"{proxy.endpoint}: it cannot reach {target} ({status})"
    return f"{proxy.endpoint}: it refuses to connect to {target} ({status})"
