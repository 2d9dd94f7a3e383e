# Finds the path of a cgroup by its id (pidfds.py), which is the inode of its folder. /proc/PID/cgroup says where to
# look first; on older kernels it is the only source. Only version 2 is read: systemd keeps its units there.
from __future__ import annotations

import functools
import os
import re
from pathlib import Path

MAX_DELEGATED = 10_000  # folders that a search looks at below each folder that root delegated to a user
MAX_CACHED = 100_000  # paths

_paths: dict[int, str] = {}  # by id: an id is never used twice, and a cgroup of version 2 cannot be renamed


class CgroupUnreadable(Exception):
    """The cgroup of a process cannot be read; the text says why."""


def known(cgroup: int | None) -> str:
    """The path of a cgroup that was found before; else empty text."""
    return "" if cgroup is None else _paths.get(cgroup, "")


def path_of(cgroup: int | None, pid: int) -> str:
    """The path of the process's cgroup. `cgroup`: its id, if the kernel gives it. If /proc does not lead to that id,
    the whole tree is searched. Raises CgroupUnreadable."""
    if cgroup is None:
        return _from_proc(pid)
    if cgroup not in _paths:
        if (path := _without_search(cgroup, pid)) is None or len(_paths) > MAX_CACHED:
            _paths.clear()
        _paths.update(_search() if path is None else {cgroup: path})
    if (known := _paths.get(cgroup)) is None:
        raise CgroupUnreadable("could not be read: its cgroup is not below the cgroup file system that brokerd sees")
    return known


def _without_search(cgroup: int, pid: int) -> str | None:
    """The path in /proc/PID/cgroup, if the cgroup there has this id. Meanwhile the pid may belong to another
    process."""
    try:
        path = _from_proc(pid)
        return path if Path(_mounted() + path).stat().st_ino == cgroup else None
    except (OSError, CgroupUnreadable):
        return None


def _from_proc(pid: int) -> str:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
    except OSError as error:
        raise CgroupUnreadable(f"could not be read: /proc/{pid}/cgroup: {error.strerror}") from None
    for line in lines:
        if line.startswith("0::"):
            return line[3:]
    raise CgroupUnreadable("could not be read: this machine has no cgroups of version 2")


def _search() -> dict[int, str]:
    """All cgroups. A user can create any number of cgroups below a folder that root delegated to it, so at most
    MAX_DELEGATED of them are read for each such folder, and they cannot hide those of others."""
    root = _mounted()
    at = Path(root).stat()
    found, left = {at.st_ino: "/"}, dict[str, int]()  # by delegated folder: how many more may be read
    folders: list[tuple[str, str | None]] = [("", None)]  # each with the delegated folder that it is in, if any
    while folders:
        path, delegated = folders.pop()
        try:
            with os.scandir(root + path) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        continue
                    below = f"{path}/{entry.name}"
                    within = delegated or (below if entry.stat(follow_symlinks=False).st_uid != at.st_uid else None)
                    if within is not None and (more := left.get(within, MAX_DELEGATED)) > 0:
                        left[within] = more - 1
                    elif within is not None:
                        break
                    found[entry.inode()] = below
                    folders.append((below, within))
        except OSError:
            pass  # the folder was removed meanwhile
    return found


@functools.cache
def _mounted() -> str:
    """Where the cgroup file system is mounted. Raises CgroupUnreadable."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields, _, kind = line.partition(" - ")
        root, target = fields.split()[3:5]
        if kind.startswith("cgroup2 ") and root == "/":
            return re.sub(r"\\([0-7]{3})", lambda each: chr(int(each[1], 8)), target)
    raise CgroupUnreadable("could not be read: no cgroup file system of version 2 is mounted")
