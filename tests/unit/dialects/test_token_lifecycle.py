# One full life of each dialect at a real server on loopback, over the real HTTP client: issue, use, renew, use, revoke,
# and refused. The servers know the documented APIs and nothing of brokerd (tests/servers).
from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from brokerd.core.exchange.outcomes import Done, Issued, IssuedToken, Misconfigured, Outcome, Rejected, Tokens
from brokerd.core.exchange.steps import Exchange, Request, Wait
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.grant.tokens import AccessToken, RefreshToken
from brokerd.core.secret import Secret
from brokerd.dialects.dialect import Dialect, GrantView
from brokerd.dialects.oauth2.dialect import OAuth2 as OAuth2Dialect
from brokerd.edge.http.client import HttpClient, HttpSettings
from brokerd.edge.system.clock import SystemClock
from tests import servers
from tests.servers import Click2Mail, IxApi, OAuth2, Occam, Provider, Treezor, click2mail, oauth2, occam, serve, treezor
from tests.unit.dialects.exchange_driver import recipe, view

CLOCK = SystemClock()


class Life:
    """A grant at a provider: what its dialect sees grows with what each exchange brings, as the broker has it."""

    def __init__(self, http: HttpClient, dialect: Dialect, seen: GrantView, provider: Provider[Any]) -> None:
        self.http, self.dialect, self.seen, self.provider = http, dialect, seen, provider

    async def run(self, exchange: Exchange) -> Outcome:
        answer = None
        try:
            while True:
                step = exchange.send(answer)
                assert not isinstance(step, Wait)
                answer = await self.http.send(step)
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome

    async def issue(self) -> Tokens:
        return self._keep(await self.run(self.dialect.issue(self.seen)))

    async def renew(self) -> Tokens:
        return self._keep(await self.run(self.dialect.renew(self.seen)))

    async def revoke(self, kind: str) -> Outcome:
        doomed = PendingRevocation(access_token=self.seen.access_token)
        if kind == "refresh":
            doomed = PendingRevocation(refresh_token=self.seen.refresh_token)
        exchange = self.dialect.revoke(self.seen, doomed)
        assert exchange is not None
        return await self.run(exchange)

    async def me(self, token: AccessToken | None = None) -> int:
        """What the provider's API says to an application that sends the token as the dialect says."""
        used = token or self.seen.access_token
        assert used is not None
        name, _, value = self.dialect.present("Bearer").format(access_token=used.value.reveal()).partition(": ")
        response = await self.http.send(Request("GET", f"{self.provider.base_url}/me", ((name, value),)))
        return response.status

    def _keep(self, outcome: Outcome) -> Tokens:
        assert isinstance(outcome, Issued), outcome
        tokens, now = outcome.tokens, CLOCK.now()
        access, refresh = self.seen.access_token, self.seen.refresh_token
        if (found := tokens.access_token) is not None:
            access = AccessToken(found.value, tokens.token_type, now, found.lifetime, 0.5, found.id)
        if (found := tokens.refresh_token) is not None:
            refresh = RefreshToken(found.value, now, found.lifetime, 0.5, found.id)
        self.seen = replace(self.seen, access_token=access, refresh_token=refresh)
        return tokens


@asynccontextmanager
async def life(
    provider: Provider[Any], credentials: Mapping[str, str], settings: Mapping[str, object] | None = None
) -> AsyncIterator[Life]:
    with trio.fail_after(20):
        async with serve(provider):
            http = HttpClient(HttpSettings(), CLOCK, environ={})
            dialect: Dialect
            if isinstance(provider, OAuth2):
                dialect = OAuth2Dialect(provider.token_url, provider.revocation_url)
            else:
                dialect = recipe(provider.name, provider.base_url)
            yield Life(http, dialect, view(credentials, settings), provider)
            await http.aclose()


def lifetime(token: IssuedToken | None) -> float:
    assert token is not None
    assert token.lifetime is not None
    return token.lifetime


IX = {"api_key": servers.IX_API_KEY, "api_secret": servers.IX_API_SECRET}
BY_PASSWORD = {"username": servers.OCCAM_USER, "password": servers.OCCAM_PASSWORD}
TREEZOR_CLIENT = {"client_id": servers.TREEZOR_CLIENT, "client_secret": servers.TREEZOR_SECRET}
TREEZOR_USER = {**TREEZOR_CLIENT, "username": servers.TREEZOR_USER, "password": servers.TREEZOR_PASSWORD}
CLICK2MAIL = {"client_id": servers.CLICK2MAIL_CLIENT, "client_secret": servers.CLICK2MAIL_SECRET}


