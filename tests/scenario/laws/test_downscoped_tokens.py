# Downscoped tokens on virtual time: tokens of a grant with less than the grant's own rights. They use the grant's one
# exchange slot and are kept like its own token.
from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from brokerd.broker.downscoped import BURST
from brokerd.core.errors import Code, Failure
from brokerd.core.grant.record import DOWNSCOPED_MOST
from brokerd.core.grant.target import Target
from brokerd.core.ports import TransportError
from brokerd.core.secret import Secret, sha256_of
from tests.scenario.laws.world import ISSUING, LIFETIME, PASSWORD, World, world
from tests.scenario.laws.world import REFRESHING as UNSCOPED

READ, WRITE = Target(("read",)), Target(("write",))
SCOPED = 'scope = ["read", "write"]\n'
REFRESHING = UNSCOPED + SCOPED
MANY = [f"s{number}" for number in range(10_000)]


async def imported(made: World) -> str:
    """Give the grant a refresh token, where it needs one; the value of its first access token."""
    if made.broker.grants["app"].can_issue():
        return await get(made, None)
    await made.broker.import_token("app", Secret(made.provider.new_refresh_token()))
    return (await made.broker.get("app")).value.reveal()


async def get(made: World, wanted: Target | None = READ, **how: object) -> str:
    return (await made.broker.get("app", target=wanted, **how)).value.reveal()  # type: ignore[arg-type]


async def failure_of(made: World, wanted: Target = READ, **how: object) -> Failure:
    with pytest.raises(Failure) as caught:
        await get(made, wanted, **how)
    return caught.value


def asked(made: World, number: int = -1) -> dict[str, str]:
    return made.provider.asked[number][1]


# -- got and kept


@pytest.mark.parametrize("text", [REFRESHING, ISSUING])
async def test_a_downscoped_token_is_got_once_and_served_from_then_on(
    autojump_clock: MockClock, tmp_path: Path, text: str
) -> None:
    async with world(tmp_path, text) as made:
        own = await imported(made)
        variant = await get(made)
        assert asked(made)["scope"] == "read"
        sent = len(made.provider.asked)
        assert variant != own
        assert (await get(made), await get(made, None)) == (variant, own)
        assert len(made.provider.asked) == sent
        assert made.broker.status("app")["variants"] == 1


