# kill -9 at any time and restart: what was served or journalled is durable, refresh tokens that live are gone on with,
# nobody is asked who need not be, and what lies on the disk is sealed (laws 2, 3, 15).
from __future__ import annotations

import base64
import random
import time

import trio

from tests.scenario.daemon.harness import (
    CONFIGURED_SECRETS,
    FIVE,
    IMPORTED,
    ROTATING,
    TICK,
    Brokerd,
    Serving,
    at,
    every,
)
from tests.servers import OAUTH2_CLIENT, OAUTH2_USER, Fleet, OAuth2, oauth2

SCOPES = ("read", "write")


async def test_what_was_served_survives_kill_9_and_the_newest_refresh_token_goes_on(
    brokerd: Brokerd, serving: Serving
) -> None:
    fleet = await serving.all(3600)
    brokerd.configure(FIVE, every(fleet.by_name))
    await brokerd.start()
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for grant in FIVE:
                nursery.start_soon(_refresh, brokerd, grant)
        found = await brokerd.call("get_many", grants=list(FIVE), wait=0)
        await brokerd.kill()
        await brokerd.start()
        assert await brokerd.call("get_many", grants=list(FIVE), wait=0) == found
    assert_nothing_was_lost(fleet)
    for grant in ROTATING:
        assert (await brokerd.status(grant))["interrupted"] is None


async def _refresh(brokerd: Brokerd, grant: str) -> None:
    await brokerd.call("refresh", grant=grant)


def assert_nothing_was_lost(fleet: Fleet) -> None:
    """Every login happened once, and every refresh token was sent once."""
    for provider in fleet.by_name.values():
        assert (provider.counts.reused, provider.counts.families_killed) == (0, 0), provider.name
    issued = [fleet.ix_api.count("issue"), fleet.occam.count("issue"), fleet.treezor.count("issue")]
    assert (issued, fleet.click2mail.count("issue_long")) == ([1, 1, 1], 1)
    passwords = [each for each in fleet.oauth2.requests if b"grant_type=password" in each.request.body]
    assert len(passwords) == 1


async def test_a_request_that_the_provider_never_carried_out_costs_no_login(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2(oauth2.Settings(access_lifetime=4)))
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)})
    await brokerd.start()
    await give(brokerd, provider)
    token = await brokerd.call("get", grant="app")
    provider.drop(operation="refresh")  # it comes, and is lost on its way to the provider's database
    with provider.hold("refresh", processed=False) as gate:
        async with brokerd.caller() as caller:
            await caller.send("refresh", grant="app")
            await gate.reached()
            await brokerd.kill()
    await brokerd.start()
    assert (await brokerd.status("app"))["interrupted"] is not None
    assert await brokerd.get("app", wait=0) == token["value"]
    renewed = await brokerd.get("app", refused=token["value"])  # waits for it
    assert renewed != token["value"]
    assert provider.statuses("refresh") == [200, None, 200]
    assert provider.times("refresh")[2] > token["expires_at"] - 0.5, "what may be used up was sent again too early"
    status = await brokerd.status("app")
    assert (status["state"], status["interrupted"]) == ("ready", None)
    assert provider.counts.families_killed == 0


async def give(brokerd: Brokerd, provider: OAuth2, grant: str = "app") -> str:
    """A refresh token from a login, imported."""
    token = provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=SCOPES)
    await brokerd.call("import", grant=grant, refresh_token=token.value)
    return token.value


async def test_a_lost_answer_is_fetched_again_within_the_providers_grace(brokerd: Brokerd, serving: Serving) -> None:
    provider = await serving(OAuth2(oauth2.Settings(reuse_grace=60)))
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider, reuse_grace="30s")})
    await brokerd.start()
    await give(brokerd, provider)
    await brokerd.get("app")
    await kill_while_the_answer_is_held(brokerd, provider)
    await brokerd.start()
    assert (await brokerd.status("app"))["interrupted"] is not None
    await brokerd.call("refresh", grant="app")
    status = await brokerd.status("app")
    assert (status["state"], status["interrupted"]) == ("ready", None)
    assert provider.statuses("refresh")[-1] == 200
    assert provider.counts.families_killed == 0


async def test_a_lost_answer_costs_a_new_login_by_itself_where_there_is_a_password(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2(oauth2.Settings(access_lifetime=3)))
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)})
    await brokerd.start()
    value = await brokerd.get("app")
    await kill_while_the_answer_is_held(brokerd, provider)
    await brokerd.start()
    assert await brokerd.get("app", wait=0) == value, "a living token was not served"
    assert await brokerd.get("app", refused=value) != value
    status = await brokerd.status("app")
    assert (status["state"], status["interrupted"]) == ("ready", None)
    assert provider.statuses() == [200, 200, 400, 200]  # issued, rotated and lost, rejected, issued anew


