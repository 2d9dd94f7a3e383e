# Law 12, the whole broker on virtual time: an answer that is not the provider's ends no grant.
from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import MockClock

from tests.scenario.laws.helpers import imported, until
from tests.scenario.laws.world import REFRESHING, world


@pytest.mark.parametrize(
    "said",
    [
        (200, b"<html>log in to our network</html>"),
        (403, b"<html>forbidden by proxy</html>"),
        (407, b""),
        (400, b""),
        (200, b'{"access_token'),
        (200, {"no": "token"}),
        (500, {"error": "invalid_grant"}),
        (302, b""),
    ],
    ids=str,
)
async def test_an_answer_that_is_not_the_providers_kills_nothing(
    autojump_clock: MockClock, tmp_path: Path, said: tuple[int, object]
) -> None:
    async with world(tmp_path, REFRESHING) as made:
        await imported(made)
        asked = len(made.provider.asked)
        made.provider.answers = [said]
        await until(lambda: len(made.provider.asked) == asked + 2)
        await until(lambda: made.broker.status("app")["state"] == "ready")
        assert made.broker.status("app")["last_error"] is None
        assert made.provider.reused == 0
