# What the log says of hours in which a provider is down or refuses everybody: the whole broker on virtual time, its
# lines counted.
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from brokerd.core.ports import TransportError
from tests.scenario.laws.helpers import until
from tests.scenario.laws.world import PROVIDER, ModelProvider, TestClock, world

HOURS = 4  # tests/unit/telemetry/test_event_log.py has a whole day
NUMBER = 20
GRANTS = PROVIDER + "".join(
    f"""
[grants.g{number}]
provider = "idp"
grant_type = "client_credentials"
credentials = {{ client_id = "c{number}", client_secret = "test-only-secret" }}
"""
    for number in range(NUMBER)
)


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What is logged from the level info on."""
    written = list[dict[str, Any]]()

    def write(_logger: Any, method: str, event: dict[str, Any]) -> str:
        if method != "debug":
            written.append(event)
        raise structlog.DropEvent

    structlog.configure(processors=[write])
    yield written
    structlog.reset_defaults()


async def test_a_provider_that_is_down_for_hours_is_a_handful_of_lines(
    autojump_clock: MockClock, tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    provider = ModelProvider(TestClock())
    provider.answers = [TransportError("connection refused", sent=False)] * 100_000
    async with world(tmp_path, GRANTS, provider=provider) as made:
        await trio.sleep(HOURS * 3_600)
        assert len(provider.asked) > 40, "brokerd has gone on trying"
        said = Counter(str(each["event"]) for each in lines)
        assert said["provider_down"] == 1
        assert said["renewal_failed"] < 10, "only those from before it was known that the provider is down"
        assert sum(said.values()) < 12
        down = next(each for each in lines if each["event"] == "provider_down")
        assert (down["grants"], down["reason"]) == (NUMBER, "connection refused")
        assert lines[-1]["event"] == "provider_still_down"
        assert lines[-1]["failing_for"].endswith((" h", " min"))
        lines.clear()
        provider.answers = []
        await until(lambda: all(made.broker.cached(name) for name in made.broker.grants), 900)
    (up,) = [each for each in lines if each["event"] == "provider_up"]
    assert (up["failing_for"], lines.index(up)) == (f"{HOURS} h", 0)
    assert up["tries"] > 40
    assert Counter(str(each["event"]) for each in lines)["renewed"] == NUMBER


async def test_a_provider_that_refuses_every_client_is_one_line_for_each_grant_and_then_few(
    autojump_clock: MockClock, tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    provider = ModelProvider(TestClock())
    provider.answers = [(401, {"error": "invalid_client"})] * 100_000
    async with world(tmp_path, GRANTS[: GRANTS.index("[grants.g5]")], provider=provider):
        await trio.sleep(HOURS * 3_600)
    said = Counter(str(each["event"]) for each in lines)
    assert len(provider.asked) > 25
    assert said["renewal_failed"] == 5
    assert said["still_failing"] < 10
    assert next(each for each in reversed(lines) if each["event"] == "still_failing")["grants"] == 5
