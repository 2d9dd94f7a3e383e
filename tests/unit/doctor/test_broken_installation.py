# One thing is broken in an installation: doctor finds exactly that and says how to fix it.
from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable

import pytest
import trio

from brokerd import doctor
from brokerd.doctor import socket as listening
from brokerd.doctor.finding import Finding
from brokerd.edge.store import key_file
from tests.scenario.daemon.harness import CLIENT, Brokerd
from tests.unit.client.daemon import Daemon
from tests.unit.doctor.look import findings, troubles
from tests.unit.edge.http.servers import OK, Peer, always_ok, serving

PROVIDER = {"dialect": "oauth2", "token_url": "http://127.0.0.1:1/token"}
NO_DAEMON = ("socket", "there is no socket at {run}/brokerd.sock", "brokerd --config {etc}/brokerd.toml")
Break = Callable[[Brokerd], object]


def grant(secret: object) -> dict[str, object]:
    credentials = {**CLIENT, "client_secret": secret}
    return {"provider": "corp", "grant_type": "client_credentials", "credentials": credentials}


def whole(brokerd: Brokerd) -> None:
    secret = brokerd.write("test-only-secret", "secret")
    brokerd.configure({"app": grant({"file": secret})}, {"corp": PROVIDER})
    brokerd.state.mkdir(mode=0o700)


RULE = '[[allow]]\ngrants = ["app"]\ncaller = { user = "test-only-nobody" }'


def says(text: str) -> Break:
    return lambda brokerd: brokerd.config.write_text(f"{brokerd.config.read_text()}\n{text}\n")


def to(mode: int, path: str) -> Break:
    return lambda brokerd: (brokerd.folder / path).chmod(mode)


def holds(text: str, path: str) -> Break:
    return lambda brokerd: (brokerd.folder / path).write_text(text)


def without(path: str) -> Break:
    return lambda brokerd: (brokerd.folder / path).unlink()


def rubbish(brokerd: Brokerd) -> None:
    store = brokerd.state / "brokerd.db"
    store.touch(0o600)
    store.write_bytes(os.urandom(8192))


def proxied(brokerd: Brokerd) -> None:
    proxy = "socks5://test-only-user:test-only-password@127.0.0.1"
    brokerd.configure({}, {"corp": {**PROVIDER, "proxy": proxy}})


@pytest.mark.parametrize(
    ("spoil", "check", "found", "remedy"),
    [
        pytest.param(
            without("etc/brokerd.toml"),
            "configuration",
            "there is no such file",
            "name another with --config",
            id="no file",
        ),
        (says("[grants.half"), "configuration", "this is not TOML", "--check"),
        (says("[deamon]"), "configuration", "deamon: unknown table", "known: [daemon]"),
        (proxied, "configuration", "or socks, which are not supported", "--check"),
        (says(RULE), "rules", "allow[0].caller: there is no user test-only-nobody", "--check"),
        (says(RULE.replace("test-only-nobody", "nobody")), "rules", "the user nobody is 65534", "a user of its own"),
        (says(RULE.replace("user", "group")), "rules", "there is no group test-only-nobody", "--check"),
        pytest.param(
            without("etc/secret"),
            "secrets",
            "client_secret: {etc}/secret: No such file",
            "write the secret there",
            id="no secret",
        ),
        pytest.param(
            holds("", "etc/secret"), "secrets", "{etc}/secret is empty", "write the secret there", id="empty secret"
        ),
        pytest.param(
            holds("\ufefftest-only \n", "etc/secret"),
            "secrets",
            "client_secret: {etc}/secret has a byte order mark (BOM) at its beginning and a blank at its end",
            "remove it, unless it belongs to the secret",
            id="doubtful secret",
        ),
        pytest.param(
            to(0o644, "etc/secret"),
            "secrets",
            "can be opened by everybody",
            "chmod o-rwx {etc}/secret",
            id="open secret",
        ),
        pytest.param(
            to(0o755, "state"), "permissions", "{state} can be opened by others", "chmod 700 {state}", id="open state"
        ),
        pytest.param(
            lambda brokerd: brokerd.state.rmdir(),
            "permissions",
            "{state} does not exist yet",
            "start brokerd, which creates it: brokerd --config {etc}/brokerd.toml",
            id="no state",
        ),
        pytest.param(
            without("etc/key"), "key", "there is no key at {etc}/key", "brokerctl keygen {etc}/key", id="no key"
        ),
        pytest.param(
            holds("password", "etc/key"), "key", "expected one line", "brokerctl keygen FILE", id="no key in it"
        ),
        (rubbish, "key", "brokerd.db cannot be read", "restore a copy"),
        pytest.param(
            lambda brokerd: (brokerd.state / "brokerd.db").mkdir(0o700),
            "key",
            "{state}/brokerd.db: Is a directory",
            "ls -ld {state}/brokerd.db",
            id="a folder for a store",
        ),
    ],
)
async def test_what_is_broken_is_found_and_nothing_else(
    brokerd: Brokerd, spoil: Break, check: str, found: str, remedy: str
) -> None:
    whole(brokerd)
    before = await troubles(brokerd, offline=True)
    spoil(brokerd)
    places = {"etc": str(brokerd.etc), "state": str(brokerd.state), "run": str(brokerd.socket.parent)}
    after = await troubles(brokerd, offline=True)
    new = [
        each for each in after if each not in before and each.check != "disk"
    ]  # a tmpfs, if the tests' folder is one
    assert [each.check for each in new] == [check], new
    assert found.format(**places) in new[0].found
    assert remedy.format(**places) in (new[0].remedy or "")


