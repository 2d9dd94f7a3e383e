# The real daemon's audit log: what leaves a line, what is in it and what never is, kill -9, floods, and a cut.
from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable

from tests.scenario.audit.logs import brokerctl, files, lines, written
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import FIVE, IMPORTED, Brokerd, Serving, at
from tests.servers import OAUTH2_CLIENT, OAUTH2_USER, OAuth2

UNCHANGED = "unchanged since they were written"


async def started(brokerd: Brokerd, serving: Serving, **settings: object) -> OAuth2:
    provider = await serving(OAuth2())
    grants = {"app": FIVE["oauth2-password"], "given": IMPORTED}
    brokerd.configure(grants, {"oauth2": at(provider)}, socket_mode="0666", **settings)
    await brokerd.start()
    return provider


def assert_without(brokerd: Brokerd, secrets: Iterable[str]) -> None:
    content = b"".join(path.read_bytes() for path in (*files(brokerd), *files(brokerd, "denied")))
    assert [secret for secret in secrets if secret.encode() in content] == []


async def test_whatever_happens_to_tokens_leaves_a_line_with_who_and_never_a_token(
    brokerd: Brokerd, serving: Serving
) -> None:
    provider = await started(brokerd, serving)
    values = [await brokerd.get("app") for _ in range(3)]
    await brokerd.call("refresh", grant="app")
    values.append(await brokerd.get("app"))
    given = provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read",)).value
    await brokerd.error("get", grant="given")
    await brokerd.call("import", grant="given", refresh_token=given)
    await brokerd.call("reload")
    await brokerd.call("revoke", grant="app")
    await brokerd.error("refresh", grant="app")
    await brokerd.error("forget", grant="app")
    assert await brokerd.stop() == 0
    assert_without(brokerd, [*values, given])
    first, renewed = lines(brokerd, event="renewed", grant="app")
    assert re.fullmatch(r"[0-9a-f]{16}", first["token"])
    assert [("who" in each, each["operation"]) for each in (first, renewed)] == [(False, "issue"), (True, "renew")]
    told, again = lines(brokerd, event="get", grant="app", token=first["token"])
    assert (told["outcome"], told["who"]["uid"], "count" in told) == ("served", 0, False)
    assert told["allowed_by"] == "root"
    assert (again["count"], told["time"] <= again["first"] <= again["last"] <= again["time"]) == (2, True)
    assert len(lines(brokerd, event="get", grant="app", token=renewed["token"])) == 1
    assert lines(brokerd, event="get", grant="given")[0]["outcome"] == "needs_login"
    for event, about in {
        "imported": {"grant": "given"},
        "reloaded": {},
        "revoked": {"grant": "app", "stored": True},
        "refresh": {"grant": "app", "outcome": "revoked"},
        "forget": {"grant": "app", "outcome": "bad_request"},
    }.items():
        found = lines(brokerd, event=event, **about)
        assert [each["who"]["user"] for each in found] == ["root"], event
    assert [bool(lines(brokerd, event=event)) for event in ("starting", "ready", "stopped")] == [True] * 3
    assert brokerctl(brokerd, "verify") == (0, f"{counted(brokerd)}: {UNCHANGED}\n")


def counted(brokerd: Brokerd) -> str:
    return f"{len(lines(brokerd))} lines in audit, {len(lines(brokerd, 'denied'))} lines in denied"


