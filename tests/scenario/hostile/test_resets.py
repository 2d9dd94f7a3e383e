# A connection that breaks at every byte of a real answer, and of a real request as far as a server can see: the real
# client and driver over real sockets. Only a whole answer brings a token, or one whose JSON is whole although the end
# of its chunked coding is missing; what was sent may be used up (law 3).
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from brokerd.broker.provider import Provider
from brokerd.config.load import load
from brokerd.core.exchange.outcomes import Cause, Issued, RetryLater
from brokerd.core.exchange.steps import Exchange
from brokerd.core.grant.tokens import RefreshToken
from brokerd.core.secret import Secret
from brokerd.core.timing.breaker import Breaker
from brokerd.dialects.dialect import GrantView
from brokerd.edge.http.client import HttpClient
from brokerd.edge.system.entropy import SystemEntropy
from tests.scenario.hostile.servers import http
from tests.unit.edge.http.fixtures import SECRET, StepClock, ca_file, client, server_tls
from tests.unit.edge.http.servers import Peer, Server, serving

TOKENS = json.dumps({"access_token": "test-only-a", "refresh_token": "test-only-b", "expires_in": 60}).encode()
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s" % (len(TOKENS), TOKENS)
ANSWERS = {
    "length": http(200, TOKENS),
    "chunked": CHUNKS + b"\r\n0\r\n\r\n",
    "rejection": http(400, b'{"error": "invalid_grant"}'),
}


class Renewing:
    """One configured provider at work, and exchanges that spend a refresh token at it."""

    def __init__(self, server: Server, sender: HttpClient, folder: Path) -> None:
        path = folder / "brokerd.toml"
        path.touch(0o600)
        path.write_text(
            f"""
            [providers.idp]
            dialect = "oauth2"
            token_url = "{server.url}/token"
            [grants.app]
            provider = "idp"
            grant_type = "refresh_token"
            credentials = {{ client_id = "app", client_secret = "{SECRET}" }}
            """
        )
        self.settings = load(path).grants["app"]
        self._clock = StepClock()
        self._provider = Provider(self.settings.provider, sender, Breaker(), self._clock, SystemEntropy())

    def exchange(self) -> Exchange:
        credentials = {name: source.text or Secret("") for name, source in self.settings.credentials.items()}
        token = RefreshToken(Secret("test-only-refresh"), self._clock.now(), None, 0.0)
        return self.settings.provider.dialect.renew(GrantView(credentials, self.settings.settings, None, token))

    async def outcome(self) -> object:
        return (await self._provider.converse(self.exchange())).outcome


@pytest.mark.parametrize("kind", ["closed", "reset"])
@pytest.mark.parametrize(
    ("answer", "enough", "secure"),
    [
        (ANSWERS["length"], len(ANSWERS["length"]), False),
        (ANSWERS["chunked"], len(CHUNKS), False),  # from here on the JSON is whole
        (ANSWERS["rejection"], len(ANSWERS["rejection"]), False),
        # A handshake for each byte: the answer in which half is worst.
        (ANSWERS["rejection"], len(ANSWERS["rejection"]), True),
    ],
    ids=["length", "chunked", "rejection", "rejection over TLS"],
)
async def test_an_answer_that_breaks_at_any_byte_is_tried_again_later_unless_its_json_is_whole(
    answer: bytes, enough: int, secure: bool, kind: str, tmp_path: Path
) -> None:
    """`enough`: so many bytes hold a whole body, whatever should have come after it."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer[: peer.number])
        if kind == "reset":
            peer.reset()
        elif secure:
            await peer.raw.aclose()  # no close_notify: anybody on the way can do this

    tls = server_tls("127.0.0.1") if secure else None
    async with serving(script, tls=tls) as server, client(ca_file=ca_file(tmp_path)) as sender:
        renewing = Renewing(server, sender, tmp_path)
        for length in range(len(answer)):
            found = await renewing.outcome()
            if length >= enough:
                assert isinstance(found, Issued), (length, found)
                assert found.tokens.access_token.value.reveal() == "test-only-a"
                assert found.tokens.refresh_token is not None
                assert found.tokens.refresh_token.value.reveal() == "test-only-b"
                continue
            assert isinstance(found, RetryLater), (length, found)
            assert found.cause is Cause.UNANSWERED, (length, found)
            assert found.reason.startswith(f"{server.authority}: connection "), (length, found)
            assert "test-only" not in found.reason
        assert len(server.requests) == len(answer), "one request for each, nothing repeated"


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_whole_answer_is_believed_whatever_becomes_of_its_connection(secure: bool, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(ANSWERS["length"])
        await peer.raw.aclose()

    tls = server_tls("127.0.0.1") if secure else None
    async with serving(script, tls=tls) as server, client(ca_file=ca_file(tmp_path)) as sender:
        assert isinstance(await Renewing(server, sender, tmp_path).outcome(), Issued)


@pytest.mark.parametrize("kind", ["closed", "reset"])
async def test_a_connection_that_breaks_at_any_byte_of_the_request_may_have_used_the_token_up(
    kind: str, tmp_path: Path
) -> None:
    """The kernel has taken it all: who heard how much of it cannot be known."""
    whole = trio.Event()
    size = 0

    async def script(peer: Peer) -> None:
        nonlocal size
        if peer.number == 0:
            size = len(await peer.request())
            whole.set()
            return
        left = peer.number
        while left:
            left -= len(await peer.raw.receive_some(left))
        if kind == "reset":
            peer.reset()

    async with serving(script) as server, client() as sender:
        renewing = Renewing(server, sender, tmp_path)
        await renewing.outcome()
        await whole.wait()
        for _ in range(1, size):
            found = await renewing.outcome()
            assert isinstance(found, RetryLater), found
            assert found.cause is Cause.UNANSWERED, found
        assert len(server.peers) == size > 200


async def test_a_connection_that_breaks_at_any_byte_of_the_handshake_uses_nothing_up(tmp_path: Path) -> None:
    """The server's side of it, cut; what the client sends in it is no byte of the request."""

    async def script(peer: Peer) -> None:
        behind = peer.number * STEP
        there, here = trio.testing.memory_stream_pair()
        secured = trio.SSLStream(here, context, server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shake, secured)
            await there.send_all(await peer.raw.receive_some())
            said = bytes(await there.receive_some())
            sizes.append(len(said))
            await peer.say(said[:behind])
            peer.reset()
            nursery.cancel_scope.cancel()

    async def shake(secured: trio.SSLStream[Any]) -> None:
        with pytest.raises((trio.BrokenResourceError, trio.Cancelled)) as caught:
            await secured.do_handshake()
        if caught.type is trio.Cancelled:
            raise caught.value

    context, sizes = server_tls("127.0.0.1"), [STEP]
    async with serving(script) as server, client(ca_file=ca_file(tmp_path)) as sender:
        server.url = server.url.replace("http:", "https:")
        renewing = Renewing(server, sender, tmp_path)
        while len(sizes) * STEP < sizes[-1] + 2 * STEP:
            found = await renewing.outcome()
            assert isinstance(found, RetryLater), found
            assert found.cause is Cause.UNREACHABLE, found
            assert "TLS handshake: " in found.reason, found
        assert len(sizes) > 50


STEP = 16  # bytes; a handshake has some 2,000, and each costs a signature
