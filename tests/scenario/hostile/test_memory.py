# Answers that nobody should hold in memory: what the daemon grows by, and how soon it closes the connection.
from __future__ import annotations

import pytest

from tests.scenario.daemon.harness import Brokerd, ready
from tests.scenario.hostile.conftest import Listening
from tests.scenario.hostile.faults import Row, floods
from tests.scenario.hostile.servers import Endpoint

GROWS = 12 << 20  # bytes; 1 MiB of an answer, once as pieces, once as a whole, and what JSON makes of it
TIMES = 3


def peak(brokerd: Brokerd) -> int:
    """The most memory that the daemon ever had (proc_pid_status(5), VmHWM), in bytes."""
    lines = dict(line.split(":", 1) for line in brokerd.proc("status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) << 10


@pytest.mark.parametrize("row", floods(), ids=lambda row: row.name)
async def test_a_flood_costs_little_memory_and_ends_at_the_limit(
    brokerd: Brokerd, listening: Listening, row: Row
) -> None:
    endpoint = await listening(Endpoint("idp"))
    brokerd.configure({"app": endpoint.grant()}, {"idp": endpoint.table()})
    await brokerd.start()
    await brokerd.call("import", grant="app", refresh_token=endpoint.refresh_token)
    assert await brokerd.get("app") == endpoint.access_token
    before = peak(brokerd)
    endpoint.fault = row.fault
    for number in range(TIMES):
        await brokerd.call("import", grant="app", refresh_token=endpoint.refresh_token)
        status = await brokerd.until("app", lambda status: status["failures"] > 0)
        assert row.words in status["last_error"]
        await endpoint.until(lambda: endpoint.ended == endpoint.met)
        assert endpoint.met > number
    assert peak(brokerd) - before < GROWS
    endpoint.fault = None
    await brokerd.until("app", ready)
    assert endpoint.reused == 0
