# The socket for credentials as systemd uses it: which unit gets which bytes, and what a unit without a token gets.
from __future__ import annotations

import json

import pytest
import trio

from tests.scenario.credentials.conftest import Units, configure, held_at, with_credentials
from tests.scenario.daemon.harness import SOON, TICK, Brokerd, Serving
from tests.servers import OAuth2, oauth2

PORTAL = "unit/portal.service/app"


async def test_a_unit_gets_the_token_and_nothing_but_the_token(
    brokerd: Brokerd, serving: Serving, units: Units
) -> None:
    await with_credentials(brokerd, serving)
    token = await brokerd.get("app")
    assert await units.credential(PORTAL) == token.encode()
    found = json.loads(await units.credential(PORTAL + ".json"))
    assert (found["grant"], found["access_token"], found["token_type"]) == ("app", token, "Bearer")
    assert found["header"] == f"Authorization: Bearer {token}"
    assert "expires_in" not in found  # it would be wrong a second later


@pytest.mark.parametrize(
    ("unit", "cgroup"),
    [
        ("portal.service", "portal.service"),
        ("portal.service", "portal-more.slice/portal.service"),
        ("portal.service", "portal.service/.control"),  # ExecStartPre= of a unit with Delegate=
        ("portal@de\\x2dch.service", "portal@de\\x2dch.service"),
        ("_portal.service", "__portal.service"),  # systemd escapes such a name
        ("portal.socket", "portal.socket"),
    ],
)
async def test_the_unit_is_that_of_the_kernel_wherever_it_lies(
    brokerd: Brokerd, serving: Serving, units: Units, unit: str, cgroup: str
) -> None:
    await with_credentials(brokerd, serving, {"grants": ["app"], "caller": {"unit": unit}})
    assert await units.credential(f"unit/{unit}/app", cgroup) == (await brokerd.get("app")).encode()


async def test_a_rule_for_a_slice_holds_for_its_units(brokerd: Brokerd, serving: Serving, units: Units) -> None:
    await with_credentials(brokerd, serving, {"grants": ["app"], "caller": {"slice": units.slice}})
    assert await units.credential(PORTAL) == (await brokerd.get("app")).encode()


@pytest.mark.parametrize(
    "caller",
    [
        {"user": "root"},
        {"uid": 0},
        {"group": "root"},
        {"unit": "portal.service", "user": "root"},
        {"unit": "other.service"},
        {"user": "root", "user_unit": "portal.service"},
    ],
)
async def test_that_systemd_is_root_gives_a_unit_nothing(
    brokerd: Brokerd, serving: Serving, units: Units, caller: dict[str, object]
) -> None:
    await with_credentials(brokerd, serving, {"grants": ["app"], "caller": caller})
    assert await units.credential(PORTAL) == b""
    await brokerd.said("event=credential_not_given")
    line = next(line for line in brokerd.log.splitlines() if "a unit got no credential" in line)
    assert "unit=portal.service" in line
    assert "credential=app" in line
    assert "caller = { unit = 'portal.service' }" in line
    assert await brokerd.get("app")  # root itself needs no rule at the other socket


async def test_a_grant_that_does_not_exist_is_like_one_without_a_rule(
    brokerd: Brokerd, serving: Serving, units: Units
) -> None:
    await with_credentials(brokerd, serving)
    assert await units.credential("unit/portal.service/none") == b""
    await brokerd.said("no rule gives it this grant, or there is no such grant")


async def test_a_unit_waits_until_the_provider_answers(brokerd: Brokerd, serving: Serving, units: Units) -> None:
    provider = await serving(OAuth2())
    provider.fail_with(503, times=None)
    configure(brokerd, provider)
    await brokerd.start()
    await brokerd.said("renewal failed")
    async with units.fetching(PORTAL) as made:
        await brokerd.said("a unit waits for its credential")
        provider.clear_faults()
        token = await made.credential(within=30)
    assert token == (await brokerd.get("app")).encode()


