# Secrets from each place that the configuration can name, and each way in which reading one fails. The error shows no
# byte of what was read.
from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest

from brokerd.core.secret import Secret, SecretSource
from brokerd.edge.files import secret_sources
from brokerd.edge.files.secret_sources import LONGEST, WRITE, SecretUnreadable, doubtful, read_secret

SEE_WHY = "run the command as brokerd's user to see why"
VALUE = "hunter2 ü+/%41"


def write(path: Path, data: bytes | str, mode: int = 0o600) -> str:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)
    return str(path)


def unreadable(source: SecretSource) -> str:
    with pytest.raises(SecretUnreadable) as caught:
        read_secret(source)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


def shell(script: str) -> SecretSource:
    return SecretSource(command=("/bin/sh", "-c", script))


# From each source


def test_a_secret_is_text_as_it_is() -> None:
    assert read_secret(SecretSource(text=Secret(VALUE + "\n"))) == Secret(VALUE + "\n")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (VALUE, VALUE),
        (VALUE + "\n", VALUE),
        (VALUE + "\r\n", VALUE),
        (VALUE + "\n\n", VALUE + "\n"),  # one line break and no more: what is left is the secret's own
        (" " + VALUE + " \n", " " + VALUE + " "),
        ("first\nsecond\n", "first\nsecond"),  # a key in PEM
        ("x" * LONGEST, "x" * LONGEST),
    ],
)
@pytest.mark.parametrize("place", ["file", "credential", "command"])
def test_a_secret_is_what_is_there_without_the_line_break_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, written: str, read: str
) -> None:
    path = write(tmp_path / "secret", written)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    source = {
        "file": SecretSource(file=path),
        "credential": SecretSource(credential="secret"),
        "command": SecretSource(command=("/bin/cat", path)),
    }[place]
    assert read_secret(source) == Secret(read)


def test_a_secret_in_the_environment_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", VALUE + "\n")
    assert read_secret(SecretSource(env="TEST_SECRET")) == Secret(VALUE + "\n")
    assert "TEST_SECRET" not in os.environ
    assert read_secret(SecretSource(env="TEST_SECRET")) == Secret(VALUE + "\n"), "it is remembered"


def test_a_secret_is_read_anew_each_time(tmp_path: Path) -> None:
    source = SecretSource(file=write(tmp_path / "secret", "one"))
    assert read_secret(source) == Secret("one")
    write(tmp_path / "secret", "two")
    assert read_secret(source) == Secret("two")


def test_a_command_gets_no_environment_no_input_and_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", "hunter2")
    assert "hunter2" not in read_secret(shell("/usr/bin/env")).reveal()
    assert read_secret(shell("cat; echo end")) == Secret("end")
    descriptor = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        assert read_secret(shell(f"test -e /proc/self/fd/{descriptor} || echo closed")) == Secret("closed")
    finally:
        os.close(descriptor)


def test_a_command_is_no_shell(tmp_path: Path) -> None:
    assert read_secret(SecretSource(command=("/bin/echo", "$HOME; ls", "*"))) == Secret("$HOME; ls *")


# What cannot be had


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert unreadable(SecretSource(file=f"{tmp_path}/x")) == (
        f"{tmp_path}/x: No such file or directory; write the secret there, in a file that only brokerd can read"
    )


def test_what_is_no_regular_file_is_refused_and_nobody_waits_for_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for path in (pipe, Path("/dev/null")):
        assert (
            unreadable(SecretSource(file=str(path)))
            == f"{path}: expected a regular file, found something else; {WRITE}"
        )
    assert unreadable(SecretSource(file=str(tmp_path))) == f"{tmp_path}: Is a directory; {WRITE}"


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602, 0o601])
def test_a_file_that_everybody_can_open_is_refused_with_its_remedy(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "secret", "hunter2", mode)
    assert unreadable(SecretSource(file=path)) == (
        f"{path} can be opened by everybody on this machine; chmod o-rwx {path}"
    )


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
def test_a_file_for_owner_and_group_is_read(tmp_path: Path, mode: int) -> None:
    assert read_secret(SecretSource(file=write(tmp_path / "secret", "hunter2", mode))) == Secret("hunter2")


def test_a_credential_of_systemd_may_be_readable_where_systemd_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    write(tmp_path / "secret", "hunter2", 0o444)
    assert read_secret(SecretSource(credential="secret")) == Secret("hunter2")


