# Each failpoint once in every run of the tests; 25 rounds in CI, many more with `make torture TIMES=…`.
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.real.servers import OidcProvider, SimpleJwt
from tests.scenario.daemon.conftest import folder  # noqa: F401 - a fixture
from tests.stress.torture.daemon import POINTS
from tests.stress.torture.plan import Death, Round
from tests.stress.torture.rounds import Mortal, Torture
from tests.stress.torture.world import LIFETIME, REFRESH_LIFETIME, world

pytestmark = [pytest.mark.real, pytest.mark.slow]
GRANTS = ("op-dev-basic", "jwt-alice", "strict-login", "graceful-login")  # one for each server
TWICE = (("before-journal", "after-commit"), ("before-send", "after-answer"), ("after-send", "before-commit"))


async def test_every_grant_works_after_kill_9_at_each_point_or_says_what_mends_it(
    folder: Path,  # noqa: F811
    nursery: trio.Nursery,
    start_oidc: Callable[..., OidcProvider],
    start_simplejwt: Callable[..., SimpleJwt],
) -> None:
    lifetimes = {"access_ttl": LIFETIME, "refresh_ttl": REFRESH_LIFETIME}
    made = await world(nursery, start_oidc(**lifetimes), start_simplejwt(**lifetimes))
    made.grants = {name: made.grants[name] for name in GRANTS}
    torture = Torture(Mortal(folder / "brokerd", nursery), made)
    try:
        await torture.prepare()
        for number, points in enumerate(TWICE):
            print(await torture.play(Round(number, GRANTS, tuple(Death(point, 1, 0.0) for point in points))))
        print(torture.report())
        assert set(torture.deaths) == set(POINTS)
        assert torture.mended or torture.unmendable, "no death was at a point that hurts"
    finally:
        with trio.CancelScope(shield=True):
            await torture.brokerd.close()
        print(torture.brokerd.log[-5000:])
