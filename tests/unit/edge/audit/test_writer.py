# The audit writer without a daemon: groups, counts and marks, and when each line is written; on virtual time.
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from brokerd.core.access.policy import Caller
from brokerd.core.audit.chain import Head, Memory
from brokerd.core.audit.deduplication import CLIENTS
from brokerd.core.audit.findings import KINDS, AuditFinding
from brokerd.core.errors import Code, Failure
from brokerd.core.events import Event
from brokerd.core.grant.tokens import AccessToken
from brokerd.core.ports import StoreUnavailable
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.edge.audit.writer import LINES, SETTLED, AuditWriter
from brokerd.telemetry.event_log import EventLog, acting

PORTAL = Caller(pid=7, uid=1000, gids=frozenset({1000}), user="portal")


class Remembering:
    """The store, which may be away."""

    def __init__(self) -> None:
        self.heads: list[Mapping[str, Head]] = []
        self.broken = False

    async def __call__(self, heads: Mapping[str, Head]) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise StoreUnavailable("the disk is away")
        self.heads.append(dict(heads))


async def at_once(work: Callable[[], None]) -> None:
    await trio.lowlevel.checkpoint()
    work()


def made(folder: Path, remember: Remembering | None = None) -> AuditWriter:
    return AuditWriter(folder / "audit", Memory(b"k" * 32, {}), 1024 * 1024, remember or Remembering(), at_once)


def token(value: str) -> AccessToken:
    return AccessToken(Secret(value), "Bearer", Moment(0.0, 0.0, "boot"), 60.0, 0.5)


def lines(folder: Path, series: str = "audit") -> list[dict[str, Any]]:
    content = (folder / "audit" / f"{series}-0001.jsonl").read_bytes().splitlines()
    return [each for each in map(json.loads, content) if each["event"] not in ("seal", "file begins")]


async def test_fetches_are_counted_by_caller_grant_and_token(tmp_path: Path) -> None:
    writer = made(tmp_path)
    audit = EventLog(audit=writer)
    one, other = token("test-only-1"), token("test-only-2")
    twin = Caller(pid=7, uid=1000, gids=frozenset({1000}), user="portal")  # another connection of the same process
    for _ in range(3):
        audit.fetched("app", PORTAL, one, lambda *_: "allow[0]")
        audit.fetched("app", twin, one, lambda *_: "allow[0]")
    audit.fetched("app", PORTAL, other, lambda *_: "allow[0]")
    audit.fetched("app", PORTAL, other, lambda *_: "allow[0]", "watch")
    await writer.write(everything=True)
    found = [(each["event"], each.get("count", 1), each["allowed_by"]) for each in lines(tmp_path)]
    assert found == [("get", 1, "allow[0]"), ("get", 1, "allow[0]"), ("watch", 1, "allow[0]"), ("get", 5, "allow[0]")]
    assert len({each["token"] for each in lines(tmp_path)}) == 2
    assert "test-only" not in (tmp_path / "audit" / "audit-0001.jsonl").read_text()


async def test_each_new_token_has_a_line_and_what_fails_alike_is_counted(tmp_path: Path) -> None:
    writer = made(tmp_path)
    audit, now = EventLog(audit=writer), Moment(0.0, 0.0, "boot")
    same = token("t1")  # a provider may send the same token again
    for _ in range(3):
        audit.exchanged("app", "corp", "renew", "issued", now=now, token=same, state="ready")
        audit.exchanged("app", "corp", "renew", "postponed", now=now, state="retrying", reason="503")
    await writer.write(everything=True)
    said = [(line["event"], line.get("count")) for line in lines(tmp_path)]
    assert said == [
        ("renewed", None),
        ("renewal_failed", None),
        ("renewed", None),
        ("renewed", None),
        ("renewal_failed", 2),
    ]


async def test_one_users_flood_has_few_lines_and_pushes_nobody_else_out(tmp_path: Path) -> None:
    writer = made(tmp_path)
    audit = EventLog(audit=writer)
    for number in range(1_000):
        audit.denied("get", f"made-up-{number}", PORTAL, "no rule allows get")
    audit.denied("get", "app", Caller(8, 2000, frozenset({2000})), "no rule allows get")
    await writer.write(everything=True)
    found = lines(tmp_path, "denied")
    assert len(found) == LINES["denied"] + 1 + 1 + 1
    assert sum(each.get("count", 1) for each in found) == 1_001
    assert [each["grant"] for each in found if each["who"]["uid"] == 2000] == ["app"]


