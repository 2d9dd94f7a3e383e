# The commands that change something, and those that need no daemon.
from __future__ import annotations

import base64
import os
import pty
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from brokerd.edge.store import key_file
from tests.did_not_run import did_not_run
from tests.unit.client.daemon import Daemon
from tests.unit.ctl.conftest import Run, program


def on_a_terminal(*words: str, typed: str, wait_for: bytes) -> tuple[int, bytes, bytes]:
    """Runs brokerctl on a terminal of its own, types once the prompt is there; exit code, stdout, and the screen."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [*program(), *words],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=dict(os.environ),
            start_new_session=True,  # away from the terminal of who runs the tests
        ) as process:
            screen = b""
            while wait_for not in screen:
                screen += os.read(ours, 1000)
            os.write(ours, typed.encode())
            out, _ = process.communicate(timeout=30)
        os.set_blocking(ours, False)
        with suppress(BlockingIOError):
            screen += os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(theirs)
    return process.returncode, out, screen


def test_refresh_says_when_the_token_expires(daemon: Daemon, brokerctl: Run) -> None:
    daemon.answers["refresh"] = lambda params: {"grant": params["grant"], "expires_at": 2e9}
    done = brokerctl("refresh", "ix")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ix: refreshed; its token expires in ")
    daemon.answers["refresh"] = lambda params: {"grant": params["grant"], "expires_at": None}
    assert brokerctl("refresh", "ix").stdout == "ix: refreshed; its expiry is not known\n"


@pytest.mark.parametrize("provider", ["told", "pending", "unsupported"])
def test_revoke_says_what_has_happened(daemon: Daemon, brokerctl: Run, provider: str) -> None:
    daemon.answers["revoke"] = lambda params: {**params, "stored": True, "provider": provider, "detail": "so and so"}
    done = brokerctl("revoke", "ix", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ix: revoked; stored; so and so\n"


def test_a_revocation_that_is_not_stored_is_not_a_success(daemon: Daemon, brokerctl: Run) -> None:
    daemon.answers["revoke"] = lambda params: {**params, "stored": False, "provider": "told", "detail": "disk full"}
    done = brokerctl("revoke", "ix", "--yes")
    assert done.returncode == 4
    assert "NOT STORED" in done.stdout
    assert "could not be stored; fix the store" in done.stderr


def test_revoke_asks_nobody_where_nobody_is(daemon: Daemon, brokerctl: Run) -> None:
    done = brokerctl("revoke", "ix", input="y\n")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert daemon.calls == []


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("yes\n", 0), ("n\n", 2), ("\n", 2), ("\x04", 2)])
def test_revoke_asks_the_person_at_the_terminal(daemon: Daemon, typed: str, code: int) -> None:
    daemon.answers["revoke"] = lambda params: {**params, "stored": True, "provider": "told", "detail": ""}
    found, _, _ = on_a_terminal("revoke", "ix", typed=typed, wait_for=b"[y/N]")
    assert found == code
    assert len(daemon.calls) == (1 if code == 0 else 0)


@pytest.mark.parametrize(
    ("given", "sent"),
    [("s3cret\n", "s3cret"), ("s3cret", "s3cret"), ("s3cret\r\n", "s3cret")],
)
def test_import_reads_a_refresh_token_without_its_line_break(
    daemon: Daemon, brokerctl: Run, given: str, sent: str
) -> None:
    daemon.answers["import"] = lambda params: {"grant": params["grant"], "generation": 4, "accepted": True}
    done = brokerctl("import", "ix", input=given.encode(), text=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        b"ix: the refresh token was imported, and its provider has accepted it\n",
        b"",
    )
    assert daemon.calls == [("import", {"grant": "ix", "refresh_token": sent, "wait": 10.0})]


@pytest.mark.parametrize(
    ("given", "sent", "words"),
    [
        ("s3cret 0\n", "s3cret 0", "a blank in it"),
        ("s3cret\n\n", "s3cret\n", "a line break at its end"),
        ("\ufeffs3cret", "\ufeffs3cret", "a byte order mark (BOM) at its beginning"),
    ],
)
def test_import_names_what_is_most_likely_a_slip_and_sends_it_as_it_is(
    daemon: Daemon, brokerctl: Run, given: str, sent: str, words: str
) -> None:
    daemon.answers["import"] = lambda params: {"grant": params["grant"], "generation": 4, "accepted": True}
    done = brokerctl("import", "ix", input=given.encode(), text=False)
    assert (done.returncode, done.stdout) == (
        0,
        b"ix: the refresh token was imported, and its provider has accepted it\n",
    )
    said = (
        f"brokerctl: the refresh token has {words}, and was sent as it is; if that is wrong, import it again without\n"
    )
    assert done.stderr.decode() == said
    assert daemon.calls == [("import", {"grant": "ix", "refresh_token": sent, "wait": 10.0})]


@pytest.mark.parametrize("given", [b"", b"\n", b"\xff\xfe", b"s3cret" * 50_000])
def test_import_refuses_what_is_no_refresh_token_and_shows_nothing_of_it(
    daemon: Daemon, brokerctl: Run, given: bytes
) -> None:
    done = brokerctl("import", "ix", input=given, text=False)
    assert done.returncode == 2
    assert b"expected a refresh token" in done.stderr
    assert b"s3cret" not in done.stderr
    assert daemon.calls == []


@pytest.mark.parametrize(("code", "ends"), [("needs_login", 5), ("unavailable", 4), ("misconfigured", 2)])
def test_import_says_when_the_provider_has_not_accepted_the_token(
    daemon: Daemon, brokerctl: Run, code: str, ends: int
) -> None:
    daemon.answers["import"] = lambda params: {"accepted": False, "error": {"code": code, "message": "ix: so; and so"}}
    done = brokerctl("import", "ix", input="s3cret")
    assert (done.returncode, done.stdout) == (ends, "")
    words = "the refresh token was imported and stored; its provider has not accepted it"
    assert done.stderr == f"brokerctl: ix: {words}\nbrokerctl: ix: so; and so\n"


def test_import_asks_at_a_terminal_without_showing_what_is_typed(daemon: Daemon) -> None:
    daemon.answers["import"] = lambda params: {"grant": params["grant"], "generation": 4, "accepted": True}
    code, out, screen = on_a_terminal("import", "ix", typed="s3cret\n", wait_for=b"(not shown)")
    assert (code, out) == (0, b"ix: the refresh token was imported, and its provider has accepted it\n")
    assert b"s3cret" not in screen
    assert daemon.calls == [("import", {"grant": "ix", "refresh_token": "s3cret", "wait": 10.0})]


def test_reload_says_what_has_changed(daemon: Daemon, brokerctl: Run) -> None:
    daemon.answers["reload"] = lambda params: {"changed": ["a", "b"], "added": [], "removed": ["c"]}
    assert brokerctl("reload").stdout == "changed: a, b\nremoved: c\n"
    nothing = {"changed": [], "added": [], "removed": []}
    daemon.answers["reload"] = lambda params: {**nothing, "tables": ["on_event", "rules"], "restart": False}
    assert brokerctl("reload").stdout == "also changed: [[on_event]], [[allow]]\n"
    daemon.answers["reload"] = lambda params: {**nothing, "later": ["daemon", "http"], "restart": True}
    assert "[daemon] and [http] have changed, which take effect at the next start" in brokerctl("reload").stdout
    daemon.answers["reload"] = lambda params: {"changed": [], "added": [], "removed": []}
    assert brokerctl("reload").stdout == "the configuration has not changed; secrets are read again\n"


def test_reload_says_which_secret_cannot_be_read_and_what_happens_now(daemon: Daemon, brokerctl: Run) -> None:
    bad = {"grant": "a", "reason": "credentials.key: /x: No such file; write the secret there", "then": "it waits"}
    daemon.answers["reload"] = lambda params: {"changed": [], "added": [], "removed": [], "unreadable": [bad]}
    done = brokerctl("reload")
    words = "warning: a: credentials.key: /x: No such file; it waits; to fix: write the secret there"
    assert (done.returncode, done.stderr) == (0, f"brokerctl: {words}\n")


def test_forget_and_adopt_say_what_they_did(daemon: Daemon, brokerctl: Run) -> None:
    daemon.answers["forget"] = lambda params: {"grant": params["grant"], "forgotten": 1}
    assert brokerctl("forget", "old").stdout == "old: 1 stored record deleted\n"
    daemon.answers["adopt"] = lambda params: {"adopted": True}
    assert brokerctl("adopt").stdout == "the store now belongs to this machine\n"
    daemon.answers["adopt"] = lambda params: {"adopted": False}
    assert "nothing to adopt" in brokerctl("adopt").stdout


def test_keygen_makes_a_key_that_its_owner_alone_can_read(brokerctl: Run, tmp_path: Path) -> None:
    path = tmp_path / "key"
    done = brokerctl("keygen", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert text.startswith("brokerd-key-1:")
    assert text.endswith("\n")
    assert key_file.parse(text) == base64.b64decode(text.removeprefix("brokerd-key-1:"))
    assert len(key_file.parse(text)) == 32
    assert text.strip().partition(":")[2] not in done.stdout


@pytest.mark.parametrize("content", ["", "brokerd-key-1:other\n"])
def test_keygen_never_writes_over_anything(brokerctl: Run, tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    done = brokerctl("keygen", str(path))
    assert done.returncode == 2
    assert "exists already and was not changed" in done.stderr
    assert path.read_text() == content


def test_keygen_follows_no_link_to_nowhere(brokerctl: Run, tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    assert brokerctl("keygen", str(tmp_path / "key")).returncode == 2
    assert not (tmp_path / "elsewhere").exists()


def test_keygen_by_root_in_a_users_folder_follows_none_of_their_links(
    brokerctl: Run, request: pytest.FixtureRequest
) -> None:
    if os.geteuid() != 0:
        did_not_run(request.node.name, "it needs root")
    with tempfile.TemporaryDirectory() as name:
        folder, theirs, roots = Path(name), Path(name) / "theirs", Path(name) / "roots"
        folder.chmod(0o711)
        roots.mkdir(mode=0o755)
        theirs.mkdir(mode=0o700)
        (theirs / "link").symlink_to(roots)
        os.chown(theirs, 60_978, 60_978)
        done = brokerctl("keygen", str(theirs / "link" / "key"))
        assert (done.returncode, "Permission denied" in done.stderr) == (2, True)
        assert not list(roots.iterdir()), "nothing is made where a link of theirs leads"
        assert brokerctl("keygen", str(theirs / "key")).returncode == 0
        assert (theirs / "key").stat().st_uid == 60_978


def test_keygen_says_why_a_file_cannot_be_made(brokerctl: Run, tmp_path: Path) -> None:
    done = brokerctl("keygen", str(tmp_path / "none" / "key"))
    assert done.returncode == 2
    assert "No such file or directory" in done.stderr


@pytest.mark.parametrize("text", ["", "x", "brokerd-key-1:", "brokerd-key-1:AAAA", "brokerd-key-2:" + "A" * 43 + "="])
def test_what_is_no_key_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ValueError, match="brokerctl keygen"):
        key_file.parse(text)


def test_version_names_both_sides(daemon: Daemon, brokerctl: Run) -> None:
    daemon.answers["hello"] = lambda params: {"server": "9.8", "protocol": 1}
    ours, theirs = brokerctl("version").stdout.splitlines()
    assert ours.startswith("brokerctl ")
    assert theirs == "brokerd 9.8, protocol 1"


def test_version_works_without_a_daemon(brokerctl: Run, tmp_path: Path) -> None:
    done = brokerctl("--socket", str(tmp_path / "none"), "version")
    assert done.returncode == 0
    assert "brokerd did not answer: no socket at" in done.stdout


def test_no_command_but_import_is_told_what_stands_on_stdin(daemon: Daemon, brokerctl: Run) -> None:
    def gone(params: dict[str, Any]) -> Any:
        return {"grant": params["grant"], "forgotten": 0}

    daemon.answers["forget"] = gone
    assert brokerctl("forget", "ix", input="s3cret").returncode == 0
    assert daemon.calls == [("forget", {"grant": "ix"})]


def test_a_local_revocation_asks_for_one(daemon: Daemon, brokerctl: Run) -> None:
    daemon.answers["revoke"] = lambda params: {**params, "stored": True, "provider": "local", "detail": "untold"}
    assert brokerctl("revoke", "ix", "--yes", "--local").stdout == "ix: revoked; stored; untold\n"
    assert daemon.calls == [("revoke", {"grant": "ix", "local": True})]
