# Checks who owns the directories and files that brokerd uses, and who else can open or replace them. Each fault comes
# with the command that repairs it. Nothing is repaired automatically, because a fault may be a sign of an attack.
from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from brokerd.core.access.policy import OVERFLOW_ID
from brokerd.core.file_remedies import change
from brokerd.edge.audit.files import FOLDER

OTHERS = 0o077
# What to do if mode and owner must not be changed, because other programs may depend on them.
ELSEWHERE = {
    "the socket": "move the socket to a directory that only root and brokerd's user can change: [daemon] socket",
    "the command": "use a program in a directory that only root and brokerd's user can change",
    "the state directory": "use one in a directory that only root and brokerd's user can change: [daemon] state_dir",
}
OF_ITS_OWN = "use a directory that only brokerd uses: [daemon] state_dir"
STORE = ("brokerd.db", "brokerd.db-wal", "brokerd.db-shm", "lock", FOLDER)


def faults_of_state(folder: Path, uid: int | None = None) -> list[str]:
    """What is wrong with the state directory, the files of store and audit log in it, and the directories above it, if
    brokerd runs as the user `uid` (None: this process's user). Others could have changed files that they can write, so
    such files are not trusted. Raises OSError."""
    us = os.geteuid() if uid is None else uid
    faults = _faults(folder, 0o700, us) + _faults_above(folder, "the state directory", us)
    for path in _files(folder):
        if path.is_symlink():
            words = "replace the link by the file, or set [daemon] state_dir to the directory of the files"
            faults.append(f"{path} is a link, which may lead to a place where others can open it; {words}")
        elif path.exists():
            faults += _faults(path, 0o700 if path.is_dir() else 0o600, us)
    return faults


def faults_of_socket(folder: Path, uid: int | None = None) -> list[str]:
    """What is wrong with the socket's directory, if it exists, and with the directories above it. Whoever may write to
    them could replace our socket by another one, and receive what applications send. In a directory like /tmp this is
    possible while our socket does not exist."""
    us = os.geteuid() if uid is None else uid
    faults = _faults_above(folder, "the socket", us)
    if folder.exists():
        found = folder.stat()
        faults = [*_foreign(folder, found, "the socket", us), *faults]
        if found.st_mode & 0o022:
            remedy = _change("chmod go-w", folder, found, ELSEWHERE["the socket"])
            faults.insert(0, f"{folder} can be written by others, who could replace the socket; {remedy}")
    return faults


def faults_of_command(path: str, uid: int | None = None) -> list[str]:
    """Why a command of the configuration must not be run: it is not there, or others could change it. Blocking."""
    us = os.geteuid() if uid is None else uid
    try:
        faults = []
        for each in dict.fromkeys((Path(path), Path(os.path.realpath(path)))):
            found = each.stat()
            faults += [*_foreign(each, found, "the command", us), *_faults_above(each, "the command", us)]
        if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
            return [f"{path} is not a program; name one, and make it executable: chmod +x"]
        if found.st_mode & 0o022:
            remedy = _change("chmod go-w", each, found, ELSEWHERE["the command"])
            return [f"{path} can be written by others, who could replace the command; {remedy}"]
    except OSError as error:
        return [f"{path}: {error.strerror}; name a program that is there, and that brokerd's user can reach"]
    return faults


def _files(folder: Path) -> Iterator[Path]:
    yield from (folder / name for name in STORE)
    with contextlib.suppress(OSError):  # it does not exist, or is not ours, which is reported
        yield from sorted((folder / FOLDER).glob("*.jsonl"))


def _faults_above(folder: Path, what: str, us: int) -> list[str]:
    """Whoever may rename a directory on the path can replace it. In a directory like /tmp only its owner can."""
    faults = []
    for path in dict.fromkeys((*folder.parents, *Path(os.path.realpath(folder)).parents)):
        with contextlib.suppress(FileNotFoundError):  # it does not exist yet
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
    """It never advises to run brokerd as root, nor to give the files of a service's user to root."""
    as_owner = f"run brokerd as {_name(found.st_uid)}"
    if us == 0:
        return as_owner
    take = _change(f"chown {_name(us)}", path, found, OF_ITS_OWN)
    return f"as root: {take}" if found.st_uid == 0 else f"{as_owner}, or as root: {take}"


def _change(command: str, path: Path, found: os.stat_result, instead: str) -> str:
    """The command for that path, unless others depend on it (core/file_remedies.py) or it is a home directory."""
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