async def test_a_unit_waits_until_a_person_unlocks_brokerd(brokerd: Brokerd, serving: Serving, units: Units) -> None:
    await with_credentials(brokerd, serving)
    token = await brokerd.get("app")
    await brokerd.call("lock")
    async with units.fetching(PORTAL) as made:
        await brokerd.said("a unit waits for its credential")
        await brokerd.call("unlock")
        assert await made.credential(within=30) == token.encode()


async def test_a_rule_that_goes_while_a_unit_waits_gives_nothing(
    brokerd: Brokerd, serving: Serving, units: Units
) -> None:
    provider = await serving(OAuth2())
    async with held_at(provider, brokerd) as gate, units.fetching(PORTAL) as made:
        await gate.reached()
        await brokerd.said("event=ready")
        configure(brokerd, provider, {"grants": ["app"], "caller": {"unit": "other.service"}})
        await brokerd.call("reload")
        gate.release()
        assert await made.credential() == b""
    await brokerd.said("no rule gives it this grant")


async def test_a_unit_that_moves_while_it_waits_gets_what_the_other_unit_gets(
    brokerd: Brokerd, serving: Serving, units: Units
) -> None:
    async with held_at(await serving(OAuth2()), brokerd) as gate, units.fetching(PORTAL) as made:
        await gate.reached()
        units.move(made, "other.service")
        gate.release()
        assert await made.credential() == b""


async def test_a_start_that_systemd_ends_leaves_nothing_behind_and_the_log_says_why(
    brokerd: Brokerd, serving: Serving, units: Units
) -> None:
    provider = await serving(OAuth2())
    provider.fail_with(503, times=None)
    configure(brokerd, provider)
    await brokerd.start()
    await brokerd.said("renewal failed")
    before = len(list(brokerd.proc("fd").iterdir()))
    async with units.fetching(PORTAL):
        await brokerd.said("a unit waits for its credential")
    await brokerd.said("systemd ended the start of the unit (TimeoutStartSec=): app")
    with trio.fail_after(SOON):
        while len(list(brokerd.proc("fd").iterdir())) > before + 1:  # the provider's connection
            await trio.sleep(TICK)


async def test_a_stop_of_brokerd_ends_the_wait_and_the_log_says_so(
    brokerd: Brokerd, serving: Serving, units: Units
) -> None:
    provider = await serving(OAuth2())
    provider.fail_with(503, times=None)
    configure(brokerd, provider)
    await brokerd.start()
    async with units.fetching(PORTAL) as made:
        await brokerd.said("a unit waits for its credential")
        await brokerd.stop()
        assert await made.credential() == b""
    assert "brokerd was stopped while the unit waited; start the unit again" in brokerd.log


async def test_a_revoked_grant_is_not_waited_for(brokerd: Brokerd, serving: Serving, units: Units) -> None:
    await with_credentials(brokerd, serving)
    await brokerd.call("revoke", grant="app", local=True)
    assert await units.credential(PORTAL) == b""
    await brokerd.said('unit=portal.service credential=app reason="app was revoked')


async def test_a_large_token_arrives_whole(brokerd: Brokerd, serving: Serving, units: Units) -> None:
    provider = await serving(OAuth2(oauth2.Settings(access_padding=200_000)))
    configure(brokerd, provider)
    await brokerd.start()
    token = (await brokerd.get("app")).encode()
    assert len(token) > 200_000
    assert await units.credential(PORTAL) == token
    assert json.loads(await units.credential(PORTAL + ".json"))["access_token"].encode() == token


async def test_the_audit_log_has_unit_and_credential(brokerd: Brokerd, serving: Serving, units: Units) -> None:
    await with_credentials(brokerd, serving)
    await units.credential(PORTAL + ".json")
    await brokerd.stop()
    lines = [
        json.loads(line) for path in (brokerd.state / "audit").glob("audit*") for line in path.read_text().splitlines()
    ]
    served = next(line for line in lines if line.get("outcome") == "served")
    assert (served["event"], served["grant"]) == ("get", "app")
    assert served["who"]["credential"] == "app.json"
    assert served["who"]["evidence"]["unit"] == "portal.service"
    assert served["allowed_by"].endswith("allow[0]")