async def test_whoever_a_task_acts_for_is_named_in_what_it_says(tmp_path: Path) -> None:
    writer = made(tmp_path)
    audit = EventLog(audit=writer)

    async def for_portal() -> None:
        acting.set(PORTAL)
        async with trio.open_nursery() as inner:
            inner.start_soon(renew)

    async def renew() -> None:
        now = Moment(1e9, 1.0, "boot")
        audit.exchanged("app", "corp", "renew", "issued", now=now, token=token("test-only-1"), generation=2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(for_portal)
    audit.say(Event.READY)
    await writer.write()
    renewed, ready = lines(tmp_path)
    assert (renewed["who"]["user"], renewed["generation"], len(renewed["token"])) == ("portal", 2, 16)
    assert "who" not in ready


async def test_groups_are_at_least_a_second_apart_and_the_store_is_told_every_ten(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    remember = Remembering()
    writer = made(tmp_path, remember)
    seals = lambda: (tmp_path / "audit" / "audit-0001.jsonl").read_text().count('"seal"')  # noqa: E731
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        for number in range(200):
            writer.note("audit", {"event": f"event {number}"})
            await trio.sleep(0.1)
        await trio.sleep(2)
        assert seals() <= 22
        assert len(lines(tmp_path)) == 200
        assert 2 <= len(remember.heads) <= 3
        remember.broken = True
        writer.note("audit", {"event": "while the store is away"})
        await trio.sleep(30)
        remember.broken = False
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    assert remember.heads[-1]["audit"].seq == 1 + 201 + seals()


async def test_what_must_not_be_lost_is_sealed_when_it_has_settled_and_each_has_its_line(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    writer = made(tmp_path)
    audit = EventLog(audit=writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        audit.say(Event.RELOADED)
        await trio.sleep(0.1)
        began = trio.current_time()
        for number in range(1, 4):  # each within the second of the group before
            audit.say_now(Event.REVOKED, grant="app")
            await audit.settled()
            assert [each["event"] for each in lines(tmp_path)] == ["reloaded", *["revoked"] * number]
        audit.say(Event.UNLOCKED)
        assert await audit.sealed() is None
        assert lines(tmp_path)[-1]["event"] == "unlocked"
        await audit.settled()
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()
    assert (tmp_path / "audit" / "audit-0001.jsonl").read_bytes().splitlines()[-1].count(b'"seal"') == 1


async def test_nobody_waits_long_for_a_disk_that_does_not_answer(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def never(_work: Callable[[], None]) -> None:
        await trio.sleep(1000)

    writer = AuditWriter(tmp_path / "audit", Memory(b"k" * 32, {}), 1024 * 1024, Remembering(), never)
    audit = EventLog(audit=writer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run)
        audit.say_now(Event.REVOKED, grant="app")
        began = trio.current_time()
        await audit.settled()
        assert trio.current_time() - began == pytest.approx(SETTLED)
        assert await audit.sealed() == f"the disk did not answer within {SETTLED:g} s"
        nursery.cancel_scope.cancel()


async def test_what_no_disk_takes_waits_and_what_is_too_much_is_counted(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("brokerd.edge.audit.writer.WAITING", 10)
    writer = made(tmp_path)
    changes: list[str | None] = []
    writer.noticed = lambda: changes.append(writer.trouble)
    said: list[object] = []
    writer.finding = lambda entry: said.append((KINDS[entry["event"]], entry["count"]))  # type: ignore[index]
    (tmp_path / "audit").touch()
    for number in range(15):
        writer.note("audit", {"event": f"event {number}"})
        await writer.write()
    assert writer.trouble is not None
    assert writer.since is not None
    (tmp_path / "audit").unlink()
    await writer.write()
    assert (writer.trouble, writer.since, len(changes)) == (None, None, 2)
    assert [each["event"] for each in lines(tmp_path)][:10] == [f"event {number}" for number in range(10)]
    assert [each.get("count", 0) for each in lines(tmp_path)][10:] == [5], "one line, however long it took"
    assert said == [(AuditFinding.LOST, 5)]


async def test_a_client_of_a_proxy_hides_neither_other_clients_nor_what_the_proxy_asks_for(
    tmp_path: Path,
) -> None:
    writer = made(tmp_path)
    audit, proxy = EventLog(audit=writer), Caller(pid=9, uid=990, gids=frozenset({990}), user="brokerd-proxy")

    def forwarded(uid: int, path: str) -> None:
        audit.proxied("app", proxy, {"uid": uid}, {"method": "GET", "path": path, "requests": 1})

    for number in range(4 * LINES["audit"]):
        forwarded(1001, f"/{number}")
    forwarded(1002, "/quiet")
    audit.fetched("app", proxy, token("test-only-1"), lambda *_: "rule 1")
    await writer.write()
    found = lines(tmp_path)
    (quiet,) = (each for each in found if each.get("client") == {"uid": 1002})
    assert quiet["path"] == "/quiet"
    (got,) = (each for each in found if each["event"] == "get")
    assert got["allowed_by"] == "rule 1"
    loud = [each for each in found if each.get("client") == {"uid": 1001}]
    assert len(loud) <= LINES["audit"] + 2
    assert loud[-1]["various"]
    assert loud[-1]["who"] == {"uid": 990}


async def test_a_caller_that_invents_clients_fills_no_log(tmp_path: Path) -> None:
    writer = made(tmp_path)
    audit = EventLog(audit=writer)
    for number in range(20_000):
        use = {"method": "GET", "path": f"/{number}", "requests": 1}
        audit.proxied("app", PORTAL, {"uid": number % 1_000}, use)
    await writer.write()
    assert len(lines(tmp_path)) <= (CLIENTS + 1) * (LINES["audit"] + 2)


async def test_whatever_a_caller_makes_up_he_has_so_many_lines_a_minute(tmp_path: Path) -> None:
    writer = made(tmp_path)
    audit = EventLog(audit=writer)
    for number in range(4 * LINES["audit"]):  # as min_ttl and the names of downscoped tokens can be anything
        with suppress(Failure), audit.failures_of("get", "app", PORTAL):
            raise Failure(Code.BAD_REQUEST, f"min_ttl: expected at most 1800 s, found {number}")
    audit.fetched("app", PORTAL, token("test-only-1"), lambda *_: "rule 1")
    for number in range(4 * LINES["audit"]):  # as the names of grants can be while it is locked
        with suppress(Failure), audit.failures_of("get", f"made-up-{number}", PORTAL):
            raise Failure(Code.UNAVAILABLE, "brokerd is locked")
    await writer.write()
    found = lines(tmp_path)
    assert len(found) <= 2 * LINES["audit"] + 2
    assert [each["grant"] for each in found if each["outcome"] == "served"] == ["app"]
    assert found[LINES["audit"]]["various"]
    assert {each["who"]["uid"] for each in found} == {PORTAL.uid}
