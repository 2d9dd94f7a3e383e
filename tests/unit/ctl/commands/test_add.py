# add and its other name: the options of both, where nothing is configured, beside a configuration, in a dialogue, and
# with a daemon that does not take what was written. test_add_as_init.py has what is written, tests/scenario/verify
# real servers.
from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli
import trio
from brokerd_client import Denied, Misconfigured

from brokerd.ctl.arguments import read_arguments
from brokerd.ctl.command_table import COMMANDS
from brokerd.ctl.commands.add import _where, registered, reload
from brokerd.ctl.terminal import Failed
from brokerd.dialects.oauth2.registration import Client
from brokerd.edge.files.drop_in import CreatedFiles
from brokerd.setup.check import check_configuration
from tests.scenario.logins.terminal import Terminal
from tests.unit.client.daemon import Daemon
from tests.unit.ctl.conftest import Run
from tests.unit.edge.http.fixtures import ca_file, server_tls
from tests.unit.edge.http.servers import Peer, Server, serving

CLIENT = Client("c-1", "none", "device_code")
GITLAB = ("--recipe", "gitlab", "--base-url", "https://gitlab.example")


def written(folder: Path) -> tuple[CreatedFiles, Path]:
    (folder / "brokerd.toml").touch()
    path = folder / "conf.d" / "app.toml"
    made = CreatedFiles()
    made.create({path: "[x]"}, folder / "brokerd.toml", private=frozenset())
    return made, path


@pytest.mark.parametrize("name", ["add", "init"])
@pytest.mark.parametrize(
    "words",
    [
        ("--resource", "R", "--issuer", "I"),  # the options that add had
        ("--name", "N", "--scope", "S", "--client-id", "C", "--ca-file", "F", "--config", "F", "--dry-run"),
        ("--login",),
        ("--recipe", "R", "--base-url", "B", "--credential", "c=d", "--credential-file", "c=f"),  # and that init had
        ("--token-url", "T", "--grant-type", "client_credentials", "--setting", "s=t", "--allow", "me"),
        ("--system",),
        ("--user",),
    ],
)
def test_either_name_takes_the_options_that_any_of_them_had(name: str, words: tuple[str, ...]) -> None:
    assert read_arguments([name, *words]).row is COMMANDS["add"]


def test_help_names_both(brokerctl: Run) -> None:
    assert re.search(r"^    add \(init\) ", brokerctl("--help").stdout, re.MULTILINE)
    assert brokerctl("init", "--help").stdout == brokerctl("add", "--help").stdout != ""