@pytest.mark.parametrize("status", [200, 201])
async def test_a_life_with_ix_api(status: int) -> None:
    async with life(IxApi(servers.ix_api.Settings(success_status=status)), IX) as grant:
        issued = await grant.issue()
        assert 3_598 <= lifetime(issued.access_token) <= 3_600
        assert 30 * 86_400 - 2 <= lifetime(issued.refresh_token) <= 30 * 86_400
        assert await grant.me() == 200
        first = grant.seen
        await grant.renew()
        assert grant.seen.refresh_token != first.refresh_token
        assert await grant.me() == 200
        grant.seen = first  # the old refresh token is used up
        assert isinstance(await grant.run(grant.dialect.renew(grant.seen)), Rejected)
        assert grant.dialect.revoke(first, PendingRevocation(refresh_token=first.refresh_token)) is None


async def test_a_life_with_occam_by_password() -> None:
    async with life(Occam(), BY_PASSWORD, {"scope": ["read"]}) as grant:
        issued = await grant.issue()
        assert 3_599 <= lifetime(issued.access_token) <= 3_601
        assert await grant.me() == 200
        first = grant.seen
        await grant.renew()
        assert await grant.me() == 200
        grant.seen = first
        rejected = await grant.run(grant.dialect.renew(grant.seen))
        assert isinstance(rejected, Rejected)
        assert occam.USED in rejected.reason
        unknown = RefreshToken(Secret("never issued"), CLOCK.now(), None, 0.5)
        unheard = await grant.run(grant.dialect.renew(replace(first, refresh_token=unknown)))
        assert isinstance(unheard, Rejected)
        assert occam.NOT_FOUND in unheard.reason


async def test_a_life_with_occam_by_key() -> None:
    async with life(Occam(), {"key": servers.OCCAM_KEY}) as grant:
        assert (await grant.issue()).refresh_token is None
        assert await grant.me() == 200
        first = grant.seen.access_token
        await grant.issue()  # every renewal is an issue
        assert await grant.me() == 200
        assert grant.seen.access_token != first


@pytest.mark.parametrize("omits", [False, True])
async def test_a_life_with_treezor_by_password(omits: bool) -> None:
    async with life(Treezor(treezor.Settings(omit_refresh_token=omits)), TREEZOR_USER, {"scope": ["admin"]}) as grant:
        issued = await grant.issue()
        assert lifetime(issued.access_token) == 3_600
        assert await grant.me() == 200
        first = grant.seen
        renewed = await grant.renew()
        assert (renewed.refresh_token is None) is omits
        assert await grant.me() == 200
        await grant.renew()  # with the old one, where none came
        grant.seen = first
        again = await grant.run(grant.dialect.renew(grant.seen))
        assert isinstance(again, Issued if omits else Rejected)


async def test_a_life_with_treezor_by_client_credentials() -> None:
    async with life(Treezor(), TREEZOR_CLIENT) as grant:
        assert (await grant.issue()).refresh_token is None
        assert await grant.me() == 200


@pytest.mark.parametrize(
    "settings",
    [
        click2mail.Settings(),
        click2mail.Settings(token_id_in_body=False, id_prefix="tok/ ?#", offset_minutes=None),
        click2mail.Settings(rotation=True, offset_minutes=345),
    ],
    ids=["as documented", "odd ids in a header", "rotation that kills"],
)
async def test_a_life_with_click2mail(settings: click2mail.Settings) -> None:
    async with life(Click2Mail(settings), CLICK2MAIL, {"ttl_seconds": 86_400}) as grant:
        long = await grant.issue()
        assert long.access_token is None
        assert 86_398 <= lifetime(long.refresh_token) <= 86_401
        short = await grant.renew()
        assert short.refresh_token is None
        assert lifetime(short.access_token) == 900
        assert await grant.me() == 200
        old = grant.seen
        await grant.issue()  # there is a short token now: a rotation
        assert grant.provider.count("rotate_long") == 1
        assert grant.seen.refresh_token != old.refresh_token
        await grant.renew()
        assert await grant.me() == 200
        assert isinstance(await grant.revoke("access"), Done)
        assert await grant.me() == 401
        assert isinstance(await grant.revoke("refresh"), Done)
        assert isinstance(await grant.run(grant.dialect.renew(grant.seen)), Rejected)
        assert isinstance(await grant.revoke("refresh"), Done)  # dead already, which is what was wanted


