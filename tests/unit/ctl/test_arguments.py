# Which brokerd a command talks to. --config, --socket and --state-dir mean the same before and after every command; the
# socket is the one of the configuration; the commands in a remedy reach the same brokerd.
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from brokerd_client import address
from brokerd_client.errors import NeedsLogin, NoDaemon, NotPermitted

from brokerd import __version__
from brokerd.config.settings import Configuration, DaemonSettings
from brokerd.ctl import EXITS, main, own_socket, socket_of
from brokerd.ctl.arguments import read_arguments
from brokerd.ctl.command_table import COMMANDS, WHICH
from brokerd.ctl.terminal import OPTIONS, called
from brokerd.edge.store import key_file
from brokerd.setup.installation import socket_path, state_path
from brokerd.setup.layout import in_use, of_user, socket_in_use, state_in_use
from tests.unit.client.daemon import Daemon
from tests.unit.ctl.conftest import Run

NEEDED = {
    **{
        name: ["ix"]
        for name in ("get", "refresh", "trace", "revoke", "explain", "login", "import", "forget", "watch", "trust")
    },
    **{name: ["file"] for name in ("backup", "files", "restore", "keygen")},
    "exec": ["ix", "--", "true"],
    "proof": ["ix", "GET", "https://x.example"],
    "audit": ["tail"],
    "credential": ["aws", "ix"],
    "key": ["rotate"],
    "recipe": ["show", "ix-api"],
    "test-event": ["grant_needs_login"],
    "install": ["--system"],
    "uninstall": ["--system"],
}


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    yield
    OPTIONS.clear()


def configured(folder: Path, text: str) -> str:
    path = folder / "etc" / "brokerd.toml"
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_stand_before_or_after_every_command_and_mean_the_same(command: str) -> None:
    which = [word for name in WHICH for word in (name, f"/{name.strip('-')}")]
    words = [command, *NEEDED.get(command, [])]
    end = words.index("--") if "--" in words else len(words)
    after = [*words[:end], *which, *words[end:]]
    for arguments in (read_arguments([*which, *words]), read_arguments(after)):
        found = (arguments.config, arguments.socket, arguments.state_dir)
        assert found == ("/config", "/socket", "/state-dir"), command


def test_the_socket_is_that_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = configured(tmp_path, '[daemon]\nsocket = "/run/other/s"\n[grants.broken]\n')
    monkeypatch.setenv("BROKERD_SOCKET", "/run/of-the-shell")

    def socket(*words: str) -> str | None:
        return socket_of(read_arguments([*words, "status"]))

    assert socket("--config", said) == "/run/other/s", "whatever is wrong with its grants"
    assert socket("--config", said, "--socket", "/run/mine") == "/run/mine"
    assert socket() is None, "the client library looks"
    silent = configured(tmp_path, "")
    assert socket("--config", silent) == "/run/brokerd/brokerd.sock"


def test_a_brokerd_of_ones_own_has_its_own_socket_and_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = of_user(tmp_path, None)
    layout.config.parent.mkdir(parents=True)
    layout.config.touch(0o600)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert socket_in_use(str(layout.config)) == "/run/user/7/brokerd/brokerd.sock"
    assert state_in_use(None, str(layout.config)) == layout.state
    assert state_in_use("/elsewhere", str(layout.config)) == Path("/elsewhere")
    assert state_in_use(None, configured(tmp_path, '[daemon]\nstate_dir = "/srv/state"')) == Path("/srv/state")
    assert state_in_use(None, configured(tmp_path, "")) == Path("/var/lib/brokerd")