async def restarted_with_another_key(brokerd: Brokerd) -> None:
    await brokerd.stop()
    brokerd.key.unlink()
    key_file.create(brokerd.key)


async def killed(brokerd: Brokerd) -> None:
    await brokerd.kill()


async def locked(brokerd: Brokerd) -> None:
    await brokerd.call("lock")


async def moved_away(brokerd: Brokerd) -> None:
    brokerd.socket.unlink()


async def no_socket_any_more(brokerd: Brokerd) -> None:
    brokerd.socket.unlink()
    brokerd.socket.touch()


async def open_to_all(brokerd: Brokerd) -> None:
    brokerd.socket.parent.chmod(0o777)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            restarted_with_another_key,
            [("key", "the store was sealed with another key", "[daemon] key"), NO_DAEMON],
        ),
        (killed, [("socket", "nothing listens at {run}/brokerd.sock: Connection refused", NO_DAEMON[2])]),
        (locked, [("daemon", "brokerd is locked", "brokerctl unlock")]),
        (moved_away, [NO_DAEMON]),
        (no_socket_any_more, [("socket", "{run}/brokerd.sock is not a socket", "--socket PATH, or [daemon] socket")]),
        (open_to_all, [("socket", "{run} can be written by others", "chmod go-w {run}")]),
    ],
)
async def test_a_daemon_that_serves_and_then_does_not(
    brokerd: Brokerd, spoil: Callable[[Brokerd], Awaitable[None]], expected: list[tuple[str, str, str]]
) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    told = await findings(brokerd)
    assert {"key", "socket", "daemon", "user"} <= {each.check for each in told}
    assert next(each for each in told if each.check == "key").found == f"it opens the store in {brokerd.state}"
    before = {each.check for each in told if each.level != "ok"}
    await spoil(brokerd)
    places = {"etc": str(brokerd.etc), "state": str(brokerd.state), "run": str(brokerd.socket.parent)}
    new = [each for each in await troubles(brokerd) if each.check not in before]
    assert [each.check for each in new] == [check for check, _, _ in expected]
    for each, (_, found, remedy) in zip(new, expected, strict=True):
        assert found.format(**places) in each.found
        assert remedy.format(**places) in (each.remedy or "")


