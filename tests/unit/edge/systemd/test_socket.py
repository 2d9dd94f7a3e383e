# The listening socket: a dead daemon's socket is replaced, a living one's is not, and nobody can connect before its
# mode is set.
from __future__ import annotations

import grp
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from brokerd.edge.systemd import socket as listen
from brokerd.edge.systemd.socket import CannotListen

GROUP = grp.getgrgid(os.getgid()).gr_name


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Short enough for a socket, wherever the tests' folder is."""
    here = Path.cwd()
    os.chdir(tmp_path)
    yield Path("brokerd.sock")
    os.chdir(here)


def refused(path: Path, mode: int = 0o660, group: str | None = None) -> str:
    with pytest.raises(CannotListen) as caught:
        listen.at(path, mode, group)
    return str(caught.value)


def connects(path: Path) -> bool:
    with closing(socket.socket(socket.AF_UNIX)) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


@pytest.mark.parametrize("mode", [0o660, 0o600, 0o666])
def test_a_socket_has_the_mode_that_was_asked_for_and_takes_connections(path: Path, mode: int) -> None:
    with closing(listen.at(path, mode, GROUP)) as listener:
        assert stat.S_IMODE(path.stat().st_mode) == mode
        assert path.stat().st_gid == os.getgid()
        assert listener.gettimeout() == 0.0
        assert not listener.get_inheritable()
        assert connects(path)


def test_nobody_can_connect_before_the_mode_is_set(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    bind = socket.socket.bind

    class Watched(socket.socket):
        def bind(self, address: str) -> None:  # type: ignore[override]
            bind(self, address)
            seen.append(stat.S_IMODE(os.stat(address).st_mode))  # noqa: PTH116 - a socket's path

    monkeypatch.setattr(listen.socket, "socket", Watched)
    before = os.umask(0)
    try:
        listen.at(path, 0o666, None).close()
        assert os.umask(0) == 0  # and the process has its own mask again
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_the_folder_is_made_where_it_is_not_there(path: Path) -> None:
    nested = Path("run") / "brokerd" / "brokerd.sock"
    with closing(listen.at(nested, 0o660, None)):
        assert connects(nested)


def test_the_socket_of_a_dead_daemon_is_replaced(path: Path) -> None:
    listen.at(path, 0o660, None).close()
    assert path.exists()
    assert not connects(path)
    with closing(listen.at(path, 0o660, None)):
        assert connects(path)


def test_the_socket_of_a_daemon_that_was_killed_is_replaced(path: Path) -> None:
    script = (
        "import os, socket as s; d = s.socket(s.AF_UNIX); d.bind('brokerd.sock'); d.listen(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script], check=False)
    assert path.exists()
    with closing(listen.at(path, 0o660, None)):
        assert connects(path)


def test_the_socket_of_a_living_daemon_is_left_alone(path: Path) -> None:
    with closing(listen.at(path, 0o660, None)):
        before = path.stat().st_ino
        assert refused(path) == (
            "another process listens at brokerd.sock; if it is a brokerd, stop it, or set another path: [daemon] socket"
        )
        assert path.stat().st_ino == before
        assert connects(path)


def test_a_living_daemon_whose_queue_is_full_is_left_alone(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as busy:
        busy.bind(str(path))
        busy.listen(0)
        clients = []
        for _ in range(8):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            clients.append(client)
            client.connect_ex(str(path))
        assert "another process listens" in refused(path)
        assert path.exists()
        for client in clients:
            client.close()


@pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to nothing"])
def test_what_is_no_socket_is_never_removed(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("precious")
    else:
        path.symlink_to("target")
        if kind == "link to a file":
            Path("target").write_text("precious")
    assert refused(path) == ("brokerd.sock exists and is no socket; set another path: [daemon] socket")
    assert path.is_symlink() or path.exists()


def test_a_group_that_is_not_there_is_named_with_its_remedy(path: Path) -> None:
    assert refused(path, group="no-such-group") == (
        "socket_group: there is no group no-such-group on this machine; name an existing group, or as root: "
        "groupadd --system no-such-group"
    )
    with closing(listen.at(path, 0o660, None)):  # what it left does not stand in the way
        assert connects(path)


def test_a_group_that_we_are_not_in_is_to_blame_and_not_the_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chown(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("shutil.chown", chown)
    assert refused(path, group="root") == (
        "socket_group: the socket cannot be given to the group root: Operation not permitted; name a group that "
        "brokerd's user is in, or remove the key"
    )


def test_a_path_that_is_too_long_or_cannot_be_made_says_so(path: Path) -> None:
    long = Path("x" * 120)
    assert refused(long) == (
        f"cannot listen at {long}: the path is too long for a socket (107 bytes); set another path: [daemon] socket"
    )
    Path("file").write_text("")
    assert refused(Path("file") / "brokerd.sock") == (
        "cannot listen at file/brokerd.sock: File exists; set another path: [daemon] socket"
    )


# systemd's socket

PASSING = """
import os, socket, sys
sys.path.insert(0, {root!r})
kind = getattr(socket, sys.argv[1])
made = socket.socket(socket.AF_UNIX, kind) if sys.argv[2] == "unix" else socket.socket(socket.AF_INET, kind)
if sys.argv[2] == "unix":
    made.bind("passed.sock")
if kind is socket.SOCK_STREAM and sys.argv[2] == "unix":
    made.listen()
os.dup2(made.fileno(), 3)
environ = {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[3], "LISTEN_FDNAMES": sys.argv[4]}}
from brokerd.edge.systemd import socket as listen
try:
    found = listen.from_systemd(environ, ("rpc", "http"))[sys.argv[4]]
    print("socket", found.getsockname(), found.gettimeout(), found.get_inheritable(), sorted(environ))
except listen.CannotListen as error:
    print("refused", error)
"""


def passed(*arguments: str) -> str:
    script = PASSING.format(root=str(Path(listen.__file__).parents[3]))
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("kind", ["rpc", "http"])
def test_a_socket_of_systemd_is_taken_and_its_variables_are_not_handed_on(path: Path, kind: str) -> None:
    assert passed("SOCK_STREAM", "unix", "1", kind) == "socket passed.sock 0.0 False []"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("SOCK_DGRAM", "unix", "1", "rpc"), "expected a Unix stream socket from systemd (ListenStream=/run/…)"),
        (("SOCK_STREAM", "inet", "1", "rpc"), "expected a Unix stream socket from systemd (ListenStream=/run/…)"),
        (
            ("SOCK_STREAM", "unix", "2", "rpc"),
            "expected one socket from systemd for rpc, found several; keep one ListenStream= in its unit",
        ),
    ],
)
def test_another_kind_or_number_of_sockets_is_refused(path: Path, arguments: tuple[str, ...], message: str) -> None:
    assert passed(*arguments) == f"refused {message}"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},  # another process's
        {"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_PID": str(os.getpid())},
    ],
)
def test_without_a_socket_for_this_very_process_there_is_none(environ: dict[str, str]) -> None:
    assert listen.from_systemd(environ, ("rpc", "http")) == {}


def test_who_waits_in_vain_is_told_and_let_go(tmp_path: Path) -> None:
    path = tmp_path / "brokerd.sock"
    with closing(listen.at(path, 0o660, None)) as listener:
        waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(3)]
        for caller in waiting:
            caller.connect(str(path))
        waiting.pop(1).close()  # who has gone meanwhile
        listen.turn_away(listener, b"nobody comes")
        for caller in waiting:
            with closing(caller):
                assert (caller.recv(100), caller.recv(100)) == (b"nobody comes", b"")
        with pytest.raises(BlockingIOError):
            listener.accept()
