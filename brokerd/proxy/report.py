# Tells brokerd what clients did through the proxies, for its audit log and its metrics: a new kind of request within
# seconds, one that goes on once a minute, and everything at the end.
from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import Any

import trio
from brokerd_client import BrokerError
from brokerd_client.on_trio import Broker

from brokerd.proxy.usage import Count, Usage, Used

LOOK = 2.0  # seconds between two looks whether there is something to tell
MOST = 32  # kinds of requests in one report: half of what the protocol allows, so that it is no longer than a request
LAST_WITHIN = 5.0  # seconds that the last report may take


class Reporter:
    def __init__(self, broker: Broker, usage: Usage) -> None:
        self._broker = broker
        self._usage = usage

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await trio.sleep(LOOK)
            await self.report(trio.current_time())

    async def last(self) -> None:
        """The process ends."""
        with trio.move_on_after(LAST_WITHIN):
            await self.report(float("inf"))

    async def report(self, now: float) -> None:
        """What cannot be told now is told later."""
        reports = list(_reports(self._usage.due(now)))
        try:
            while reports:
                await self._broker.call("proxied", **reports[0][0])
                reports.pop(0)
        except BrokerError:
            pass
        finally:
            self._usage.give_back(pair for _, some in reports for pair in some)


def _reports(pairs: Iterable[tuple[Used, Count]]) -> Iterator[tuple[dict[str, Any], list[tuple[Used, Count]]]]:
    """One report for each token, with at most MOST kinds."""
    for source, group in groupby(sorted(pairs, key=lambda pair: repr(pair[0].source)), lambda pair: pair[0].source):
        while some := list(islice(group, MOST)):
            scope = None if source.scope is None else list(source.scope)
            target = {"scope": scope, "audience": source.audience, "resource": source.resource}
            params = {name: value for name, value in target.items() if value is not None}
            yield {"grant": source.grant, "uses": [_row(*pair) for pair in some], **params}, some


def _row(use: Used, count: Count) -> dict[str, object]:
    said: dict[str, object] = {"proxy": use.proxy, "method": use.method, "path": use.path, "status": use.status}
    said |= {"requests": count.requests, "up": count.up, "down": count.down, "first": count.first, "last": count.last}
    return said | {name: value for name, value in use.who._asdict().items() if value is not None}