async def test_denials_and_bad_input_are_apart_and_a_flood_of_them_is_counted(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    await started(brokerd, serving)
    async with other_user.connected(brokerd) as caller:
        for _ in range(3):
            assert (await caller.call("get", grant="app"))["code"] == "unknown_grant"
        for number in range(100):
            await caller.call("get", grant=f"made-up-{number}\n")
    async with brokerd.caller() as connection:
        await connection.stream.send_all(b"\xc1")
        await connection.closed()
    assert await brokerd.stop() == 0
    denied = lines(brokerd, "denied", event="get", outcome="denied")
    first, again = (each for each in denied if each.get("grant") == "app")
    assert (first["reason"], first["who"]["uid"], again["count"]) == (
        "no rule allows this caller the action get",
        other_user.uid,
        2,
    )
    assert "made-up-0\\n" in [each.get("grant") for each in denied]
    various = [each for each in denied if each.get("various")]
    assert len(denied) <= 64 + 3
    assert (various[0]["who"], "grant" in various[0]) == ({"uid": other_user.uid}, False)
    assert sum(each.get("count", 1) for each in denied) == 103
    assert lines(brokerd, "denied", event="bad_input", outcome="rejected")
    assert not [each for each in lines(brokerd) if each.get("outcome") in ("denied", "rejected")]
    assert brokerctl(brokerd, "verify")[0] == 0


async def test_after_kill_9_the_chain_goes_on(brokerd: Brokerd, serving: Serving) -> None:
    await started(brokerd, serving)
    await brokerd.get("app")
    await written(brokerd, event="get", grant="app")
    await brokerd.restart()
    assert len(lines(brokerd, event="starting")) == 2
    assert len(files(brokerd)) == 1
    assert brokerctl(brokerd, "verify")[0] == 0, "while it runs"


async def test_what_was_answered_is_in_the_log_and_sealed_also_if_brokerd_is_killed_right_after(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    await started(brokerd, serving)
    await brokerd.get("app")
    assert (await other_user.call(brokerd, "lock"))["code"] == "denied"
    await brokerd.call("rotate_key", full=True)
    await brokerd.call("revoke", grant="app")
    await brokerd.kill()
    assert brokerctl(brokerd, "verify")[0] == 0
    assert [each["who"]["uid"] for each in lines(brokerd, event="revoked", grant="app")] == [0]
    assert [each["who"]["uid"] for each in lines(brokerd, "denied", event="lock")] == [other_user.uid]
    assert len(lines(brokerd, event="rotation_ended")) == 1


async def test_verify_beside_a_running_brokerd_sees_everything_up_to_now_and_what_others_appended(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    await started(brokerd, serving)
    await brokerd.get("app")
    assert brokerctl(brokerd, "verify")[0] == 0
    assert len(lines(brokerd, event="get", grant="app")) == 1, "it was written for verify, and not with the next group"
    assert await brokerd.call("seal_audit") == {"sealed": True, "reason": None}
    assert (await other_user.call(brokerd, "seal_audit"))["code"] == "denied"
    code, said = brokerctl(brokerd, "verify")
    assert code == 0, said
    (file,) = files(brokerd)
    with file.open("ab") as log:
        log.write(file.read_bytes().splitlines(keepends=True)[-2])
    code, said = brokerctl(brokerd, "verify")
    assert (code, "the last 1 lines are not sealed" in said) == (1, True), said


async def test_a_cut_is_noticed_at_the_start_and_by_verify(brokerd: Brokerd, serving: Serving) -> None:
    await started(brokerd, serving)
    await brokerd.get("app")
    assert await brokerd.stop() == 0
    (file,) = files(brokerd)
    whole = file.read_bytes().splitlines(keepends=True)
    seals = [number for number, line in enumerate(whole, 1) if b'"event":"seal"' in line]
    file.write_bytes(b"".join(whole[: seals[0]]))
    code, said = brokerctl(brokerd, "verify")
    assert code == 1
    assert f"the end was cut: the store remembers line {len(whole)}, the log ends with {seals[0]}" in said.replace(
        "line number", "line"
    )
    await brokerd.start()
    assert (await written(brokerd, event="the audit log was cut or changed"))["remembered"] == len(whole)
    code, said = brokerctl(brokerd, "verify")
    assert code == 1
    assert f"missing before it: lines number {seals[0] + 1} to {len(whole)}" in said
    assert await brokerd.stop() == 0
    with contextlib.closing(sqlite3.connect(brokerd.state / "brokerd.db")) as database, database:
        database.execute("DELETE FROM meta WHERE key = 'audit_heads'")
    assert "what the store remembers of it was removed" in brokerctl(brokerd, "verify")[1]


async def test_what_is_renewed_by_itself_is_told_and_a_log_that_is_off_is_none(
    brokerd: Brokerd, serving: Serving
) -> None:
    await started(brokerd, serving, audit="off")
    await brokerd.get("app")
    assert await brokerd.stop() == 0
    assert not (brokerd.state / "audit").exists()
    code, said = brokerctl(brokerd, "verify")
    assert (code, "there is no audit log in" in said) == (2, True)


async def test_tail_shows_people_the_newest_that_they_want(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    await started(brokerd, serving)
    await brokerd.get("app")
    await other_user.call(brokerd, "get", grant="app")
    await brokerd.error("get", grant="given")
    await brokerd.stop()
    for arguments, shown in {
        ("-n", "1"): ["stopped"],
        ("-n", "0"): [],
        ("--grant", "app"): ["issued", "served", "denied"],
        ("--grant", "given"): ["needs_login"],
        ("--caller", str(other_user.uid)): ["denied"],
        ("--caller", "root"): ["served", "needs_login"],
        ("--caller", "nobody-here"): [],
        ("--json", "--caller", str(other_user.uid)): ['"outcome": "denied"'],
    }.items():
        code, said = brokerctl(brokerd, "tail", *arguments)
        assert code == 0, arguments
        assert [word in line for word, line in zip(shown, said.splitlines(), strict=True)] == [True] * len(shown)
