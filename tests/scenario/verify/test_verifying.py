# Asking a provider whether it agrees about the tokens of a grant (RFC 7662): what is asked, what its answers mean, and
# that nothing is changed, used up or held up by it.
from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.exchange.outcomes import Outcome
from brokerd.core.grant.tokens import AccessToken, RefreshToken
from brokerd.core.grant.verification import ACCESS, REFRESH, verification
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.dialect import OAuth2
from tests.real.oauth2.test_client_auth_and_discovery import by_issuer, grant
from tests.real.servers import OidcProvider, device_login
from tests.scenario.daemon.harness import FIVE, IMPORTED, Brokerd, Serving, Table, at
from tests.scenario.laws.helpers import imported
from tests.scenario.laws.world import LIFETIME, REFRESHING, ModelProvider, TestClock, World, world
from tests.servers import OAuth2 as OAuth2Provider
from tests.unit.dialects.exchange_driver import Sent, answer, drive, meaning, recipe

INTROSPECTION = "https://idp.test/introspect"
NOW = Moment(1_700_000_000.0, 1_000.0, "boot")
ACCESS_TOKEN = AccessToken(Secret("test-only-access"), "Bearer", NOW, 600.0, 0.5)
REFRESH_TOKEN = RefreshToken(Secret("test-only-refresh"), NOW, None, 0.5)
CREDENTIALS = {"client_id": Secret("app"), "client_secret": Secret("test-only-secret")}
VIEW = GrantView(CREDENTIALS, {"grant_type": "refresh_token", "client_auth": "client_secret_post"})
IDP = OAuth2("https://idp.test/token", introspection_url=INTROSPECTION)


def asked(token: AccessToken | RefreshToken, status: int, body: object = b"") -> Outcome:
    exchange = IDP.verify(VIEW, token)
    assert exchange is not None
    (request,), found = drive(exchange, answer(status, body))
    assert request.url == INTROSPECTION
    assert not request.sends_stored
    hint = "refresh_token" if isinstance(token, RefreshToken) else "access_token"
    assert (Sent(request).form["token"], Sent(request).form["token_type_hint"]) == (token.value.reveal(), hint)
    return found


@pytest.mark.parametrize("token", [ACCESS_TOKEN, REFRESH_TOKEN], ids=["access", "refresh"])
@pytest.mark.parametrize(
    ("status", "body", "means"),
    [
        (200, {"active": True, "exp": 5}, "done"),
        (200, {"active": False}, "rejected"),
        (200, {"active": "true"}, "unreadable"),
        (200, {}, "unreadable"),
        (200, b"<html>log in to our network</html>", "unreadable"),
        (401, {"error": "invalid_client"}, "misconfigured"),
        (401, {"error": "access_denied"}, "misconfigured"),
        (401, b"", "silent"),
        (403, b"", "silent"),
        (403, {"active": False}, "strange"),
        (400, {"error": "temporarily_unavailable"}, "failed"),
        (429, b"", "limited"),
        (503, b"", "unavailable"),
    ],
)
def test_what_an_answer_means(token: AccessToken | RefreshToken, status: int, body: object, means: str) -> None:
    assert meaning(asked(token, status, body)) == means


def test_without_an_endpoint_nobody_can_be_asked() -> None:
    assert OAuth2("https://idp.test/token").verify(VIEW, ACCESS_TOKEN) is None
    assert recipe("treezor").verify(VIEW, ACCESS_TOKEN) is None


def test_the_words_say_what_the_provider_said_and_what_may_mend_it() -> None:
    dead, forbidden = asked(ACCESS_TOKEN, 200, {"active": False}), asked(REFRESH_TOKEN, 401, {"error": "access_denied"})
    found = verification("app", {ACCESS: dead, REFRESH: forbidden})
    assert (found.access_token, found.refresh_token) == (False, None)
    assert found.detail == (
        "access token: not active, or this client may not ask about it; refresh token: not known (introspection: the"
        " provider answered 401 access_denied); for another token: brokerctl refresh app"
    )
    assert verification("app", {}).detail == "the grant has no token that is alive"


def test_tokens_are_not_sent_to_an_introspection_url_that_was_edited() -> None:
    """Law 15: where tokens go is a part of what a record is bound to."""
    elsewhere = OAuth2("https://idp.test/token", introspection_url="https://elsewhere.test/introspect")
    assert IDP.identity(VIEW) == OAuth2("https://idp.test/token").identity(VIEW)
    assert elsewhere.identity(VIEW) != IDP.identity(VIEW)


# -- at a real server


