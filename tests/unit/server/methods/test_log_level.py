# The level of the log while brokerd runs: who sets it sees that in the log, and it goes back by itself.
from __future__ import annotations

from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.errors import Code, Failure
from brokerd.core.events import LEVELS
from brokerd.ctl.command_table import LOG_FORMATS, LOG_LEVELS
from brokerd.edge.system.log import FORMATS
from brokerd.server.methods.log_level import LONGEST, LogLevelMethod
from brokerd.telemetry.event_log import EventLog

NOBODY = cast(Any, None)


class Output:
    """A log that has only what its level lets through."""

    def __init__(self) -> None:
        self.level = "info"
        self.lines: list[dict[str, Any]] = []

    def warning(self, _event: object, **fields: Any) -> None:
        if LEVELS.index("warning") >= LEVELS.index(self.level):
            self.lines.append(fields)


@pytest.fixture
def output() -> Output:
    return Output()


async def test_it_is_shown_and_set_and_goes_back_by_itself(output: Output, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        method = LogLevelMethod(EventLog(output, output=output), nursery)
        assert await method.log_level(NOBODY, {}) == {"level": "info", "at_start": "info", "until": None}
        found: Any = await method.log_level(NOBODY, {"level": "debug", "for": 600.0})
        assert (found["level"], found["at_start"], found["until"] is not None) == ("debug", "info", True)
        await trio.sleep(599)
        assert output.level == "debug"
        await trio.sleep(2)
        assert await method.log_level(NOBODY, {}) == {"level": "info", "at_start": "info", "until": None}


async def test_the_newest_time_counts_and_none_ends_it(output: Output, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        method = LogLevelMethod(EventLog(output, output=output), nursery)
        await method.log_level(NOBODY, {"level": "debug", "for": 10.0})
        await method.log_level(NOBODY, {"level": "warning", "for": 100.0})
        await trio.sleep(50)
        assert output.level == "warning"
        await method.log_level(NOBODY, {"level": "error"})
        await trio.sleep(500)
        assert output.level == "error"


async def test_the_log_says_where_it_becomes_short_and_where_it_becomes_long(output: Output) -> None:
    async with trio.open_nursery() as nursery:
        method = LogLevelMethod(EventLog(output, output=output), nursery)
        for level in ("error", "debug"):
            await method.log_level(NOBODY, {"level": level})
    assert output.lines == [{"before": "info", "after": "error"}, {"before": "error", "after": "debug"}]


@pytest.mark.parametrize(
    "params",
    [{"level": "loud"}, {"for": 5.0}, {"level": "info", "for": 0}, {"level": "info", "for": LONGEST + 1}],
)
async def test_what_cannot_be_set_changes_nothing(output: Output, params: dict[str, Any]) -> None:
    async with trio.open_nursery() as nursery:
        method = LogLevelMethod(EventLog(output, output=output), nursery)
        with pytest.raises(Failure) as caught:
            await method.log_level(NOBODY, params)
    assert (caught.value.code, output.level) == (Code.BAD_REQUEST, "info")


def test_brokerctl_offers_the_levels_and_forms_that_there_are() -> None:
    assert (LOG_LEVELS, LOG_FORMATS) == (LEVELS, FORMATS)
