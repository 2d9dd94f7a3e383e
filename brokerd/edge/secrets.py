# Reads secrets from where the configuration says they are: text, file, systemd credential, environment, command.
# Blocking: callers run it in a thread. What was read is never in an error.
from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

from brokerd.core.secret import Secret, SecretSource

LONGEST = 64 * 1024  # bytes; room for a key in PEM, a chain of certificates, a signed assertion
DEADLINE = 10.0  # seconds for a command
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class SecretUnreadable(Exception):
    """The secret could not be had. The text says what was looked for, what was found, and the remedy."""


def read_secret(source: SecretSource) -> Secret:
    """The secret, without one line break at its end. Raises SecretUnreadable."""
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
        value = os.environ.get(source.env)
        if not value:
            raise SecretUnreadable(f"environment variable {source.env} is not set")
        if any("\ud800" <= each <= "\udfff" for each in value):  # how Python hands over bytes that are not UTF-8
            raise SecretUnreadable(f"environment variable {source.env} is not text")
        return Secret(value)
    assert source.command is not None
    return _decode(_run(source.command), f"command {source.command[0]}")


def _read(path: Path, *, private: bool = True) -> bytes:
    try:
        with path.open("rb") as file:
            if private and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o007:
                raise SecretUnreadable(f"{path} can be opened by everybody on this machine; chmod o-rwx {path}")
            return file.read(LONGEST + 1)
    except OSError as error:
        raise SecretUnreadable(f"{path}: {error.strerror}") from None


def _run(command: tuple[str, ...]) -> bytes:
    """The command's output; its environment is empty but for PATH, and it inherits no descriptors."""
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command, absolute and without a shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": PATH},
            timeout=DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SecretUnreadable(f"command {command[0]} did not end within {DEADLINE:g} s") from None
    except OSError as error:
        raise SecretUnreadable(f"command {command[0]}: {error.strerror}") from None
    if done.returncode:
        raise SecretUnreadable(f"command {command[0]} ended with status {done.returncode}")
    return done.stdout


def _decode(data: bytes, what: str) -> Secret:
    if len(data) > LONGEST:
        raise SecretUnreadable(f"{what} is larger than {LONGEST // 1024} KiB, which no secret is")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise SecretUnreadable(f"{what} is not text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise SecretUnreadable(f"{what} is empty")
    return Secret(text)