@pytest.mark.real
async def test_a_real_server_says_what_is_active_and_what_is_not(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    secret: Table = {"client_secret": real_oidc.clients["dev-basic"].secret}
    login: Table = {"grant_type": "refresh_token", "scope": [], "credentials": secret}
    app = grant("dev-basic", **login)
    brokerd.configure({"app": app}, {"op": by_issuer(real_oidc)})
    await brokerd.start()
    token = await trio.to_thread.run_sync(device_login, real_oidc)
    await brokerd.call("import", grant="app", refresh_token=token)
    value = await brokerd.get("app")
    before = await brokerd.status("app")
    found = await brokerd.call("verify", grant="app")
    assert found == {
        "grant": "app",
        "access_token": True,
        "refresh_token": True,
        "detail": "access token and refresh token: active",
    }
    basic = ("dev-basic", real_oidc.clients["dev-basic"].secret or "")
    assert real_oidc.send("POST", "/token/revocation", form={"token": value}, basic=basic).status == 200
    found = await brokerd.call("verify", grant="app")
    assert (found["access_token"], found["refresh_token"]) == (False, False)  # it ends the whole login with it
    assert await brokerd.status("app") == before  # and nothing is changed by that answer
    assert await brokerd.get("app") == value


@pytest.mark.real
async def test_a_client_that_may_not_ask_is_told_apart_from_a_dead_token(
    brokerd: Brokerd, real_oidc: OidcProvider
) -> None:
    secret = {"client_secret": real_oidc.clients["cc-basic"].secret}
    provider = {"dialect": "oauth2", "token_url": real_oidc.token_url, "ca_file": real_oidc.ca_file}
    provider["introspection_url"] = real_oidc.introspection_url
    wrong = {"client_secret": "test-only-wrong-0123456789-0123456789"}
    file = brokerd.write(str(secret["client_secret"]), "secret")
    brokerd.configure({"app": grant("cc-basic", credentials={"client_secret": {"file": file}})}, {"op": provider})
    await brokerd.start()
    assert await brokerd.get("app")
    file.write_text(wrong["client_secret"])
    await brokerd.call("reload")
    found = await brokerd.call("verify", grant="app")
    assert found["access_token"] is None
    assert "401 invalid_client" in found["detail"]
    assert await brokerd.get("app", wait=0)  # it goes on being served


async def test_who_may_refresh_may_ask_and_others_may_not(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2Provider())
    brokerd.configure({"app": FIVE["oauth2"], "login": IMPORTED}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    sent = provider.count()
    found = await brokerd.call("verify", grant="app")
    assert found["detail"] == "access token: not known (the provider has no introspection endpoint)"
    assert (await brokerd.call("verify", grant="login"))["detail"] == "the grant has no token that is alive"
    assert provider.count() == sent
    assert (await brokerd.error("verify", grant="other"))["code"] == "unknown_grant"


# -- one exchange at a time (law 1), on virtual time

ASKABLE = REFRESHING.replace("[grants.app]", 'introspection_url = "https://idp.test/introspect"\n\n[grants.app]')


class Introspecting(ModelProvider):
    """Says of a token what the model knows of it; `hangs` seconds later."""

    hangs: float = 0.0

    def _serve(self, request, fields):  # type: ignore[no-untyped-def]
        if request.url.endswith("/introspect"):
            return 200, {"active": fields["token"] in self.valid or fields["token"].startswith("test-only-access")}
        return super()._serve(request, fields)

    async def send(self, request):  # type: ignore[no-untyped-def]
        if request.url.endswith("/introspect"):
            await trio.sleep(self.hangs)
        return await super().send(request)


async def opened(made: World) -> Introspecting:
    await imported(made)
    assert isinstance(made.provider, Introspecting)
    return made.provider


async def test_an_exchange_under_way_is_waited_for_so_that_no_rotated_token_is_asked_about(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ASKABLE, provider=Introspecting(TestClock())) as made:
        provider = await opened(made)
        provider.takes = 5.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.broker.refresh, "app")
            await trio.sleep(1)  # the refresh token is being rotated
            found = await made.broker.verify("app", wait=60)
        assert (found.access_token, found.refresh_token) == (True, True)


async def test_a_provider_that_hangs_holds_up_a_renewal_no_longer_than_the_question_waits(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ASKABLE, provider=Introspecting(TestClock())) as made:
        provider = await opened(made)
        provider.hangs = 1_000.0
        await trio.sleep(LIFETIME / 2)
        renewals = made.broker.status("app")["renewals"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.broker.verify, "app")
            await trio.sleep(1)
            began = trio.current_time()
            await made.broker.refresh("app", wait=30)
            assert trio.current_time() - began < 12
        assert made.broker.status("app")["renewals"] == renewals + 1
        found = await made.broker.verify("app", wait=2)
        assert (found.access_token, found.refresh_token) == (None, None)
        assert found.detail == "access token and refresh token: not known (it did not answer within 2 s)"
        assert made.broker.status("app")["interrupted"] is None
