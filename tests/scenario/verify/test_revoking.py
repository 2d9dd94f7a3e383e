# What a revocation says (law 10): of which tokens the provider was told, of which it cannot be, and until when these
# live; and a revocation that stays here, where the provider is gone or has none.
from __future__ import annotations

import re

import pytest

from brokerd.core.exchange.outcomes import IssuedToken, Tokens
from brokerd.core.grant import issuance
from brokerd.core.grant import revocation as revocations
from brokerd.core.grant.record import Record
from brokerd.core.grant.revocation import revocation
from brokerd.core.grant.state import State
from brokerd.core.grant.tokens import AccessToken, RefreshToken
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from tests.real.oauth2.test_client_auth_and_discovery import by_issuer, grant
from tests.real.servers import OidcProvider
from tests.scenario.daemon.callers import Api
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import OAuth2
from tests.servers.gallery.matrix import PASSWORD, USER, Matrix

NOW = Moment(1_700_000_000.0, 1_000.0, "boot")
ACCESS = AccessToken(Secret("test-only-access"), "Bearer", NOW, 600.0, 0.5)
REFRESH = RefreshToken(Secret("test-only-refresh"), NOW, None, 0.5)
FULL = Record("app", access_token=ACCESS, refresh_token=REFRESH)
UNTIL = r"stays valid there until 20\d\d-\d\d-\d\d \d\d:\d\d UTC"


async def revoked(brokerd: Brokerd, **params: object) -> tuple[str, str]:
    done = await brokerd.call("revoke", grant="app", **params)
    assert done["stored"] is True
    return done["provider"], done["detail"]


@pytest.mark.parametrize(("kind", "other"), [("access", "refresh"), ("refresh", "access")])
async def test_it_is_said_which_tokens_the_provider_cannot_be_told_of(
    brokerd: Brokerd, serving: Serving, kind: str, other: str
) -> None:
    provider = await serving(OAuth2())
    provider.settings.revocable = frozenset({f"{kind}_token"})
    provider.settings.revocation_cascades = False
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    word, detail = await revoked(brokerd)
    assert word == "partly"
    until = UNTIL if other == "access" else "stays valid there until the provider ends it"
    said = f"the provider was told of the {kind} token; the provider cannot be told of the {other} token, which {until}"
    assert re.fullmatch(said, detail), detail
    assert provider.counts.revoked == 1
    assert (await brokerd.status("app"))["pending_revocations"] == 0
    await brokerd.restart()
    assert (await revoked(brokerd))[0] == "unsupported"  # what lives on there is still known
    assert provider.counts.revoked == 1


async def test_without_a_revocation_url_it_is_unsupported_also_while_the_provider_is_away(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2())
    table = {key: value for key, value in at(provider).items() if key != "revocation_url"}
    brokerd.configure({"app": FIVE["oauth2"]}, {"oauth2": table})
    await brokerd.start()
    await brokerd.get("app")
    provider.down = True
    word, detail = await revoked(brokerd)
    assert word == "unsupported"
    assert re.fullmatch(f"the provider cannot be told of the access token, which {UNTIL}", detail), detail


async def logged_out(brokerd: Brokerd, serving: Serving) -> Matrix:
    """A grant at a server whose logout takes an access token and ends the refresh token with it."""
    provider = await serving(Matrix())
    grant = {"provider": "it", "credentials": {"user": USER, "password": PASSWORD}}
    brokerd.configure({"app": grant}, {"it": at(provider)})
    await brokerd.start()
    return provider


async def test_a_logout_that_ends_the_refresh_token_too_counts_for_both(brokerd: Brokerd, serving: Serving) -> None:
    provider = await logged_out(brokerd, serving)
    await brokerd.get("app")
    said = await revoked(brokerd)
    assert said == ("told", "the provider was told of the refresh token and the access token")
    assert provider.count("logout") == 1


async def test_a_logout_that_fails_leaves_both_to_be_told(brokerd: Brokerd, serving: Serving) -> None:
    provider = await logged_out(brokerd, serving)
    await brokerd.get("app")
    provider.fail_with(503, operation="logout")
    word, detail = await revoked(brokerd)
    assert word == "pending"
    assert detail.startswith("brokerd will tell the provider of the refresh token and the access token")