async def test_a_hundred_gets_of_a_downscoped_token_cause_one_request_and_two_downscoped_tokens_one_after_the_other(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.takes, sent = 2.0, len(made.provider.asked)
        found: dict[Target, set[str]] = {READ: set(), WRITE: set()}

        async def caller(wanted: Target) -> None:
            found[wanted].add(await get(made, wanted))

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(caller, READ)
                nursery.start_soon(caller, WRITE)
        assert [len(values) for values in found.values()] == [1, 1]
        times = made.provider.times[sent:]
        assert len(times) == 2
        assert times[1] - times[0] >= 2.0, "two exchanges of a grant were under way at once"
        assert made.provider.reused == 0


async def test_all_waiters_for_a_downscoped_token_share_a_failure(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.takes, sent = 1.0, len(made.provider.asked)
        made.provider.answers = [(503, {})] * 5
        codes = []

        async def caller() -> None:
            codes.append((await failure_of(made, wait=1.5)).code)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(caller)
        assert codes == [Code.UNAVAILABLE] * 20
        assert len(made.provider.asked) == sent + 1
        assert made.broker.cached("app") is not None, "a variant's failure takes the grant's own token away"


async def test_a_downscoped_token_that_came_dead_says_why_and_names_the_key(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.lifetime = 0
        said = (await failure_of(made)).message
        assert "had already expired: the provider says that the token lives 0 s" in said
        assert "write lifetime on the grant" in said


async def test_the_grants_own_renewal_is_not_held_up_by_downscoped_tokens(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, UNSCOPED + f"scope = {MANY[:1_000]}\n") as made:
        await imported(made)
        made.provider.takes = 15.0
        async with trio.open_nursery() as nursery:

            async def ask_without_end(number: int) -> None:
                while True:
                    number += 10
                    with trio.move_on_after(60):
                        await get(made, Target((f"s{number}",)), wait=60.0)

            for number in range(10):
                nursery.start_soon(ask_without_end, number)
            await trio.sleep(4 * LIFETIME)
            assert made.broker.cached("app") is not None
            nursery.cancel_scope.cancel()
        own = [at for at, fields in made.provider.asked if "scope" not in fields or " " in fields["scope"]]
        assert len(own) >= 5
        assert max(later - before for before, later in pairwise(own)) < LIFETIME * 0.8


async def test_a_downscoped_token_in_use_is_renewed_ahead_and_one_that_nobody_uses_is_not(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        await get(made, None)
        first, sent = await get(made), len(made.provider.asked)
        for _ in range(12):
            await trio.sleep(LIFETIME / 4)
            assert made.broker.cached("app", target=READ) is not None, "a variant in use was let die"
        assert await get(made) != first
        assert sum(fields.get("scope") == "read" for _, fields in made.provider.asked[sent:]) >= 3
        await trio.sleep(2 * LIFETIME)
        sent = len(made.provider.asked)
        await trio.sleep(10 * LIFETIME)
        assert all(fields.get("scope") != "read" for _, fields in made.provider.asked[sent:])
        assert made.broker.status("app")["variants"] == 0


async def test_a_downscoped_token_outlives_a_restart_and_never_its_own_life(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        await get(made, None)
        value = await get(made)
    async with world(tmp_path, ISSUING, store=made.store, provider=made.provider, refresher=False) as made:
        sent = len(made.provider.asked)
        assert await get(made) == value
        assert len(made.provider.asked) == sent
        await trio.sleep(LIFETIME)
        assert made.broker.cached("app", target=READ) is None


async def test_min_ttl_and_refused_bring_a_downscoped_token_forward_once_per_third_of_its_lifetime(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        own = await get(made, None)
        first, sent = await get(made), len(made.provider.asked)
        second = await get(made, refused=sha256_of(first))
        assert second != first
        failure = await failure_of(made, refused=sha256_of(second))
        assert failure.code is Code.UNAVAILABLE
        assert len(made.provider.asked) == sent + 1
        assert await get(made, None) == own, "a refused variant brought the grant's own token forward"
        await trio.sleep(LIFETIME / 3 + 1)
        assert await get(made, refused=sha256_of(second)) != second
        failure = await failure_of(made, min_ttl=LIFETIME)
        assert failure.code is Code.BAD_REQUEST


# -- nothing of it sticks


async def test_the_token_after_a_downscoped_token_names_the_grants_own_scope_again(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        made.provider.scope, made.provider.narrows = "read write", True
        await imported(made)
        assert "scope" not in asked(made), "nothing was narrowed: a renewal leaves the scope out (RFC 6749 §6)"
        await get(made)
        await made.broker.refresh("app")
        assert asked(made)["scope"] == "read write"
        await trio.sleep(LIFETIME / 2)
        await made.broker.refresh("app")
        assert "scope" not in asked(made), "it is named once"
        assert made.broker.grants["app"].record.access_token.scope == ("read", "write")  # type: ignore[union-attr]


async def test_a_token_for_a_resource_names_the_grants_own_again(autojump_clock: MockClock, tmp_path: Path) -> None:
    text = UNSCOPED + 'resource = "https://api.test/own"\n'
    more = 'variants = { audience = ["other"], resource = ["https://api.test/other"] }\n'
    async with world(tmp_path, text + more) as made:
        await imported(made)
        await get(made, Target(resource="https://api.test/other", audience="other"))
        assert (asked(made)["resource"], asked(made)["audience"]) == ("https://api.test/other", "other")
        await made.broker.refresh("app")
        assert asked(made)["resource"] == "https://api.test/own"
        assert asked(made).keys().isdisjoint({"audience", "scope"}), "the grant has none of its own"


async def test_an_issue_for_a_downscoped_token_keeps_the_grants_refresh_token(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """A refresh token that comes with it is for less than the grant's own."""
    (tmp_path / "password").write_text("test-only-password")
    (tmp_path / "password").chmod(0o600)
    text = PASSWORD.replace("PASSWORD", str(tmp_path / "password")) + "on_demand = true\n"
    async with world(tmp_path, text) as made:
        await get(made)
        assert asked(made)["grant_type"] == "password"
        assert made.broker.grants["app"].record.refresh_token is None
        await get(made, None)
        assert (asked(made)["grant_type"], "scope" in asked(made)) == ("password", False)


async def test_a_rotated_refresh_token_is_durable_before_its_downscoped_token_is_served(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        generation = made.broker.grants["app"].record.generation
        value = await get(made)
        stored = made.store.writes[-1]
        assert stored.generation == generation + 1
        assert [each.access_token.value.reveal() for each in stored.downscoped] == [value]
        assert stored.refresh_token is not None
        assert stored.refresh_token.value.reveal() in made.provider.valid
        made.store.broken = True
        failure = await failure_of(made, WRITE)
        assert failure.code is Code.UNAVAILABLE, "without a journal nothing that spends is sent"
        assert await get(made) == value


async def test_an_interruption_by_a_downscoped_token_holds_for_the_grant(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.lost = 1
        assert (await failure_of(made, wait=1.0)).code is Code.UNAVAILABLE
        sent = len(made.provider.asked)
        assert made.broker.status("app")["interrupted"] is not None
        assert (await failure_of(made, WRITE, wait=60.0)).code is Code.UNAVAILABLE
        await trio.sleep(LIFETIME / 2)
        assert len(made.provider.asked) == sent, "a token that may be used up was sent although another one lives"


# -- refusals


@pytest.mark.parametrize("text", [REFRESHING, ISSUING])
async def test_a_refused_downscoped_token_is_told_once_and_costs_the_grant_nothing(
    autojump_clock: MockClock, tmp_path: Path, text: str
) -> None:
    async with world(tmp_path, text) as made:
        own = await imported(made)
        made.provider.forbidden = {"read"}
        sent = len(made.provider.asked)
        for _ in range(10):
            failure = await failure_of(made)
            assert failure.code is Code.BAD_REQUEST
            assert "invalid_scope" in failure.message
            assert failure.retry_after is not None
        assert len(made.provider.asked) == sent + 1
        assert made.broker.status("app")["state"] == "ready"
        assert await get(made, None) == own
        await trio.sleep(max(failure.retry_after, LIFETIME))
        made.provider.forbidden.clear()
        assert await get(made)


async def test_a_refusal_may_have_used_the_refresh_token_up(autojump_clock: MockClock, tmp_path: Path) -> None:
    """npm's oidc-provider replaces it before it looks at the resource, and keeps the new one to itself."""
    async with world(tmp_path, REFRESHING) as made:
        own = await imported(made)
        made.provider.forbidden = {"read"}
        await failure_of(made)
        sent = len(made.provider.asked)
        assert made.broker.status("app")["interrupted"] is not None
        assert (await failure_of(made, WRITE)).code is Code.UNAVAILABLE
        await trio.sleep(LIFETIME * 0.8)
        assert await get(made, None) == own
        assert len(made.provider.asked) == sent
        await trio.sleep(LIFETIME * 0.2)
        assert await get(made, None) != own
        assert made.broker.status("app")["interrupted"] is None
        assert await get(made, WRITE)


@pytest.mark.parametrize("wanted", [Target(("read",)), Target(audience="a"), Target(resource="urn:r")])
async def test_a_refresh_token_is_asked_only_for_what_the_configuration_says_it_is_good_for(
    autojump_clock: MockClock, tmp_path: Path, wanted: Target
) -> None:
    async with world(tmp_path, UNSCOPED) as made:
        await imported(made)
        sent = len(made.provider.asked)
        failure = await failure_of(made, wanted)
        assert failure.code is Code.BAD_REQUEST
        assert "configuration" in failure.message
        assert len(made.provider.asked) == sent


async def test_a_caller_who_invents_scopes_cannot_make_brokerd_hammer(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        await get(made, None)
        made.provider.forbidden = set(MANY)
        sent, begun = len(made.provider.asked), trio.current_time()
        for number in range(200):
            await failure_of(made, Target((f"s{number}",)), wait=60.0)
        assert len(made.provider.asked) - sent <= trio.current_time() - begun + BURST + 1
        assert trio.current_time() - begun < 250


async def test_retry_after_to_a_downscoped_token_holds_for_all(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        await get(made, None)
        made.provider.answers, made.provider.headers = [(429, {})], {"retry-after": "100"}
        assert (await failure_of(made)).code is Code.UNAVAILABLE
        sent = len(made.provider.asked)
        assert (await failure_of(made, WRITE, wait=60.0)).code is Code.UNAVAILABLE
        assert len(made.provider.asked) == sent
        await trio.sleep(125)
        assert await get(made, WRITE)


async def test_a_rejected_refresh_token_is_the_grants(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        own = await imported(made)
        await get(made, WRITE)
        made.provider.valid.clear()
        assert "brokerctl import app" in (await failure_of(made)).message  # rejected once (law 4)
        with pytest.raises(Failure):
            await made.broker.refresh("app")
        assert (await failure_of(made)).code is Code.NEEDS_LOGIN
        assert made.broker.status("app")["state"] == "needs_login"
        assert await get(made, None) == own, "a living token goes on being served"
        assert await get(made, WRITE)


async def test_a_refused_client_makes_the_grant_misconfigured(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING) as made:
        await get(made, None)
        made.provider.answers = [(401, {"error": "invalid_client"})]
        assert (await failure_of(made)).code is Code.MISCONFIGURED
        assert made.broker.status("app")["state"] == "misconfigured"


async def test_a_scope_beyond_the_grants_own_is_never_asked_for(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, ISSUING + SCOPED) as made:
        await get(made, None)
        sent = len(made.provider.asked)
        failure = await failure_of(made, Target(("admin", "read")))
        assert failure.code is Code.BAD_REQUEST
        assert "read write" in failure.message
        assert len(made.provider.asked) == sent


async def test_a_password_that_went_out_with_a_refused_downscoped_token_is_not_risked_for_another(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Not every provider says which of the two it refuses (law 7)."""
    (tmp_path / "password").write_text("test-only-password")
    (tmp_path / "password").chmod(0o600)
    async with world(tmp_path, PASSWORD.replace("PASSWORD", str(tmp_path / "password"))) as made:
        made.provider.refreshes, made.provider.forbidden = False, {"read"}
        own = await get(made, None)
        assert (await failure_of(made)).code is Code.BAD_REQUEST
        sent = len(made.provider.asked)
        assert (await failure_of(made, WRITE, wait=60.0)).code is Code.UNAVAILABLE
        assert len(made.provider.asked) == sent
        await trio.sleep(LIFETIME)
        assert await get(made, None) != own
        assert await get(made, WRITE)


# -- bounded, and gone with the grant


async def test_of_too_many_downscoped_tokens_the_least_recently_used_goes(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING) as made:
        await get(made, None)
        many = [Target((f"s{number}",)) for number in range(DOWNSCOPED_MOST)]
        values = [await get(made, each, wait=60.0) for each in many]
        await trio.sleep(2)
        assert await get(made, many[0]) == values[0]
        await get(made, READ, wait=60.0)
        record = made.broker.grants["app"].record
        assert len(record.downscoped) == DOWNSCOPED_MOST
        assert made.broker.cached("app", target=many[1]) is None
        assert made.broker.cached("app", target=many[0]) is not None
        assert values[1] in {each.value.reveal() for each in record.superseded}, "the provider would not be told of it"


async def test_a_revocation_tells_the_provider_of_every_downscoped_token(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        own = await imported(made)
        old = await get(made)
        values = {own, old, await get(made, WRITE), await get(made, refused=sha256_of(old))}
        done = await made.broker.revoke("app")
        assert done.provider == "told"
        assert values <= set(made.provider.revoked)
        assert (await failure_of(made)).code is Code.REVOKED


async def test_a_downscoped_token_that_comes_after_the_revocation_is_told_of_too(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        made.provider.takes = 3.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failure_of, made)
            await trio.sleep(1)
            await made.broker.revoke("app", wait=60.0)
        record = made.broker.grants["app"].record
        await trio.sleep(120)
        assert not record.downscoped
        assert not made.broker.grants["app"].record.pending_revocations
        assert not made.provider.valid


async def test_a_changed_configuration_serves_no_downscoped_token_of_the_old_one(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, ISSUING + SCOPED) as made:
        await get(made, None)
        old = await get(made)
        made.configure(ISSUING + 'scope = ["write"]\n')
        assert (await failure_of(made)).code is Code.BAD_REQUEST
        made.configure(ISSUING + 'scope = ["read", "more"]\n')
        assert await get(made) != old


async def test_an_import_ends_the_downscoped_tokens_of_before(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        old = await get(made)
        await imported(made)
        assert await get(made) != old
        assert old in {each.value.reveal() for each in made.broker.grants["app"].record.superseded}


# -- token exchange (RFC 8693)


async def test_a_downscoped_token_by_exchange_sends_the_grants_own_token(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING + "variants = { exchange = true }\n") as made:
        own = await imported(made)
        await get(made, Target(("read",), "other"))
        sent = asked(made)
        assert sent["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange"
        assert (sent["subject_token"], sent["scope"], sent["audience"]) == (own, "read", "other")
        assert made.provider.count("refresh_token") == 1, "it spends nothing"


async def test_a_downscoped_token_by_exchange_gets_the_grants_own_token_first(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with world(tmp_path, REFRESHING + "variants = { exchange = true }\non_demand = true\n") as made:
        await made.broker.import_token("app", Secret(made.provider.new_refresh_token()))
        assert await get(made)
        assert [fields["grant_type"][-14:] for _, fields in made.provider.asked] == [
            "refresh_token"[-14:],
            "token-exchange",
        ]


async def test_a_lost_answer_to_an_exchange_interrupts_nothing(autojump_clock: MockClock, tmp_path: Path) -> None:
    async with world(tmp_path, REFRESHING + "variants = { exchange = true }\n") as made:
        await imported(made)
        made.provider.answers = [TransportError("reset", sent=True)]
        assert (await failure_of(made, wait=1.0)).code is Code.UNAVAILABLE
        assert made.broker.status("app")["interrupted"] is None
