# Connections that only pretend to be systemd's: by an address that anybody can bind, from elsewhere, with more than an
# address.
from __future__ import annotations

import trio

from tests.scenario.credentials.conftest import Units, held_at, with_credentials
from tests.scenario.daemon.harness import SOON, Brokerd, Serving
from tests.servers import OAuth2

PORTAL = "unit/portal.service/app"
STRANGER = 60_900
ELSEWHERE = (
    None,
    "other.service",
    "portal.service.evil",
    "evil.service/portal.service",
    "portal@1.service",
    "xportal.service",
    "user-1000.slice/user@1000.service/app.slice/portal.service",
    "user-1000.slice/user@1000.service",
    "docker-" + "a1" * 32 + ".scope/portal.service",
)
ADDRESSES: tuple[str | bytes | None, ...] = (
    "unit/portal.service.evil/app",
    "unit/portal/app",
    "unit/portal.service",
    "unit/portal.service/",
    "unit//app",
    "unit/portal.service/app/more",
    "unit/portal.service/../app",
    "unit/portal.service/*",
    "unit/portal.service/app\n",
    "unit/portal.service/app\0",
    "unit/portal.service\0/app",
    "unit/portal.service /app",
    "unit/pórtal.service/app",
    "Unit/portal.service/app",
    "portal.service/app",
    b"\0unit/portal.service/%RANDOM",
    b"\0zz%RANDOM/unit/portal.service/app",
    b"\0" + b"a" * 17 + b"%RANDOM/unit/portal.service/app",
    b"\0\0%RANDOM/unit/portal.service/app",
    None,
)


async def assert_nothing(brokerd: Brokerd, units: Units, *arguments: object, **options: object) -> str:
    """Nothing comes, and the log says what was wrong: its reason."""
    before = brokerd.log.count("bad input on a connection")
    assert await units.credential(*arguments, **options) == b""  # type: ignore[arg-type]
    await brokerd.said("bad input on a connection", times=before + 1)
    line = [line for line in brokerd.log.splitlines() if "bad input on a connection" in line][-1]
    assert (await brokerd.call("hello"))["protocol"] == 1
    return line


async def test_an_unprivileged_user_who_binds_the_address_gets_nothing(
    brokerd: Brokerd, serving: Serving, units: Units
) -> None:
    await with_credentials(brokerd, serving)
    line = await assert_nothing(brokerd, units, PORTAL, None, uid=STRANGER)
    assert "its address names portal.service; its process is in" in line
    assert f"uid={STRANGER}" in line
    line = await assert_nothing(brokerd, units, PORTAL, "portal.service", uid=STRANGER)
    assert f"its process is in that unit, and its uid is {STRANGER}: it is not systemd" in line
    line = await assert_nothing(brokerd, units, PORTAL, "evil.service/portal.service", uid=STRANGER)
    assert "its process is in evil.service" in line


async def test_root_elsewhere_gets_nothing(brokerd: Brokerd, serving: Serving, units: Units) -> None:
    await with_credentials(brokerd, serving)
    for within in ELSEWHERE:
        line = await assert_nothing(brokerd, units, PORTAL, within)
        assert "its address names portal.service; its process is in" in line, within


async def test_no_other_address_leads_to_a_token(brokerd: Brokerd, serving: Serving, units: Units) -> None:
    await with_credentials(brokerd, serving)
    for address in ADDRESSES:
        line = await assert_nothing(brokerd, units, address)
        assert "its address names no unit and credential" in line, address


async def test_a_socket_with_a_name_in_the_file_system_is_not_systemds(
    brokerd: Brokerd, serving: Serving, units: Units
) -> None:
    await with_credentials(brokerd, serving)
    path = str(brokerd.folder / "unit").encode()
    assert "names no unit" in await assert_nothing(brokerd, units, path)


async def test_who_sends_something_is_not_systemd(brokerd: Brokerd, serving: Serving, units: Units) -> None:
    async with (
        held_at(await serving(OAuth2()), brokerd) as gate,
        units.fetching(PORTAL, said=b"x".hex()) as one,
        units.fetching(PORTAL, said=b"GET /v1/token/app HTTP/1.1\r\nHost: brokerd\r\n\r\n".hex()) as http,
    ):
        await gate.reached()
        gate.release()
        for made in (one, http):
            assert await made.line(SOON) in ("", "Broken pipe", "Connection reset by peer")
    await brokerd.said("it sent something; this socket is for systemd", times=2)


async def test_the_unit_of_another_template_instance_is_another_unit(
    brokerd: Brokerd, serving: Serving, units: Units
) -> None:
    rule = {"grants": ["app"], "caller": {"unit": "portal@a.service"}}
    await with_credentials(brokerd, serving, rule)
    assert await units.credential("unit/portal@a.service/app", "portal@a.service")
    assert await units.credential("unit/portal@b.service/app", "portal@b.service") == b""
    assert await units.credential("unit/portal@.service/app", "portal@.service") == b""
    await assert_nothing(brokerd, units, "unit/portal@a.service/app", "portal@b.service")


async def test_three_hundred_that_wait_keep_nobody_from_a_token(
    brokerd: Brokerd, serving: Serving, units: Units
) -> None:
    fetching = units.fetching(b"\0%RANDOM%d/unit/portal.service/app", times=300)
    async with held_at(await serving(OAuth2()), brokerd) as gate, fetching as made:
        await gate.reached()
        with trio.fail_after(SOON):
            assert (await brokerd.call("hello"))["protocol"] == 1
            gate.release()
            found = set((await made.line(SOON)).split(","))
    assert found == {(await brokerd.get("app")).encode().hex()}