async def test_a_logout_with_a_token_that_was_dead_says_nothing_of_the_refresh_token(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await logged_out(brokerd, serving)
    token = provider.ledger.find(await brokerd.get("app"))
    assert token is not None
    token.revoked = True
    word, detail = await revoked(brokerd)
    assert word == "partly"
    assert "cannot be told of the refresh token" in detail


@pytest.mark.real
async def test_a_real_server_that_revokes_no_jwts_is_told_of_the_others_alone(
    brokerd: Brokerd, real_oidc: OidcProvider
) -> None:
    secret = {"client_secret": real_oidc.clients["cc-basic"].secret}
    jwt = grant("cc-basic", credentials=secret, resource="https://api.test/jwt")
    brokerd.configure({"app": jwt}, {"op": by_issuer(real_oidc)})
    await brokerd.start()
    await brokerd.get("app")
    word, detail = await revoked(brokerd)
    assert word == "unsupported"
    assert re.fullmatch(f"the provider cannot be told of the access token, which {UNTIL}", detail), detail


async def test_a_local_revocation_tells_the_provider_nothing(brokerd: Brokerd, serving: Serving, api: Api) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    word, detail = await revoked(brokerd, local=True)
    assert word == "local"
    assert detail.startswith(
        "the provider was not told of the refresh token and the access token, which stay valid there"
    )
    sent = provider.count()
    await brokerd.restart()
    assert (await brokerd.error("get", grant="app"))["code"] == "revoked"
    assert (await brokerd.status("app"))["pending_revocations"] == 0
    assert (provider.counts.revoked, provider.count()) == (0, sent)
    assert (await api.me(provider, value))[0] == 200


async def test_a_local_revocation_ends_the_telling_of_an_earlier_one(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    await brokerd.get("app")
    with provider.hold("revoke") as gate:
        async with brokerd.caller() as caller:
            number = await caller.send("revoke", grant="app")
            await gate.reached()  # the provider is just being told
            assert (await revoked(brokerd, local=True, wait=0))[0] == "local"
            provider.fail_with(503, operation="revoke")
            gate.release()
            await caller.answer(number)
    assert (await brokerd.status("app"))["pending_revocations"] == 0
    assert (await brokerd.status("app"))["last_error"] is None
    assert provider.count("revoke") == 1


def test_what_comes_late_after_a_local_revocation_stays_untold() -> None:
    gone = revocations.revoked(FULL, NOW, local=True)
    tokens = Tokens(IssuedToken(Secret("test-only-late"), 900.0), IssuedToken(Secret("test-only-late-too"), 900.0))
    late = revocations.came_late(gone, tokens, NOW)
    assert (late.state, late.pending_revocations, len(late.unrevoked)) == (State.REVOKED, (), 4)


def test_a_new_login_forgets_what_lives_on() -> None:
    gone = revocations.revoked(FULL, NOW, local=True)
    again = issuance.granted(gone, Tokens(refresh_token=IssuedToken(Secret("test-only-new"))), NOW, 0.5, "")
    assert (again.unrevoked, again.revoked_locally) == ((), False)


def test_what_has_expired_there_is_spoken_of_no_more() -> None:
    gone = revocations.revoked(Record("app", access_token=ACCESS), NOW, local=True)
    assert revocation((), gone, NOW.after(599), stored=True).provider == "local"
    assert len(revocations.still_unrevoked(gone, NOW.after(599))) == 1
    assert revocations.still_unrevoked(gone, NOW.after(601)) == ()
    unsure = Moment(NOW.wall + 601, 5.0, "another boot", trusted=False)
    assert len(revocations.still_unrevoked(gone, unsure)) == 1


def test_the_words_name_what_is_told_pending_and_alive() -> None:
    before = revocations.revoked(FULL, NOW)
    access, refresh = before.pending_revocations
    told = revocation(
        before.pending_revocations,
        revocations.provider_told(revocations.provider_told(before, access), refresh),
        NOW,
        stored=True,
    )
    assert (told.provider, told.detail) == ("told", "the provider was told of the refresh token and the access token")
    half = revocations.revocation_failed(revocations.not_revocable(before, access, NOW), "503", NOW, 2.0)
    pending = revocation(before.pending_revocations, half, NOW, stored=False)
    assert pending.provider == "pending"
    assert pending.detail == (
        "it could NOT be stored: it ends when brokerd ends, unless the disk works again before that; brokerd will tell"
        " the provider of the refresh token, and tries until that succeeds (503); the provider cannot be told of the"
        " access token, which"
        " stays valid there until 2023-11-14 22:23 UTC"
    )
    nothing = revocation((), revocations.revoked(Record("app"), NOW), NOW, stored=True)
    assert (nothing.provider, nothing.detail) == ("told", "no token of it was alive at the provider")
