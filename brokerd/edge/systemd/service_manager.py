# Runs the commands of systemd: to reload units, to seal a secret for this machine, to create users and folders from
# systemd's files. Blocking.
from __future__ import annotations

import os
import subprocess
from pathlib import Path

SECONDS = 120.0  # for one command; a stop that waits for an exchange can take 75
BOOTED = Path("/run/systemd/system")  # sd_booted(3)
STORE = Path("/etc/credstore.encrypted")


class CommandFailed(Exception):
    """The text says which command failed, and why."""


def is_running() -> bool:
    return BOOTED.is_dir()


def run(*command: str, data: bytes = b"") -> bytes:
    """Run a command. Returns its output. Raises CommandFailed."""
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
    """Seal the secret as a credential of that name for units of this machine. Returns its path, and what it is sealed
    with. Raises CommandFailed, and FileExistsError if it exists already; nothing is overwritten."""
    how = "this machine's host key (it has no usable TPM 2: whoever has the whole disk has both)"
    if _has_tpm():
        how = "this machine's TPM 2 and host key"
    sealed = run("systemd-creds", "encrypt", f"--name={name}", "-", "-", data=secret)
    if run("systemd-creds", "decrypt", f"--name={name}", "-", "-", data=sealed) != secret:
        raise CommandFailed("systemd-creds decrypt: its output differs from what was sealed")
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
