# Where a cgroup is: by the id that the kernel has for it (edge/pidfds.py), which is the inode of a folder; on older
# kernels by /proc/PID/cgroup. Version 2 alone: with it systemd keeps its units.
from __future__ import annotations

import functools
import os
import re
from pathlib import Path

MOST = 100_000  # folders that a search looks at

_paths: dict[int, str] = {}  # ids are never used twice, and a folder of version 2 cannot be renamed


class Unread(Exception):
    """The cgroup of a process cannot be told; the text says why."""


def known(cgroup: int | None) -> str:
    """The path of a cgroup that was looked for before; else empty."""
    return "" if cgroup is None else _paths.get(cgroup, "")


def path_of(cgroup: int | None, pid: int) -> str:
    """The path of the process's cgroup, whose id is given where the kernel says it. It may take a search. Raises
    Unread."""
    if cgroup is None:
        return _from_proc(pid)
    if (path := _paths.get(cgroup)) is None:
        found = _search()
        _paths.clear()
        _paths.update(found)
        if (path := found.get(cgroup)) is None:
            raise Unread("could not be read: its cgroup is not below the cgroup file system that brokerd sees")
    return path


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
    root = _mounted()
    found, folders = {Path(root).stat().st_ino: "/"}, [""]
    while folders and len(found) < MOST:
        path = folders.pop()
        try:
            with os.scandir(root + path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        found[entry.inode()] = below = f"{path}/{entry.name}"
                        folders.append(below)
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
