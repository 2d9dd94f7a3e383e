# systemd's own tools, as commands: its manager told to look again, a secret sealed for this machine, a user and folders
# made as its files say. Blocking.
from __future__ import annotations

import os
import subprocess
from pathlib import Path

SECONDS = 120.0  # for one command; a stop that waits for an exchange takes 75
BOOTED = Path("/run/systemd/system")  # sd_booted(3)
STORE = Path("/etc/credstore.encrypted")


class CommandFailed(Exception):
    """The text says which and why."""


def is_running() -> bool:
    return BOOTED.is_dir()


def run(*command: str, data: bytes = b"") -> bytes:
    """What a command writes. Raises CommandFailed."""
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=SECONDS)  # noqa: S603 - ours
    except FileNotFoundError:
        raise CommandFailed(f"there is no {command[0]}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"{' '.join(command)}: {type(error).__name__}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise CommandFailed(f"{' '.join(command)}: {said[-1] if said else f'status {done.returncode}'}")
    return done.stdout


def seal(name: str, secret: bytes) -> tuple[Path, str]:
    """The secret as a credential of that name for units of this machine: where it lies now, and what it is sealed with.
    Raises CommandFailed, and FileExistsError where there is one; nothing is ever overwritten."""
    how = "this machine's host key (it has no TPM 2 for this: who has the whole disk has both)"
    if _has_tpm():
        how = "this machine's TPM 2 and host key"
    sealed = run("systemd-creds", "encrypt", f"--name={name}", "-", "-", data=secret)
    if run("systemd-creds", "decrypt", f"--name={name}", "-", "-", data=sealed) != secret:
        raise CommandFailed("systemd-creds decrypt: gives back something else than what was sealed")
    STORE.mkdir(mode=0o700, exist_ok=True)
    path = STORE / name
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(sealed)
        file.flush()
        os.fsync(descriptor)
    return path, how


def _has_tpm() -> bool:
    try:
        run("systemd-creds", "has-tpm2")
    except CommandFailed:
        return False
    return True