def test_it_wants_to_know_what_to_add(brokerctl: Run, tmp_path: Path) -> None:
    done = brokerctl("add", "--config", str(tmp_path / "brokerd.toml"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "expected --recipe NAME, --issuer URL, --resource URL, --token-url URL or --static" in done.stderr


def test_a_static_token_is_written_with_its_files_and_needs_nothing_more(within: Run, tmp_path: Path) -> None:
    main, key, key_id = tmp_path / "brokerd.toml", tmp_path / "a", tmp_path / "b"
    key.write_text("key-1\n")
    key_id.write_text("id-1\n")
    files = ("--credential-file", f"token={key}", "--credential-file", f"access_key_id={key_id}")
    done = within("add", "--static", "--name", "api", *files, "--allow", "root", "--config", str(main))
    assert done.returncode == 0, done.stderr
    assert "brokerctl login" not in done.stdout
    found = tomli.loads((tmp_path / "conf.d" / "api.toml").read_text())
    secrets = tmp_path / "secrets"
    assert found["providers"] == {"api": {"dialect": "static"}}
    assert found["grants"]["api"]["credentials"] == {
        "token": {"file": str(secrets / "api.token")},
        "access_key_id": {"file": str(secrets / "api.access_key_id")},
    }
    assert (secrets / "api.token").read_text() == "key-1\n"
    assert "key-1" not in done.stdout + done.stderr


async def test_a_static_token_can_be_chosen_at_the_first_question(tmp_path: Path) -> None:
    main = tmp_path / "etc" / "brokerd.toml"
    main.parent.mkdir()
    command = ["add", "--config", str(main), "--name", "api", "--allow", "root"]
    terminal = Terminal(tmp_path / "nobody", command, is_tty=True, environment={})
    try:
        for word, typed in (("or static", "static"), ("token (not shown", "key-1")):
            await terminal.until(word)
            terminal.type(f"{typed}\n")
        assert await terminal.end() == 0, terminal.said
    finally:
        terminal.close()
    assert 'dialect = "static"' in (main.parent / "conf.d" / "api.toml").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--name", "api"), "expected the token: --credential-file token=FILE"),
        ((), "expected --name NAME"),
        (("--name", "api", "--scope", "read"), "--static asks no provider"),
        (("--issuer", "https://a.test"), "not allowed with argument"),
        (("--name", "api", "--credential", "token=s3cret"), "token is a secret, and everybody can read a command line"),
    ],
)
def test_a_static_token_is_not_written_without_its_file(
    within: Run, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = within("add", "--static", *words, "--config", str(tmp_path / "brokerd.toml"))
    assert done.returncode == 2
    assert message in done.stderr
    assert "s3cret" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_resource_names_its_server_by_itself(within: Run, tmp_path: Path) -> None:
    done = within("add", "--config", str(tmp_path / "x"), "--resource", "https://a.test", "--recipe", "knox")
    assert "--resource names the server itself: use it alone or with --issuer" in done.stderr


def test_where_nothing_is_configured_a_failure_leaves_nothing(within: Run, tmp_path: Path) -> None:
    """It used to end with "there is no such file": now it would have made the configuration."""
    done = within("add", "--issuer", "https://127.0.0.1:1", "--config", str(tmp_path / "brokerd.toml"))
    assert done.returncode == 2
    assert "no such file" not in done.stderr
    assert "the grant was not written" in done.stderr
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("words", "there", "installs"), [((), True, False), ((), False, True), (("--system",), True, True)]
)
def test_it_installs_where_nothing_is_configured_or_where_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], there: bool, installs: bool
) -> None:
    main = tmp_path / "brokerd.toml"
    if there:
        main.touch()
    monkeypatch.setattr("brokerd.ctl.commands.add.in_use", lambda _named: (str(main), {}))
    setup, found = _where(read_arguments(["add", "--dry-run", *words]))
    assert (setup is not None) is installs
    assert (found == main) is not installs


@pytest.mark.parametrize("name", ["add", "init"])
def test_where_nothing_is_configured_it_begins_and_then_adds_beside_it(
    within: Run, tmp_path: Path, daemon: Daemon, name: str
) -> None:
    main = tmp_path / "etc" / "brokerd.toml"
    main.parent.mkdir()
    which = ("--config", str(main), "--state-dir", str(tmp_path / "state"))
    begun = within(name, *which, "--socket", str(tmp_path / "nobody"), *GITLAB)
    assert (begun.returncode, begun.stderr) == (0, "")
    assert f"{main}: written as an example, all in comments\nkey: made as {main.with_name('key')}" in begun.stdout
    before = (main.read_text(), main.with_name("key").read_text())
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "brokerd.db").touch()
    daemon.answers["reload"] = lambda _params: {"changed": [], "added": ["second"], "removed": []}
    added = within(name, *which, "--socket", str(daemon.path), *GITLAB, "--name", "second")
    assert (added.returncode, added.stderr) == (0, "")
    assert added.stdout.startswith(f"{main.parent}/conf.d/second.toml: written\nbrokerd has read it\n")
    assert before == (main.read_text(), main.with_name("key").read_text())
    assert "2 grants, 0 rules" in check_configuration(str(main))


class Dialogue:
    """add for an issuer on loopback, at a terminal, with a client that was registered by hand."""

    def __init__(self, folder: Path, server: Server, *words: str) -> None:
        self.main = folder / "etc" / "brokerd.toml"
        self.main.parent.mkdir()
        given = ("--name", "idp", "--client-id", "c-1", "--allow", "root", *words)
        command = ["add", "--config", str(self.main), "--issuer", server.url, *given]
        self.terminal = Terminal(folder / "nobody", command, is_tty=True, environment={})

    async def answer(self, **typed: str) -> dict[str, Any]:
        """What is typed where a question has this word; the grant that is written at the end, and its provider."""
        try:
            for word, answer in typed.items():
                await self.terminal.until(word)
                self.terminal.type(f"{answer}\n")
            assert await self.terminal.end() == 0, self.terminal.said
        finally:
            self.terminal.close()
        table = tomli.loads((self.main.parent / "conf.d" / "idp.toml").read_text())
        return {**table["providers"]["idp"], **table["grants"]["idp"]}


