# Discovery by a provider: it asks once for all its grants, goes on with what it knows while the issuer does not answer,
# and sends nothing to a private address that a public issuer names. And what `status` shows of a provider.
from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from brokerd.broker.provider import Provider
from brokerd.broker.provider_status import provider_status
from brokerd.config.settings import ProviderSettings
from brokerd.core.exchange.outcomes import Cause, Done, Misconfigured, Outcome, RetryLater
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.steps import Exchange, Request, Response, answered, discovered
from brokerd.core.ports import AddressRefused, TransportError
from brokerd.core.timing.breaker import THRESHOLD, Breaker
from brokerd.core.timing.moment import Moment
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.edge.http.client import HttpClient, HttpSettings
from brokerd.edge.system.clock import SystemClock
from brokerd.edge.system.entropy import SystemEntropy

ISSUER = "https://idp.test"
DAY = 86_400.0


class Clock:
    """Trio's clock as both of ours."""

    def now(self) -> Moment:
        return Moment(1_700_000_000.0 + trio.current_time(), trio.current_time(), "boot")


class Issuer:
    """An Http port with an issuer behind it. `reply`: what it answers with, or raises."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.document: dict[str, object] = {"issuer": ISSUER, "token_endpoint": ISSUER + "/token"}
        self.fails: Callable[[], Exception] | None = None

    async def send(self, request: Request) -> Response:
        self.asked.append(request.url)
        await trio.sleep(1)
        if self.fails is not None:
            raise self.fails()
        now = Clock().now()
        return Response(200, (), json.dumps(self.document).encode(), now, now)

    def sweep(self) -> None: ...

    async def aclose(self) -> None: ...


def provider(http: Issuer, metadata: Metadata | None = None) -> Provider:
    settings = ProviderSettings("idp", OAuth2(issuer=ISSUER))
    return Provider(settings, http, Breaker(), Clock(), SystemEntropy(), metadata)


def learning(found: list[str]) -> Exchange:
    metadata = yield from discovered()
    found.append(metadata.endpoints["token_endpoint"])
    return Done()


async def outcome(at: Provider, found: list[str]) -> Outcome:
    return (await at.converse(learning(found))).outcome


async def test_many_grants_that_start_at_once_ask_once(autojump_clock: MockClock) -> None:
    http, found = Issuer(), list[str]()
    at = provider(http)
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(outcome, at, found)
    assert found == [ISSUER + "/token"] * 20
    assert len(http.asked) == 1


async def test_the_document_is_asked_for_again_after_a_day(autojump_clock: MockClock) -> None:
    http, found = Issuer(), list[str]()
    at = provider(http)
    await outcome(at, found)
    http.document["token_endpoint"] = ISSUER + "/new"
    await trio.sleep(DAY - 10)
    await outcome(at, found)
    await trio.sleep(20)
    await outcome(at, found)
    assert found == [ISSUER + "/token", ISSUER + "/token", ISSUER + "/new"]


def refused() -> TransportError:
    return TransportError("idp.test:443: connection refused", sent=False)


async def test_an_issuer_that_is_away_costs_nothing_while_its_document_is_known(autojump_clock: MockClock) -> None:
    http, found = Issuer(), list[str]()
    at = provider(http)
    await outcome(at, found)
    await trio.sleep(2 * DAY)
    http.fails = refused
    asked = len(http.asked)
    for _ in range(5):
        assert await outcome(at, found) == Done()
    assert len(http.asked) == asked + 1  # and it is not asked again at each exchange
    await trio.sleep(3_700)
    await outcome(at, found)
    assert len(http.asked) == asked + 2


async def test_an_issuer_that_was_never_reached_is_retried(autojump_clock: MockClock) -> None:
    http = Issuer()
    http.fails = refused
    found = await outcome(provider(http), [])
    assert isinstance(found, RetryLater)
    assert not found.cause.touched


async def test_a_new_origin_stops_the_grants_until_an_operator_agrees(autojump_clock: MockClock) -> None:
    http, found = Issuer(), list[str]()
    at = provider(http)
    await outcome(at, found)
    http.document["token_endpoint"] = "https://elsewhere.test/token"
    await trio.sleep(2 * DAY)
    stopped = await outcome(at, found)
    assert isinstance(stopped, Misconfigured)
    assert "the metadata now names token_endpoint at https://elsewhere.test" in stopped.reason
    at.trust(ISSUER)
    assert await outcome(at, found) == Done()
    assert found[-1] == "https://elsewhere.test/token"


async def test_another_issuer_in_the_configuration_is_discovered_again(autojump_clock: MockClock) -> None:
    http, found = Issuer(), list[str]()
    known = Metadata("https://old.test", Clock().now(), {"token_endpoint": "https://old.test/token"})
    await outcome(provider(http, known), found)
    assert found == [ISSUER + "/token"]


async def test_an_address_that_is_refused_is_a_mistake_that_an_operator_looks_at() -> None:
    http = Issuer()
    http.fails = lambda: AddressRefused("idp.test:443: it is at an address that is not public", sent=False)

    def asking() -> Exchange:
        yield from answered(Request("POST", ISSUER + "/token", guarded=True))
        return Done()

    found = (await provider(http).converse(asking())).outcome
    assert isinstance(found, Misconfigured)
    assert found.reason.endswith("if it is right: brokerctl trust idp")


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_guarded_request_goes_to_public_addresses_only(guarded: bool) -> None:
    taken = []

    async def serve(stream: trio.SocketStream) -> None:
        taken.append(await stream.receive_some(65_536))
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/token"
        client = HttpClient(HttpSettings(), SystemClock(), environ={})
        request = Request("POST", url, body=b"test-only-secret", guarded=guarded)
        if guarded:
            with pytest.raises(AddressRefused) as caught:
                await client.send(request)
            assert not caught.value.sent
        else:
            assert not (await client.send(request)).public
        await client.aclose()
        nursery.cancel_scope.cancel()
    assert len(taken) == (0 if guarded else 1)


def asking() -> Exchange:
    yield from answered(Request("POST", ISSUER + "/token"))
    return Done()


async def test_status_shows_how_long_the_provider_took_and_since_when_it_fails(autojump_clock: MockClock) -> None:
    http, clock = Issuer(), Clock()
    at = provider(http)
    assert provider_status(at, clock.now()) == {
        "name": "idp",
        **dict.fromkeys(
            (
                "breaker_open_until",
                "failing_since",
                "cause",
                "last_ok_at",
                "unanswered_since",
                "latency_p50",
                "latency_p99",
            )
        ),
        **dict.fromkeys(("failures", "latency_of", "busy", "queued"), 0),
        "concurrency": at.settings.concurrency,
    }
    await at.converse(asking())
    answered_at = clock.now().wall
    http.fails = lambda: TransportError("idp.test:443: no answer within 60 s", sent=True)
    for _ in range(THRESHOLD):
        await at.converse(asking())
    found = provider_status(at, clock.now())
    assert (found["last_ok_at"], found["failing_since"], found["cause"]) == (answered_at, answered_at + 1, "unanswered")
    assert (found["latency_p50"], found["latency_p99"], found["latency_of"]) == (1.0, 1.0, 1 + THRESHOLD)
    assert found["failures"] == THRESHOLD
    assert cast(float, found["breaker_open_until"]) > clock.now().wall
    http.fails = None
    await at.converse(asking())
    found = provider_status(at, clock.now())
    assert (found["failing_since"], found["cause"], found["breaker_open_until"], found["failures"]) == (*[None] * 3, 0)


async def test_a_request_that_was_not_sent_says_nothing_about_how_fast_the_provider_is(
    autojump_clock: MockClock,
) -> None:
    http = Issuer()
    http.fails = refused
    at = provider(http)
    await at.converse(asking())
    assert at.health.times == ()
    assert at.health.cause is Cause.UNREACHABLE
