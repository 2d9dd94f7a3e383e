# The audit log of a daemon that is locked, and while its keys are replaced: every line is there, and verify knows it.
from __future__ import annotations

from tests.scenario.audit.logs import brokerctl, files, lines, written
from tests.scenario.daemon.callers import User
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import OAuth2

PASSPHRASE = "test-only-correct-horse"
UNCHANGED = "unchanged since they were written"


async def configured(brokerd: Brokerd, serving: Serving, **settings: object) -> None:
    provider = await serving(OAuth2())
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(provider)}, socket_mode="0666", **settings)
    await brokerd.start()


async def test_locked_and_unlocked_and_rotated_the_log_goes_on_and_says_by_whom(
    brokerd: Brokerd, serving: Serving, other_user: User
) -> None:
    await configured(brokerd, serving)
    await brokerd.get("app")
    await brokerd.call("lock")
    assert (await brokerd.error("get", grant="app"))["code"] == "locked"
    assert (await other_user.call(brokerd, "unlock"))["code"] == "denied"
    await written(brokerd, event="get", outcome="locked")
    await written(brokerd, "denied", event="unlock")
    code, said = brokerctl(brokerd, "verify")
    assert (code, "have no seal yet: brokerd is locked" in said) == (0, True), (
        "its key is among those that were dropped"
    )
    await brokerd.call("unlock")
    code, said = brokerctl(brokerd, "verify")
    assert (code, "no seal yet" in said) == (0, False), said
    token = lines(brokerd, event="get", outcome="served")[0]["token"]
    await brokerd.call("rotate_key", full=True)
    await brokerd.get("app")
    await written(brokerd, event="rotation_ended")
    await brokerd.restart()
    await brokerd.get("app")
    assert await brokerd.stop() == 0
    code, said = brokerctl(brokerd, "verify")
    assert (code, UNCHANGED in said) == (0, True), said
    assert {each["token"] for each in lines(brokerd, event="get", outcome="served")} == {token}, "one key for all"
    for event in ("locked", "unlocked", "rotation_began", "rotation_ended"):
        assert [each["who"]["user"] for each in lines(brokerd, event=event)] == ["root"], event


async def test_lines_without_a_seal_are_a_finding_once_no_brokerd_runs_that_could_seal_them(
    brokerd: Brokerd, serving: Serving
) -> None:
    await configured(brokerd, serving)
    await brokerd.call("lock")
    await brokerd.error("get", grant="app")
    await written(brokerd, event="get", outcome="locked")
    await brokerd.kill()
    code, said = brokerctl(brokerd, "verify")
    assert (code, "are not sealed: brokerd ended while it wrote" in said) == (1, True), said


async def test_a_start_that_is_locked_is_told_as_well_and_a_cut_is_seen_when_it_is_unlocked(
    brokerd: Brokerd, serving: Serving
) -> None:
    await configured(brokerd, serving, key={"passphrase": True})
    await brokerd.call("unlock", passphrase=PASSPHRASE, new=True)
    await brokerd.get("app")
    assert await brokerd.stop() == 0
    assert brokerctl(brokerd, "verify", said=f"{PASSPHRASE}\n")[0] == 0
    code, said = brokerctl(brokerd, "verify", said="test-only-wrong-staple\n")
    assert (code, "without the key the log cannot be verified" in said) == (2, True)
    (file,) = files(brokerd)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-3]))
    await brokerd.start()
    assert (await brokerd.error("unlock", passphrase="test-only-wrong-staple"))["code"] == "denied"
    assert (await written(brokerd, event="not_unlocked"))["who"]["user"] == "root"
    await brokerd.until_unlocked(PASSPHRASE)
    assert "remembered" in await written(brokerd, event="the audit log was cut or changed")
    assert await brokerd.stop() == 0
    code, said = brokerctl(brokerd, "verify", said=f"{PASSPHRASE}\n")
    assert (code, "missing before it" in said) == (1, True), said