@asynccontextmanager
async def issuer(**more: object) -> AsyncGenerator[Server]:
    """One whose certificates are signed by an authority of the tests. `more`: of its metadata."""
    found: dict[str, object] = {}

    async def script(peer: Peer) -> None:
        while await peer.request():
            body = json.dumps(found).encode()
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    async with serving(script, tls=server_tls("127.0.0.1")) as server:
        places = ("token_endpoint", "device_authorization_endpoint")
        found |= {"issuer": server.url, **{name: f"{server.url}/{name}" for name in places}, **more}
        yield server


async def test_where_there_is_no_metadata_the_option_for_the_token_endpoint_is_named(
    within: Run, tmp_path: Path
) -> None:
    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async with serving(script, tls=server_tls("127.0.0.1")) as server:
        words = ("--issuer", server.url, "--ca-file", str(ca_file(tmp_path)), "--name", "idp", "--client-id", "c-1")
        add = partial(within, "add", "--config", str(tmp_path / "brokerd.toml"), *words)
        done = await trio.to_thread.run_sync(add)
    assert done.returncode == 2
    assert "name its token endpoint instead: --token-url URL" in done.stderr
    assert "token_url" not in done.stderr


async def test_the_certificates_of_an_unknown_authority_are_asked_for(tmp_path: Path) -> None:
    trusted = ca_file(tmp_path)
    async with issuer() as server:
        dialogue = Dialogue(tmp_path, server, "--scope", "read")
        written = await dialogue.answer(PEM=str(trusted))
    assert "signed by an unknown authority" in dialogue.terminal.said
    assert written["ca_file"] == str(trusted)
    assert written["scope"] == ["read"]


@pytest.mark.parametrize(
    ("typed", "scope"), [("", ["read", "offline_access"]), ("y", ["read", "offline_access"]), ("n", ["read"])]
)
async def test_offline_access_is_proposed_where_the_issuer_has_it(tmp_path: Path, typed: str, scope: list[str]) -> None:
    async with issuer(scopes_supported=["openid", "offline_access"]) as server:
        dialogue = Dialogue(tmp_path, server, "--ca-file", str(ca_file(tmp_path)))
        written = await dialogue.answer(Scopes="read", offline_access=typed)
    assert "without it, a login may bring no refresh token" in dialogue.terminal.said
    assert written["scope"] == scope


@pytest.mark.parametrize(
    ("supported", "typed"), [([], "read"), (["read"], "read"), (["offline_access"], "read offline_access")]
)
async def test_offline_access_is_not_proposed_where_it_is_unknown_or_asked_for(
    tmp_path: Path, supported: list[str], typed: str
) -> None:
    async with issuer(scopes_supported=supported) as server:
        dialogue = Dialogue(tmp_path, server, "--ca-file", str(ca_file(tmp_path)))
        written = await dialogue.answer(Scopes=typed)
    assert "refresh token" not in dialogue.terminal.said
    assert written["scope"] == typed.split()


async def test_a_scope_of_the_command_line_is_not_asked_about_but_told_of(tmp_path: Path) -> None:
    async with issuer(scopes_supported=["offline_access"]) as server:
        dialogue = Dialogue(tmp_path, server, "--ca-file", str(ca_file(tmp_path)), "--scope", "read")
        written = await dialogue.answer()
    assert "may bring no refresh token; to ask for it: --scope offline_access" in dialogue.terminal.said
    assert written["scope"] == ["read"]
    assert (written["client_auth"], written["grant_type"]) == ("none", "device_code")


def test_what_the_daemon_does_not_take_is_taken_back(daemon: Daemon, tmp_path: Path) -> None:
    def refuse(_params: dict[str, Any]) -> Any:
        raise Misconfigured("nothing has changed: another file is wrong")

    made, path = written(tmp_path)
    daemon.answers["reload"] = refuse
    with pytest.raises(Failed, match="the client c-1 stays registered"):
        reload(str(daemon.path), "app", made, registered(CLIENT))
    assert not path.parent.exists()


def test_who_may_not_reload_is_told_that_somebody_has_to(
    daemon: Daemon, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def deny(_params: dict[str, Any]) -> Any:
        raise Denied("reload: only root may")

    made, path = written(tmp_path)
    daemon.answers["reload"] = deny
    reload(str(daemon.path), "app", made, registered(CLIENT))
    assert path.exists()
    assert capfd.readouterr().out.endswith(
        "has not read it yet (reload: only root may); to make it: brokerctl reload\n"
    )
