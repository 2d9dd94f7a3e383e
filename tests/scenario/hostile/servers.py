# A token endpoint on a raw socket, with single-use refresh tokens: well-behaved until a fault is set, and then whatever
# the fault does with each connection. It is strict and remembers: a refresh token that comes twice is counted.
from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

import trio

from tests.scenario.daemon.harness import CLIENT, Table
from tests.unit.edge.http.servers import Peer

Fault = Callable[[Peer], Awaitable[None]]
PROXIED = "idp.example:443"  # nobody looks this name up: the proxy is asked for it


class Endpoint:
    """`fault` is met by each connection while it is set; `met` counts these, `ended` is how many have ended. `tls`:
    what it secures connections with; `proxy`: it is a CONNECT proxy, with the endpoint at the end of its tunnels."""

    def __init__(self, name: str, *, tls: ssl.SSLContext | None = None, proxy: bool = False) -> None:
        self.name = name
        self.fault: Fault | None = None
        self.met = self.ended = self.renewed = self.reused = 0
        self.date: str | None = None
        self.fields: dict[str, object] = {}  # put into every good answer; None takes one out
        self.port = 0
        self._tls = tls
        self._proxy = proxy
        self._changed = trio.Event()

    def secret(self, kind: str, number: int) -> str:
        return f"test-only-{kind}-{number}-of-{self.name}-end"

    @property
    def refresh_token(self) -> str:
        """The one that is good now."""
        return self.secret("refresh", self.renewed)

    @property
    def access_token(self) -> str:
        """The newest."""
        return self.secret("access", self.renewed)

    def table(self, **settings: object) -> Table:
        """As a provider in the configuration. Its grace is long, so that an interrupted refresh token is sent again."""
        if self._proxy:
            url = f"https://{PROXIED.removesuffix(':443')}/token"
            settings["proxy"] = f"http://127.0.0.1:{self.port}"
        else:
            url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/token"
        return {"dialect": "oauth2", "token_url": url, "reuse_grace": 600, **settings}

    def grant(self) -> Table:
        return {"provider": self.name, "grant_type": "refresh_token", "credentials": CLIENT}

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._handle, listeners)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of the counts."""
        with trio.fail_after(20):
            while not holds():
                await self._changed.wait()

    async def _handle(self, raw: trio.SocketStream) -> None:
        peer, fault = Peer(raw, raw, self.met), self.fault
        try:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                if fault is not None:
                    self.met += 1
                    await fault(peer)
                else:
                    await self._serve(peer)
                await trio.aclose_forcefully(peer.stream) if peer.stream is not raw else await raw.aclose()
        finally:
            raw.socket.close()
            self.ended += fault is not None
            self._changed.set()
            self._changed = trio.Event()

    async def _serve(self, peer: Peer) -> None:
        if self._proxy:
            assert (await peer.request()).startswith(f"CONNECT {PROXIED} ".encode())
            await peer.say(b"HTTP/1.1 200 OK\r\n\r\n")
        if self._tls:
            peer.stream = trio.SSLStream(peer.raw, self._tls, server_side=True)
        while request := await peer.request():
            await peer.say(self.answer(request))

    def answer(self, request: bytes) -> bytes:
        """What a good provider says: new tokens for the refresh token that is good now."""
        token = parse_qs(request.rpartition(b"\r\n\r\n")[2].decode())["refresh_token"][0]
        if token != self.refresh_token:
            self.reused += 1
            return http(400, b'{"error": "invalid_grant"}')
        self.renewed += 1
        return http(200, self.body())

    def body(self) -> bytes:
        """The newest tokens."""
        found = {
            "access_token": self.access_token,
            "refresh_token": self.refresh_token,
            "token_type": "Bearer",
            "expires_in": 3600,
            **self.fields,
        }
        return json.dumps({name: value for name, value in found.items() if value is not None}).encode()


def http(status: int, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    """An answer with a right Content-Length."""
    fields = (f"HTTP/1.1 {status} Said", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join(fields).encode() + b"\r\n\r\n" + body