async def test_a_caller_who_names_a_socket_alone_needs_no_configuration(
    brokerd: Brokerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may have none: the daemon's is in its container, or in its user's home."""
    whole(brokerd)
    await brokerd.start()
    away = str(brokerd.folder / "nowhere" / "brokerd.toml")
    monkeypatch.setattr("brokerd.doctor.files.DEFAULT_CONFIG", away)
    monkeypatch.setenv("BROKERD_SOCKET", str(brokerd.socket))
    found: list[Finding] = []
    await doctor.examine(away, None, found.append, offline=True)
    (said,) = (each for each in found if each.check == "configuration")
    assert (said.level, "--config FILE" in str(said.remedy)) == ("warning", True)
    assert "daemon" in {each.check for each in found if each.level == "ok"}
    assert not {each.check for each in found if each.level == "problem"} - {"clock", "disk"}
    found.clear()
    monkeypatch.delenv("BROKERD_SOCKET")
    await doctor.examine(away, None, found.append, offline=True)
    assert "problem" in {each.level for each in found if each.check == "configuration"}, "nobody named a brokerd"


async def test_looking_changes_nothing(brokerd: Brokerd) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    await brokerd.stop()
    before = brokerd.bytes_of_state()
    await findings(brokerd)
    assert brokerd.bytes_of_state() == before


async def test_a_key_that_was_replaced_is_known_also_from_the_log_that_was_not_written_back(brokerd: Brokerd) -> None:
    async def key() -> str:
        return next(each.found for each in await findings(brokerd) if each.check == "key")

    brokerd.configure({}, {})
    await brokerd.start()
    new = brokerd.etc / "new"
    key_file.create(new)
    brokerd.configure({}, {}, key={"file": new}, previous_key={"file": brokerd.key})
    assert await key() == "the store is still sealed with previous_key"
    await brokerd.call("rotate_key")
    await brokerd.kill()
    assert await key() == f"it opens the store in {brokerd.state}"


async def test_who_listens_is_known_by_the_socket(brokerd: Brokerd) -> None:
    brokerd.configure({}, {}, socket_mode="0666")
    await brokerd.start()
    told = {each.check: each.found for each in await findings(brokerd)}
    assert told["socket"] == f"{brokerd.socket}: everybody may connect"
    assert "brokerd" in told["user"]


async def test_somebody_else_who_listens_is_no_brokerd(brokerd: Brokerd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "ANSWERS_WITHIN", 0.1)
    whole(brokerd)
    brokerd.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(brokerd.socket))
        other.listen()
        told = {each.check: each for each in await findings(brokerd, offline=True)}
    assert told["daemon"].found.startswith("brokerd does not answer")
    assert told["daemon"].level == "problem"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"locked": False, "store": None}, "brokerd 0.1 is running"),
        ("test-only", "something answers that is not brokerd"),
    ],
)
async def test_an_older_brokerd_says_less_and_no_brokerd_something_else(
    brokerd: Brokerd, said: object, found: str
) -> None:
    whole(brokerd)
    brokerd.socket.parent.mkdir()
    answers = {"hello": lambda _: {"server": "0.1"}, "status": lambda _: {"daemon": said, "grants": []}}
    with Daemon(brokerd.socket, answers):
        told = {each.check: each for each in await findings(brokerd, offline=True)}
    assert found in told["daemon"].found


async def test_a_provider_that_hangs_delays_its_own_line_alone(
    brokerd: Brokerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers when everything else has been told."""
    monkeypatch.setattr(doctor, "SETTLED", 0.05)
    told: list[Finding] = []
    others = trio.Event()

    def tell(finding: Finding) -> None:
        told.append(finding)
        if finding.about == "well":
            others.set()

    async def waits(peer: Peer) -> None:
        await peer.request()
        await others.wait()
        await peer.say(OK)

    async with serving(waits) as hanging, serving(always_ok) as well:
        providers = {name: {**PROVIDER, "token_url": each.url} for name, each in (("hangs", hanging), ("well", well))}
        brokerd.configure({}, providers)
        with trio.fail_after(4):  # less than the patience with a provider
            await doctor.examine(str(brokerd.config), str(brokerd.socket), tell, offline=False)
    assert [each.about for each in told if each.about] == ["well", "hangs"]
    assert next(each.found for each in told if each.about == "hangs") == f"{hanging.url} answers 200"