@pytest.mark.parametrize("detects_reuse", [False, True])
async def test_a_life_with_oauth2_by_password(detects_reuse: bool) -> None:
    provider = OAuth2(oauth2.Settings(reuse_detection=detects_reuse, refresh_expires_in=True))
    credentials = {
        "client_id": servers.OAUTH2_ODD_CLIENT,
        "client_secret": servers.OAUTH2_ODD_SECRET,
        "username": servers.OAUTH2_USER,
        "password": servers.OAUTH2_PASSWORD,
    }
    settings = {"grant_type": "password", "client_auth": "client_secret_basic", "scope": ["read"]}
    async with life(provider, credentials, settings) as grant:
        issued = await grant.issue()
        assert issued.scope == ("read",)
        assert lifetime(issued.refresh_token) == pytest.approx(30 * 86_400, abs=1)
        assert await grant.me() == 200
        first = grant.seen
        await grant.renew()
        assert await grant.me() == 200
        assert isinstance(await grant.revoke("access"), Done)
        assert await grant.me() == 401
        assert isinstance(await grant.revoke("refresh"), Done)
        assert isinstance(await grant.run(grant.dialect.renew(grant.seen)), Rejected)
        grant.seen = first
        assert isinstance(await grant.run(grant.dialect.renew(grant.seen)), Rejected)


@pytest.mark.parametrize(
    ("credentials", "auth"),
    [
        ({"client_id": servers.OAUTH2_CLIENT, "client_secret": servers.OAUTH2_SECRET}, "client_secret_basic"),
        (
            {"client_id": servers.OAUTH2_POST_CLIENT, "client_secret": servers.OAUTH2_POST_SECRET},
            "client_secret_post",
        ),
    ],
)
async def test_a_life_with_oauth2_by_client_credentials(credentials: dict[str, str], auth: str) -> None:
    settings = {"grant_type": "client_credentials", "client_auth": auth}
    async with life(OAuth2(oauth2.Settings(expires_in="string", token_type="bEaReR")), credentials, settings) as grant:
        issued = await grant.issue()
        assert issued.refresh_token is None
        assert lifetime(issued.access_token) == 3_600
        assert await grant.me() == 200
        assert isinstance(await grant.revoke("access"), Done)
        assert await grant.me() == 401


@pytest.mark.parametrize("echo", [False, True], ids=["plain", "echoing"])
@pytest.mark.parametrize(
    ("provider", "credentials", "settings"),
    [
        (IxApi(), {**IX, "api_secret": "hunter2-wrong"}, {}),
        (Occam(), {**BY_PASSWORD, "password": "hunter2-wrong"}, {}),
        (Occam(), {"key": "hunter2-wrong"}, {}),
        (Treezor(), {**TREEZOR_CLIENT, "client_secret": "hunter2-wrong"}, {}),
        (Treezor(), {**TREEZOR_USER, "password": "hunter2-wrong"}, {}),
        (Click2Mail(), {**CLICK2MAIL, "client_secret": "hunter2-wrong"}, {}),
        (
            OAuth2(),
            {"client_id": servers.OAUTH2_CLIENT, "client_secret": "hunter2-wrong"},
            {"grant_type": "client_credentials", "client_auth": "client_secret_post"},
        ),
    ],
    ids=["ix-api", "occam", "occam-key", "treezor", "treezor-password", "click2mail", "oauth2"],
)
async def test_wrong_credentials_are_misconfigured_and_stay_secret(
    provider: Provider[Any], credentials: dict[str, str], settings: dict[str, object], echo: bool
) -> None:
    provider.settings.echo_input = echo
    before = provider.counts.wrong_credentials
    async with life(provider, credentials, settings) as grant:
        refused = await grant.run(grant.dialect.issue(grant.seen))
    assert isinstance(refused, Misconfigured)
    assert "hunter2-wrong" not in refused.reason
    assert provider.counts.wrong_credentials == before + 1
