# The directories and files that brokerd lives in: whose they are and who else can open them. What is wrong is told
# with the command that mends it; nothing is mended by itself, because it may be a sign.
from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

OTHERS = 0o077
STORE = ("brokerd.db", "lock")  # SQLite gives its log the mode of its database


def faults_of_state(folder: Path, uid: int | None = None) -> list[str]:
    """What is wrong with the state directory and the files of the store in it, for a brokerd of that user, ourselves
    unless named. Raises OSError."""
    us = os.geteuid() if uid is None else uid
    faults = _faults(folder, 0o700, us)
    for path in (folder / name for name in STORE):
        if path.is_symlink():
            faults.append(f"{path} is a link, and the store might lie where others can open it; rm {path}")
        elif path.exists():
            faults += _faults(path, 0o600, us)
    return faults


def faults_of_socket(folder: Path, uid: int | None = None) -> list[str]:
    """What is wrong with the socket's directory, if it is there: who may write to it could put a socket of his own in
    the place of ours, and be given what applications ask for."""
    us = os.geteuid() if uid is None else uid
    if not folder.exists():
        return []
    found = folder.stat()
    faults = []
    if found.st_uid not in (0, us):
        faults.append(f"{folder} belongs to {_name(found.st_uid)}, who could replace the socket; chown root {folder}")
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        faults.append(f"{folder} can be written by others, who could replace the socket; chmod go-w {folder}")
    return faults


def _faults(path: Path, mode: int, us: int) -> list[str]:
    found, faults = path.stat(), []
    if found.st_uid != us:
        owner = _name(found.st_uid)
        faults.append(f"{path} belongs to {owner}; run brokerd as {owner}, or: chown {_name(us)} {path}")
    if found.st_mode & OTHERS:
        faults.append(f"{path} can be opened by others than its owner; chmod {mode:o} {path}")
    elif found.st_mode & mode != mode:
        faults.append(f"{path} cannot be read and written by its owner; chmod {mode:o} {path}")
    return faults


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