def test_a_command_talks_to_the_daemon_of_its_configuration(
    daemon: Daemon, within: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.answers["reload"] = lambda _: {"changed": ["ix"], "added": [], "removed": []}
    monkeypatch.setenv("BROKERD_SOCKET", str(tmp_path / "nobody"))
    config = configured(tmp_path, f'[daemon]\nsocket = "{daemon.path}"\n')
    for words in (("--config", config, "reload"), ("reload", "--config", config)):
        done = within(*words)
        assert (done.returncode, done.stdout) == (0, "changed: ix\n")
    assert within("reload").returncode == EXITS["no_daemon"]


def test_a_remedy_means_the_same_brokerd(daemon: Daemon, within: Run) -> None:
    def fail(_params: dict[str, Any]) -> Any:
        raise NeedsLogin("ix needs a login; to fix: brokerctl login ix")

    daemon.answers["get"] = fail
    path = str(daemon.path)
    assert within("--socket", path, "get", "ix").stderr.endswith(f"to fix: brokerctl --socket {path} login ix\n")
    assert within("get", "ix", "--socket", path, "--json").stderr.endswith(f"brokerctl --socket {path} login ix\n")
    assert within("get", "ix").stderr.endswith("to fix: brokerctl login ix\n")
    OPTIONS[:] = ["--config", "/a b"]
    assert called("brokerctl: x; brokerctl reload, or see brokerctl(1)") == (
        "brokerctl: x; brokerctl --config '/a b' reload, or see brokerctl(1)"
    )


def test_both_programs_say_their_version(within: Run, brokerctl: Run, capsys: pytest.CaptureFixture[str]) -> None:
    done = brokerctl("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"brokerctl {__version__}\n", "")
    from brokerd.daemon.main import parser

    with pytest.raises(SystemExit):
        parser().parse_args(["--version"])
    assert capsys.readouterr().out == f"brokerd {__version__}\n"


class Closed:
    """A class of sockets that may not connect, as for root none is."""

    def __init__(self, *_: object) -> None: ...
    def setblocking(self, _: object) -> None: ...
    def close(self) -> None: ...
    def connect(self, _: object) -> None:
        raise PermissionError(13, "Permission denied")


def test_who_is_not_in_the_group_is_denied_and_told_of_no_other_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s"
    path.touch()
    monkeypatch.setattr("_socket.socket", Closed)
    monkeypatch.setattr("socket.socket", Closed)
    monkeypatch.setattr("sys.argv", ["brokerctl", "--socket", str(path), "get", "ix"])
    assert main() == EXITS["denied"], "a daemon is there: 6 would say that there is none"
    said = capsys.readouterr().err
    assert f"no permission to connect at {path}" in said
    assert "usermod" not in said, "the group of this file may do more than connect"
    with pytest.raises(NotPermitted) as caught:
        address.connect(str(path), Closed)  # type: ignore[type-var]
    assert isinstance(caught.value, NoDaemon), "whoever catches that catches this"
    monkeypatch.setattr(address, "CALLERS", path.group())
    with pytest.raises(NotPermitted, match="usermod -aG"):
        address.connect(str(path), Closed)  # type: ignore[type-var]


def test_the_unit_of_a_user_is_that_users() -> None:
    assert address.manager("/run/user/7/brokerd/brokerd.sock") == "systemctl --user"
    assert address.manager("/run/brokerd/brokerd.sock") == "systemctl"


def test_without_options_a_user_reaches_the_socket_that_their_own_configuration_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = of_user(tmp_path, None).config
    own.parent.mkdir(parents=True)
    own.write_text('[daemon]\nsocket = "/run/other/s"\n')
    own.chmod(0o600)

    def socket() -> str | None:
        return socket_of(read_arguments(["status"]))

    monkeypatch.delenv("BROKERD_SOCKET", raising=False)
    assert socket() is None, "root's brokerd is the system's"
    monkeypatch.setattr("os.geteuid", lambda: own.stat().st_uid + 1)
    assert socket() == "/run/other/s"
    own.write_text("[daemon\n")
    assert socket() is None, "nobody is kept out by a file that is being written"
    own.write_text('[daemon]\nsocket = "/run/other/s"\n')
    monkeypatch.setenv("BROKERD_SOCKET", "/run/of-the-shell")
    assert socket() is None, "the client library takes what the shell names"


def test_before_its_first_start_a_users_own_brokerd_is_looked_for_where_it_is_going_to_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, run, uid = of_user(tmp_path, None).config, tmp_path / "run", os.getuid() or 60_978
    own.parent.mkdir(parents=True)
    own.touch(0o600)
    run.mkdir(mode=0o700)
    os.chown(run, uid, -1)
    monkeypatch.delenv("BROKERD_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    monkeypatch.setattr("os.geteuid", lambda: uid)

    def system(path: Path) -> None:
        monkeypatch.setattr("brokerd.ctl.SYSTEM", str(path))
        monkeypatch.setattr("brokerd_client.address.SYSTEM", str(path))

    system(tmp_path / "nobody")
    assert own_socket() == f"{run}/brokerd/brokerd.sock"
    system(own)
    assert own_socket() is None, "the system's is there"
    system(tmp_path / "nobody")
    monkeypatch.setattr("os.geteuid", lambda: uid + 1)
    assert own_socket() is None, "after su the folder is another user's"


@pytest.mark.parametrize("runtime", [None, "/run/user/7"])
def test_a_brokerd_of_ones_own_has_the_same_folders_without_its_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str | None
) -> None:
    layout = of_user(tmp_path, None)
    if runtime is not None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    _, folders = in_use(str(layout.config))
    assert state_path(Configuration(str(layout.config)), folders) == layout.state
    there = "/run/brokerd/brokerd.sock" if runtime is None else f"{runtime}/brokerd/brokerd.sock"
    assert socket_path(DaemonSettings(), folders) == Path(there)
    assert in_use("/etc/brokerd/brokerd.toml")[1] is os.environ


def test_brokerd_takes_a_users_own_configuration_state_and_socket(tmp_path: Path) -> None:
    layout = of_user(tmp_path, None)
    layout.config.parent.mkdir(parents=True)
    layout.config.touch(0o600)
    key_file.create(layout.config.parent / "key")
    (tmp_path / "run").mkdir(mode=0o700)
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    brokerd = [sys.executable, "-m", "brokerd.daemon.main", "--config", str(layout.config)]
    with subprocess.Popen(brokerd, env=environ, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        said = next(line for line in daemon.stderr if "event=ready" in line or "event=fatal" in line)
        daemon.terminate()
    assert f"socket={tmp_path}/run/brokerd/brokerd.sock" in said
    assert (layout.state / "brokerd.db").exists()
