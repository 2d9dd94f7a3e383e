# Reads secrets from the sources that the configuration names: text, file, systemd credential, environment variable,
# command. Blocking: callers run it in a thread. No error contains what was read.
from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
import time
from pathlib import Path

from brokerd.core.file_remedies import change
from brokerd.core.secret import Secret, SecretSource, doubts
from brokerd.edge.system import environment

LONGEST = 256 * 1024 + 2  # bytes: the longest token, and a line break
DEADLINE = 10.0  # seconds for a command
WRITE = "write the secret there, in a file that only brokerd can read"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SecretUnreadable(Exception):
    """The secret could not be read. The text says what was expected, what was found, and the remedy."""


def read_secret(source: SecretSource) -> Secret:
    """The secret, without a line break at its end. Raises SecretUnreadable."""
    try:
        return _read_from(source)
    except SecretUnreadable as error:
        text = str(error)
    raise SecretUnreadable(text if "; " in text else f"{text}; {_remedy(source)}")


def _read_from(source: SecretSource) -> Secret:
    if source.text is not None:
        return source.text
    if source.file is not None:
        return _decode(_read(Path(source.file)), source.file)
    if source.credential is not None:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        if not folder:
            words = "there are no systemd credentials here; start brokerd as a unit with LoadCredential="
            raise SecretUnreadable(f"credential {source.credential}: {words}{source.credential}:PATH")
        return _decode(_read(Path(folder) / source.credential, private=False), f"credential {source.credential}")
    if source.env is not None:
        try:
            value = environment.take(source.env)
        except UnicodeError:
            raise SecretUnreadable(f"environment variable {source.env} is not text") from None
        if value is None:
            raise SecretUnreadable(f"environment variable {source.env} is not set")
        return value
    if source.command is None:
        words = f"it is the token of the grant {source.grant}, which only a running brokerd has"
        raise SecretUnreadable(
            f'{words}; elsewhere write {{ command = ["/usr/bin/brokerctl", "get", "{source.grant}"] }}'
        )
    return _decode(_run(source.command), f"command {source.command[0]}")


def doubtful(source: SecretSource) -> str | None:
    """What looks like a mistake in the secret, and where; None: nothing. The secret is sent unchanged all the same.
    Raises SecretUnreadable."""
    found = doubts(read_secret(source).reveal())
    if found is None:
        return None
    where = source.file or (source.credential and f"credential {source.credential}")
    where = where or (source.env and f"environment variable {source.env}") or "the text"
    return f"{where} has {found}, which is sent as a part of the secret; remove it, unless it belongs to the secret"


def _remedy(source: SecretSource) -> str:
    """The remedy for errors that name none."""
    if source.file is not None:
        return WRITE
    if source.credential is not None:
        return f"have brokerd's unit load the secret: LoadCredential={source.credential}:PATH"
    if source.env is not None:
        return "set it where brokerd is started"
    return "run the command as brokerd's user to see why"


def _read(path: Path, *, private: bool = True) -> bytes:
    """The bytes of a regular file. Anything else is refused: reading a pipe or a terminal could wait for ever."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise SecretUnreadable(f"{path}: expected a regular file, found something else")
            if private and stat.S_IMODE(mode) & 0o007:
                remedy = change("chmod o-rwx", os.path.realpath(path), mode, "write the secret to a file of its own")
                raise SecretUnreadable(f"{path} can be opened by everybody on this machine; {remedy}")
            return file.read(LONGEST + 1)
    except PermissionError as error:
        words = "let brokerd's user read it, and be that user or root where you read it yourself"
        raise SecretUnreadable(f"{path}: {error.strerror}; {words}") from None
    except OSError as error:
        raise SecretUnreadable(f"{path}: {error.strerror}") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)


def _run(command: tuple[str, ...]) -> bytes:
    """The command's output. The command gets no environment but PATH, and no descriptors. Processes that it leaves
    behind are killed."""
    deadline = time.monotonic() + DEADLINE
    try:
        process = subprocess.Popen(  # noqa: S603 - the operator's own command, absolute and without a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": PATH},
            start_new_session=True,  # it cannot write input to our terminal, which may be root's
        )
    except OSError as error:
        raise SecretUnreadable(f"command {command[0]}: {error.strerror}") from None
    try:
        output = _output(process, deadline)
    except subprocess.TimeoutExpired:
        raise SecretUnreadable(f"command {command[0]} did not end within {DEADLINE:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # before wait(), so no other process can have this pid
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    if process.returncode and len(output) <= LONGEST:
        raise SecretUnreadable(f"command {command[0]} ended with status {process.returncode}")
    return output


def _output(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What it writes until it has ended; reading stops when the output is too long. Raises
    subprocess.TimeoutExpired."""
    assert process.stdout is not None
    output = b""
    end = os.pidfd_open(process.pid)
    try:
        while len(output) <= LONGEST:
            _wait(process.stdout.fileno(), process, deadline)
            if not (data := os.read(process.stdout.fileno(), LONGEST + 1 - len(output))):
                _wait(end, process, deadline)
                break
            output += data
    finally:
        os.close(end)
    return output


def _wait(descriptor: int, process: subprocess.Popen[bytes], deadline: float) -> None:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise subprocess.TimeoutExpired(process.args, DEADLINE)


def _decode(data: bytes, what: str) -> Secret:
    if len(data) > LONGEST:
        raise SecretUnreadable(f"{what} is larger than {LONGEST // 1024} KiB, the limit for a secret")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise SecretUnreadable(f"{what} is not text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise SecretUnreadable(f"{what} is empty")
    return Secret(text)