def test_a_credential_needs_systemd_and_the_unit_to_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert unreadable(SecretSource(credential="ix")) == (
        "credential ix: there are no systemd credentials here; start brokerd as a unit with LoadCredential=ix:PATH"
    )
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert unreadable(SecretSource(credential="ix")) == (
        f"{tmp_path}/ix: No such file or directory; have brokerd's unit load the secret: LoadCredential=ix:PATH"
    )


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("TEST_UNSET", raising=False)
    if value is not None:
        monkeypatch.setenv("TEST_UNSET", value)
    assert unreadable(SecretSource(env="TEST_UNSET")) == (
        "environment variable TEST_UNSET is not set; set it where brokerd is started"
    )


def test_a_variable_that_is_not_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python hands bytes that are not UTF-8 over as lone surrogates, which no request can carry."""
    monkeypatch.setitem(os.environb, b"TEST_SECRET", b"hunter2 \xff")
    assert "TEST_SECRET is not text" in unreadable(SecretSource(env="TEST_SECRET"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter2 \xff\xfe", "is not text"),
        (b"hunter2" + b"x" * LONGEST, "is larger than 256 KiB, the limit for a secret"),
    ],
)
def test_what_is_no_secret_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = write(tmp_path / "secret", data)
    assert unreadable(SecretSource(file=path)) == f"{path} {message}; {WRITE}"
    assert unreadable(SecretSource(command=("/bin/cat", path))) == f"command /bin/cat {message}; {SEE_WHY}"


def test_a_command_that_fails_is_told_by_its_status_and_without_its_output() -> None:
    assert (
        unreadable(shell("echo hunter2; echo hunter2 >&2; exit 3")) == f"command /bin/sh ended with status 3; {SEE_WHY}"
    )
    assert unreadable(shell("echo hunter2; kill -9 $$")) == f"command /bin/sh ended with status -9; {SEE_WHY}"
    assert unreadable(SecretSource(command=("/nowhere/pass", "hunter2"))) == (
        f"command /nowhere/pass: No such file or directory; {SEE_WHY}"
    )


def test_a_command_that_writes_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_sources, "DEADLINE", 60)
    assert unreadable(SecretSource(command=("/bin/cat", "/dev/zero"))) == (
        f"command /bin/cat is larger than 256 KiB, the limit for a secret; {SEE_WHY}"
    )


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    fifo = tmp_path / "held"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        script = f"exec 3>{fifo}; sleep 60 >/dev/null & echo hunter2"
        assert read_secret(shell(script)) == Secret("hunter2")
        with select.epoll() as poll:  # the last writer, sleep, has closed it
            poll.register(reader, select.EPOLLHUP)
            assert poll.poll(10)
    finally:
        os.close(reader)


def test_a_command_that_hangs_is_ended_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_sources, "DEADLINE", 0.3)
    before = time.monotonic()
    assert unreadable(shell("echo hunter2; sleep 5")) == f"command /bin/sh did not end within 0.3 s; {SEE_WHY}"
    assert unreadable(shell("sleep 5 & sleep 5")) == f"command /bin/sh did not end within 0.3 s; {SEE_WHY}"
    assert time.monotonic() - before < 3


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfhunter2\n", b" hunter2\n", b"hunter2\n\n", b"hunter2\r\n\r\n"])
def test_a_slip_in_a_file_is_named_with_its_place_and_sent_as_it_is(tmp_path: Path, data: bytes) -> None:
    source = SecretSource(file=write(tmp_path / "secret", data))
    found = doubtful(source)
    assert found is not None
    assert found.startswith(f"{tmp_path / 'secret'} has a ")
    assert found.endswith("which is sent as a part of the secret; remove it, unless it belongs to the secret")
    assert "hunter2" not in found
    sent = read_secret(source).reveal().encode()
    assert sent == data.removesuffix(b"\n").removesuffix(b"\r")


def test_a_secret_without_a_slip_is_not_named(tmp_path: Path) -> None:
    assert doubtful(SecretSource(file=write(tmp_path / "secret", VALUE + "\n"))) is None


@pytest.mark.parametrize(
    ("source", "where"),
    [
        (SecretSource(text=Secret("hunter2 ")), "the text"),
        (SecretSource(env="TEST_SECRET"), "environment variable TEST_SECRET"),
        (SecretSource(credential="secret"), "credential secret"),
    ],
)
def test_a_slip_is_named_wherever_the_secret_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: SecretSource, where: str
) -> None:
    write(tmp_path / "secret", "hunter2 \n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("TEST_SECRET", "hunter2 ")
    found = doubtful(source)
    assert found is not None
    assert found.startswith(f"{where} has a blank at its end")


def test_only_a_running_brokerd_has_the_token_of_a_grant() -> None:
    with pytest.raises(
        SecretUnreadable, match="the token of the grant idp, which only a running brokerd has; elsewhere"
    ):
        read_secret(SecretSource(grant="idp"))