async def test_a_lost_answer_needs_a_person_where_nothing_else_is_left_and_says_why(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await serving(OAuth2(oauth2.Settings(access_lifetime=2)))
    brokerd.configure({"app": IMPORTED}, {"oauth2": at(provider)})
    await brokerd.start()
    await give(brokerd, provider)
    value = await brokerd.get("app")
    await kill_while_the_answer_is_held(brokerd, provider)
    await brokerd.start()
    error = await brokerd.error("get", grant="app", refused=value)
    await brokerd.until("app", lambda status: status["expires_at"] is None)
    sent = provider.count()
    assert error["code"] == "needs_login"
    assert "interrupted at 20" in error["message"]
    assert "brokerctl import app" in error["message"]
    status = await brokerd.status("app")
    assert "interrupted at 20" in status["last_error"]
    assert (status["state"], status["remedy"]) == ("needs_login", "brokerctl import app")
    await brokerd.said("event=exchange_interrupted grant=app ")
    end = next(line for line in brokerd.log.splitlines() if "outcome=rejected" in line)
    assert "state=needs_login" in end
    assert 'remedy="brokerctl import app"' in end
    assert "interrupted at 20" in end
    assert (await brokerd.error("refresh", grant="app"))["code"] == "needs_login"
    await brokerd.restart()
    said = next(line for line in brokerd.log.splitlines() if "event=grant_needs_login grant=app" in line)
    assert 'remedy="brokerctl import app"' in said
    assert "interrupted at 20" in said
    assert (await brokerd.error("get", grant="app"))["code"] == "needs_login"
    assert provider.count() == sent, "a rejected refresh token was sent again"
    await give(brokerd, provider)
    assert await brokerd.get("app")


async def test_after_a_restart_tokens_are_renewed_before_they_run_out(brokerd: Brokerd, serving: Serving) -> None:
    fleet = await serving.all(5)
    brokerd.configure(FIVE, every(fleet.by_name))
    await brokerd.start()
    first = await brokerd.call("get_many", grants=list(FIVE))
    await brokerd.restart()
    ends = max(each["token"]["expires_at"] for each in first)
    while (found := await brokerd.call("get_many", grants=list(FIVE), wait=0)) and time.time() < ends:
        for grant, each in zip(FIVE, found, strict=True):
            assert "token" in each, f"{grant}: {await brokerd.status(grant)}"
        await trio.sleep(TICK)


async def kill_while_the_answer_is_held(brokerd: Brokerd, provider: OAuth2) -> None:
    """The provider has rotated the refresh token, and brokerd dies before it hears of it."""
    with provider.hold("refresh") as gate:
        async with brokerd.caller() as caller:
            await caller.send("refresh", grant="app")
            await gate.reached()
            await brokerd.kill()


async def test_kill_9_at_any_moment_asks_for_nobody(brokerd: Brokerd, serving: Serving) -> None:
    seed = random.randrange(1_000_000)
    print("seed", seed)
    fleet = await serving.all(2, refresh_lifetime=3600)
    brokerd.configure(FIVE, every(fleet.by_name))
    chance = random.Random(seed)
    await brokerd.start()
    await brokerd.call(
        "get_many", grants=list(FIVE)
    )  # a password that never brought a token waits after a kill (law 7)
    await brokerd.kill()
    for _ in range(4):
        await brokerd.start()
        async with brokerd.caller() as caller:
            await caller.send("get_many", grants=list(FIVE))
            for _ in range(3):
                await caller.send("refresh", grant=chance.choice(list(FIVE)))
            await trio.sleep(chance.uniform(0.0, 0.4))  # any moment will do
            await brokerd.kill()
    await brokerd.start()
    for found in await brokerd.call("get_many", grants=list(FIVE)):
        assert "token" in found, found
    for grant in FIVE:
        assert (await brokerd.status(grant))["state"] in ("ready", "renewing")
    for provider, login in ((fleet.ix_api, "issue"), (fleet.occam, "issue"), (fleet.treezor, "issue")):
        statuses = provider.statuses("refresh")
        rejections = len(statuses) - statuses.count(200)
        # a first login whose answer died with brokerd is repeated; later ones follow a rejection
        first = min((each.time for each in provider.requests if each.operation == "refresh"), default=float("inf"))
        repeated = [at for at in provider.times(login) if at > first]
        assert len(repeated) <= rejections, f"{provider.name}: {provider.snapshot()}"


async def test_no_secret_lies_in_the_state_directory_in_the_clear(brokerd: Brokerd, serving: Serving) -> None:
    fleet = await serving.all(3600)
    brokerd.configure({**FIVE, "imported": IMPORTED}, every(fleet.by_name))
    await brokerd.start()
    imported = await give(brokerd, fleet.oauth2, "imported")
    await brokerd.get("imported")
    async with trio.open_nursery() as nursery:
        for grant in FIVE:
            nursery.start_soon(_refresh, brokerd, grant)
    await brokerd.call("revoke", grant="oauth2-password")
    with fleet.oauth2.hold("refresh") as gate:
        async with brokerd.caller() as caller:
            await caller.send("refresh", grant="imported")
            await gate.reached()
            await brokerd.kill()  # its journal's row stays
    files = brokerd.bytes_of_state()
    assert b"occam-password" in files["brokerd.db-wal"], "the search does not see what was written last"
    secrets = {*CONFIGURED_SECRETS, imported}.union(*(each.secret_values() for each in fleet.by_name.values()))
    assert len(secrets) > 30
    assert secrets_in(b"...".join(files.values()), secrets) == []
    await brokerd.start()
    assert await brokerd.stop() == 0
    assert secrets_in(b"...".join(brokerd.bytes_of_state().values()), secrets) == []
    key = brokerd.key.read_text().strip().removeprefix("brokerd-key-1:")
    assert secrets_in(b"".join(files.values()), {key, base64.b64decode(key).decode("latin-1")}) == []


def secrets_in(data: bytes, secrets: set[str]) -> list[str]:
    """The secrets that stand in the data: as they are, and in the encodings that people call sealed."""
    found = []
    for secret in secrets:
        for encoding in ("utf-8", "utf-16-le", "latin-1"):
            raw = secret.encode(encoding, "ignore")
            forms = (raw, raw.hex().encode(), base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw)[:-4])
            if any(len(form) > 8 and form in data for form in forms):
                found.append(secret)
    return found


def test_the_search_for_secrets_finds_them() -> None:
    assert secrets_in(b"..." + base64.b64encode(b"test-only-secret") + b"...", {"test-only-secret"})
    assert secrets_in("…grün-und-geheim…".encode(), {"grün-und-geheim"})
    assert not secrets_in(b"test-only-secre", {"test-only-secret"})
