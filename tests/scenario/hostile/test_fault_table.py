# Every fault of the table against one daemon: with a living token, which goes on being served, and without one. Nothing
# is lost by any of them, and each ends by itself when the fault does (laws 3, 5, 11, 12).
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import trio

from tests.scenario.daemon.harness import Brokerd, ready
from tests.scenario.hostile.conftest import Listening
from tests.scenario.hostile.faults import LEAKED, Row, answers, connections, conversations
from tests.scenario.hostile.servers import Endpoint
from tests.servers import OAUTH2_SECRET
from tests.unit.edge.http.fixtures import server_tls

ROWS = answers() + conversations() + connections()
# Seconds. A renewal, after two thirds of it, must not be due before the faults are over: a stalled handshake takes
# ten, and a busy machine as long again.
LIFETIME = 45


async def configured(
    brokerd: Brokerd, listening: Listening, authority: Path, rows: Sequence[Row]
) -> list[tuple[Row, Endpoint]]:
    """A provider and a grant for each row, the grant with its first refresh token; the daemon runs."""
    tls, behind = server_tls("127.0.0.1"), server_tls("idp.example")
    pairs, tables = [], {}
    for row in rows:
        secure = {"plain": None, "tls": tls, "proxy": behind}[row.way]
        endpoint = await listening(Endpoint(row.name, tls=secure, proxy=row.way == "proxy"))
        endpoint.fields["expires_in"] = LIFETIME
        pairs.append((row, endpoint))
        tables[row.name] = endpoint.table(**({"ca_file": authority} if secure else {}))
    brokerd.configure({row.name: endpoint.grant() for row, endpoint in pairs}, tables)
    await brokerd.start()
    return pairs


def assert_says(row: Row, status: dict[str, object]) -> None:
    assert status["state"] == "retrying", (row.name, status)
    assert row.words in str(status["last_error"]), (row.name, status)
    assert (status["interrupted"] is not None) == row.touched, (row.name, status)


def assert_kept_secret(brokerd: Brokerd, pairs: Sequence[tuple[Row, Endpoint]]) -> None:
    secrets = [OAUTH2_SECRET, LEAKED.decode()]
    for _, endpoint in pairs:
        secrets += [endpoint.secret(kind, n) for kind in ("refresh", "access") for n in range(endpoint.renewed + 1)]
    assert [secret for secret in secrets if secret in brokerd.log] == []


async def test_the_living_token_is_served_through_every_fault_and_the_refresh_token_outlives_it(
    brokerd: Brokerd, listening: Listening, authority: Path
) -> None:
    pairs = await configured(brokerd, listening, authority, ROWS)

    async def meet(row: Row, endpoint: Endpoint) -> None:
        name = row.name
        async with brokerd.caller() as caller, brokerd.caller() as other:
            await caller.call("import", grant=name, refresh_token=endpoint.refresh_token)
            before = (await caller.call("get", grant=name))["value"]
            assert before == endpoint.access_token
            endpoint.fault = row.fault
            number = await other.send("refresh", grant=name, wait=30)
            await endpoint.until(lambda: endpoint.met > 0)
            assert (await caller.call("get", grant=name, wait=0))["value"] == before
            error, _ = await other.answer(number)
            assert error is not None
            assert error["code"] == "unavailable", (name, error)
            assert row.words in error["message"], (name, error)
            assert_says(row, await brokerd.until(name, lambda status: status["state"] == "retrying"))
            assert (await caller.call("get", grant=name, wait=0))["value"] == before
            await endpoint.until(lambda: endpoint.ended == endpoint.met)
            endpoint.fault = None
            status = await brokerd.until(name, ready, LIFETIME)
            assert (status["failures"], status["interrupted"], status["last_error"]) == (0, None, None), name
            assert (await caller.call("get", grant=name, wait=0))["value"] == endpoint.access_token != before
        assert (endpoint.renewed, endpoint.reused) == (2, 0), name

    async with trio.open_nursery() as nursery:
        for row, endpoint in pairs:
            nursery.start_soon(meet, row, endpoint)
    assert_kept_secret(brokerd, pairs)


async def test_a_grant_without_a_token_comes_through_every_fault_by_itself(
    brokerd: Brokerd, listening: Listening, authority: Path
) -> None:
    quick = [row for row in ROWS if not row.name.endswith("-stalls")]
    pairs = await configured(brokerd, listening, authority, quick)

    async def meet(row: Row, endpoint: Endpoint) -> None:
        endpoint.fault = row.fault
        await brokerd.call("import", grant=row.name, refresh_token=endpoint.refresh_token)
        assert_says(row, await brokerd.until(row.name, lambda status: status["state"] == "retrying"))
        endpoint.fault = None
        status = await brokerd.until(row.name, ready)
        assert (status["failures"], status["interrupted"], status["last_error"]) == (0, None, None)
        assert (endpoint.renewed, endpoint.reused) == (1, 0), row.name
        assert await brokerd.get(row.name, wait=0) == endpoint.access_token

    async with trio.open_nursery() as nursery:
        for row, endpoint in pairs:
            nursery.start_soon(meet, row, endpoint)
    assert_kept_secret(brokerd, pairs)


def test_each_fault_has_a_name_of_its_own() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 60
