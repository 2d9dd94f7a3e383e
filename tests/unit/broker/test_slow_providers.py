# The log learns of a provider that does not answer before the time for its answer is over, and not at every request.
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import trio
from trio.testing import MockClock

from brokerd.broker.provider import LATE, Provider
from brokerd.broker.slow_providers import AGAIN, notice_slow
from brokerd.config.settings import ProviderSettings
from brokerd.core.exchange.steps import Request
from brokerd.core.timing.breaker import Breaker
from brokerd.dialects.static import Static
from tests.scenario.laws.world import TestClock, TestEntropy


class Never:
    async def send(self, _request: Request) -> Any:
        await trio.sleep_forever()


@dataclass
class Said:
    lines: list[dict[str, Any]] = field(default_factory=list)

    def say(self, _event: object, **details: Any) -> None:
        self.lines.append(details)


async def test_a_missing_answer_is_told_once_in_ten_minutes(autojump_clock: MockClock) -> None:
    clock, said = TestClock(), Said()
    provider = Provider(ProviderSettings("idp", Static()), cast(Any, Never()), Breaker(), clock, TestEntropy())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notice_slow, lambda: [provider], clock, cast(Any, said))
        with trio.move_on_after(LATE + 2):
            await provider._send(Request("POST", "https://idp.example/token"))
        assert [line["reason"] for line in said.lines] == ["idp has not answered for 3 s"]
        assert provider.unanswered_since(clock.now()) is None, "nothing is asked any more"
        with trio.move_on_after(AGAIN * 2):
            await provider._send(Request("POST", "https://idp.example/token"))
        assert 2 <= len(said.lines) <= 3
        nursery.cancel_scope.cancel()
