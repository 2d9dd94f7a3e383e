# Where a cgroup is: by the id that the kernel has for it (edge/pidfds.py), which is the inode of a folder. /proc says
# where to look first, and on older kernels nothing else does. Version 2 alone: with it systemd keeps its units.
from __future__ import annotations

import functools
import os
import re
from pathlib import Path

MOST = 10_000  # folders that a search looks at below each folder that root gave to a user
REMEMBERED = 100_000  # paths

_paths: dict[int, str] = {}  # ids are never used twice, and a folder of version 2 cannot be renamed


class Unread(Exception):
    """The cgroup of a process cannot be told; the text says why."""


def known(cgroup: int | None) -> str:
    """The path of a cgroup that was looked for before; else empty."""
    return "" if cgroup is None else _paths.get(cgroup, "")


def path_of(cgroup: int | None, pid: int) -> str:
    """The path of the process's cgroup, whose id is given where the kernel says it. It may take a search, where /proc
    does not lead there. Raises Unread."""
    if cgroup is None:
        return _from_proc(pid)
    if cgroup not in _paths:
        if (path := _at_once(cgroup, pid)) is None or len(_paths) > REMEMBERED:
            _paths.clear()
        _paths.update(_search() if path is None else {cgroup: path})
    if (known := _paths.get(cgroup)) is None:
        raise Unread("could not be read: its cgroup is not below the cgroup file system that brokerd sees")
    return known


def _at_once(cgroup: int, pid: int) -> str | None:
    """Where /proc says that the process is, if the cgroup of that id is there: by then the number may be another's."""
    try:
        path = _from_proc(pid)
        return path if Path(_mounted() + path).stat().st_ino == cgroup else None
    except (OSError, Unread):
        return None


def _from_proc(pid: int) -> str:
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
    except OSError as error:
        raise Unread(f"could not be read: /proc/{pid}/cgroup: {error.strerror}") from None
    for line in lines:
        if line.startswith("0::"):
            return line[3:]
    raise Unread("could not be read: this machine has no cgroups of version 2")


def _search() -> dict[int, str]:
    """Every cgroup. Whoever was given a folder makes any number below it: so many count, and hide nobody else's."""
    root = _mounted()
    at = Path(root).stat()
    found, room = {at.st_ino: "/"}, dict[str, int]()  # by folder that was given: how many more are looked at
    folders: list[tuple[str, str | None]] = [("", None)]  # each with the one that was given, if it is below one
    while folders:
        path, given = folders.pop()
        try:
            with os.scandir(root + path) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        continue
                    below = f"{path}/{entry.name}"
                    its = given or (below if entry.stat(follow_symlinks=False).st_uid != at.st_uid else None)
                    if its is not None and (left := room.get(its, MOST)) > 0:
                        room[its] = left - 1
                    elif its is not None:
                        break
                    found[entry.inode()] = below
                    folders.append((below, its))
        except OSError:
            pass  # it went away meanwhile
    return found


@functools.cache
def _mounted() -> str:
    """Where the cgroup file system is. Raises Unread."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields, _, kind = line.partition(" - ")
        root, target = fields.split()[3:5]
        if kind.startswith("cgroup2 ") and root == "/":
            return re.sub(r"\\([0-7]{3})", lambda each: chr(int(each[1], 8)), target)
    raise Unread("could not be read: no cgroup file system of version 2 is mounted")
