# The directories and files that brokerd lives in: whose they are, and who else can open or replace them. What is wrong
# is told with the command that mends it; nothing is mended by itself, because it may be a sign.
from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from brokerd.core.policy import OVERFLOW_ID
from brokerd.core.remedy import change
from brokerd.edge.audit_file import FOLDER

OTHERS = 0o077
# What to do where a mode or an owner is not brokerd's to change: others may depend on it.
ELSEWHERE = {
    "the socket": "put the socket into a directory that only root and brokerd's user can change: [daemon] socket",
    "the state directory": "use one in a directory that only root and brokerd's user can change: [daemon] state_dir",
}
OF_ITS_OWN = "use a directory that is brokerd's alone: [daemon] state_dir"
STORE = ("brokerd.db", "brokerd.db-wal", "brokerd.db-shm", "lock", FOLDER)


def faults_of_state(folder: Path, uid: int | None = None) -> list[str]:
    """What is wrong with the state directory, the files of the store and the audit log in it, and the way to it, for a
    brokerd of that user, ourselves unless named. What others have left there, while they could, is believed by nobody.
    Raises OSError."""
    us = os.geteuid() if uid is None else uid
    faults = _faults(folder, 0o700, us) + _faults_above(folder, "the state directory", us)
    for path in _files(folder):
        if path.is_symlink():
            words = "put the file itself there, or set [daemon] state_dir to where the files are"
            faults.append(f"{path} is a link, and might lead to where others can open it; {words}")
        elif path.exists():
            faults += _faults(path, 0o700 if path.is_dir() else 0o600, us)
    return faults


def faults_of_socket(folder: Path, uid: int | None = None) -> list[str]:
    """What is wrong with the socket's directory, if it is there, and the way to it: who may write to it could replace
    our socket by another, and be given what applications ask for. In a directory like /tmp that is possible while ours
    is not there."""
    us = os.geteuid() if uid is None else uid
    faults = _faults_above(folder, "the socket", us)
    if folder.exists():
        found = folder.stat()
        faults = [*_foreign(folder, found, "the socket", us), *faults]
        if found.st_mode & 0o022:
            remedy = _change("chmod go-w", folder, found, ELSEWHERE["the socket"])
            faults.insert(0, f"{folder} can be written by others, who could replace the socket; {remedy}")
    return faults


def _files(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in STORE)
    with contextlib.suppress(OSError):  # there is none, or it is not ours: then that is said
        yield from sorted((folder / FOLDER).glob("*.jsonl"))


def _faults_above(folder: Path, what: str, us: int) -> list[str]:
    """Who may rename a directory on the way can put another one in its place; in one like /tmp only his own."""
    faults = []
    for path in dict.fromkeys((*folder.parents, *Path(os.path.realpath(folder)).parents)):
        with contextlib.suppress(FileNotFoundError):  # it is still to be made
            found = path.stat()
            if found.st_uid != OVERFLOW_ID:  # root of another user namespace
                faults += _foreign(path, found, what, us)
            if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
                faults.append(f"{path} can be written by others, who could replace {what}; {ELSEWHERE[what]}")
    return faults


def _foreign(path: Path, found: os.stat_result, what: str, us: int) -> list[str]:
    if found.st_uid in (0, us):
        return []
    return [f"{path} belongs to {_name(found.st_uid)}, who could replace {what}; {ELSEWHERE[what]}"]


def _faults(path: Path, mode: int, us: int) -> list[str]:
    found, faults = path.stat(), []
    if found.st_uid != us:
        faults.append(f"{path} belongs to {_name(found.st_uid)}; {_to_own(path, found, us)}")
    if found.st_mode & OTHERS:
        remedy = _change(f"chmod {mode:o}", path, found, OF_ITS_OWN)
        faults.append(f"{path} can be opened by others than its owner; {remedy}")
    elif found.st_mode & mode != mode:
        remedy = _change(f"chmod {mode:o}", path, found, OF_ITS_OWN)
        faults.append(f"{path} cannot be read and written by its owner; {remedy}")
    return faults


def _to_own(path: Path, found: os.stat_result, us: int) -> str:
    """Nobody is told to run brokerd as root, nor, as root, to take a service's files away from its user."""
    as_owner = f"run brokerd as {_name(found.st_uid)}"
    if us == 0:
        return as_owner
    take = _change(f"chown {_name(us)}", path, found, OF_ITS_OWN)
    return f"as root: {take}" if found.st_uid == 0 else f"{as_owner}, or as root: {take}"


def _change(command: str, path: Path, found: os.stat_result, instead: str) -> str:
    """The command for that path, unless others depend on it (core/remedy.py) or it is somebody's home."""
    return instead if _home(found.st_uid) == path else change(command, os.path.realpath(path), found.st_mode, instead)


def _home(uid: int) -> Path | None:
    try:
        return Path(pwd.getpwuid(uid).pw_dir)
    except KeyError:
        return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
