# The real daemon, one kept connection of another user, and what happens between two of its gets, which go the short way
# (server/short_way.py): each is answered as it has to be from that moment on.
from __future__ import annotations

from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import OAuth2

TIMES = 4  # the third get and later ones go the short way


async def test_what_happens_between_two_gets_holds_for_the_second(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    grants, providers = {"app": FIVE["oauth2"]}, {"oauth2": at(await serving(OAuth2()))}
    allow = [{"grants": ["app"], "caller": {"uid": other_user.uid}}]
    brokerd.configure(grants, providers, allow=allow, socket_mode="0666")
    await brokerd.start()
    async with other_user.connected(brokerd) as connection:

        async def served() -> str:
            values = {(await connection.call("get", grant="app"))["value"] for _ in range(TIMES)}
            assert len(values) == 1
            return str(values.pop())

        async def refused() -> str:
            return str((await connection.call("get", grant="app"))["code"])

        first = await served()
        brokerd.configure(grants, providers, socket_mode="0666")
        await brokerd.call("reload")
        assert await refused() == "unknown_grant"
        brokerd.configure(grants, providers, allow=allow, socket_mode="0666")
        await brokerd.call("reload")
        assert await served() == first
        await brokerd.call("lock")
        assert await refused() == "locked"
        await brokerd.call("unlock")
        assert await served() == first
        await brokerd.call("refresh", grant="app")
        assert await served() != first
        await brokerd.call("revoke", grant="app")
        assert await refused() == "revoked"
