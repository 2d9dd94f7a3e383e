# What brokerd stands on: the clock, the disk under its store, memory that is not swapped, a user with few rights.
from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from brokerd.doctor.finding import Finding, ok, problem, unseen, warning
from brokerd.doctor.scene import Scene
from brokerd.edge.accounts import numbered
from brokerd.edge.clock import synchronised
from brokerd.edge.disk import Disk

LITTLE, NEARLY_NONE = 64 << 20, 8 << 20  # bytes; the store of ten thousand grants, and a write-ahead log
FEW_INODES = 16
# Where locks and shared memory are not this machine's alone, SQLite cannot keep its promises; elsewhere tokens go with
# the mount.
SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "glusterfs", "lustre", "vboxsf", "virtiofs"})
PASSING = frozenset({"tmpfs", "ramfs"})


def clock(_scene: Scene) -> Iterable[Finding]:
    if synchronised():
        return [ok("clock", "synchronised")]
    words = "not synchronised: tokens are renewed before they are served"
    return [warning("clock", words, "timedatectl set-ntp true && timedatectl status")]


def disk(scene: Scene) -> Iterable[Finding]:
    if scene.configuration is None:
        return []
    folder = next(each for each in (scene.state, *scene.state.parents) if each.exists())
    try:
        found = Disk.under(folder)
    except PermissionError:
        return [unseen("disk", str(folder))]
    return list(of_disk(found, folder, writable=folder == scene.state and scene.is_privileged)) or [
        ok("disk", f"{folder}: {found.kind}, {found.free >> 20:,} MiB free")
    ]


def of_disk(found: Disk, folder: Path, *, writable: bool) -> Iterator[Finding]:
    other = "put it elsewhere: [daemon] state_dir"
    if found.kind in SHARED:
        yield problem("disk", f"{folder} is on {found.kind}, which is shared between machines", other)
    elif found.kind in PASSING:
        yield problem("disk", f"{folder} is on {found.kind}: grants are lost with it", other)
    elif found.kind == "overlay":
        yield warning("disk", f"{folder} is in a container's own layer, and is lost with it", "mount a volume there")
    if found.read_only:
        how = f"dmesg | tail says why; a damaged file system is repaired first; or {other}"
        yield problem("disk", f"{folder} is mounted read-only", how)
        return
    if found.free < LITTLE or found.inodes < FEW_INODES:
        level = problem if found.free < NEARLY_NONE or found.inodes < FEW_INODES else warning
        free = f"{found.free >> 10:,} KiB and {found.inodes:,} files"
        yield level("disk", f"{folder}: there is room for {free}", f"df -h {folder}; du -xsh {found.mounted_on}/*")
    elif writable and (why := found.refuses(folder)) is not None:
        yield problem("disk", f"{folder} cannot be written: {os.strerror(why)}", _remedy(why, folder))


def _remedy(why: int, folder: Path) -> str:
    return {errno.EDQUOT: f"quota -vu; df -h {folder}"}.get(why, "dmesg | tail")


def memory(scene: Scene) -> Iterable[Finding]:
    """Locked in the daemon that runs; where none does, whether its unit allows that. Without either, nothing."""
    status = _status(scene)
    if status is None and scene.unit is None:
        return []
    if status is not None:
        locked = int(status.get("VmLck", "0").split()[0]) > 0
    else:
        locked = scene.unit is not None and scene.unit["LimitMEMLOCK"] == "infinity"
    if locked:
        return [ok("memory", "locked" if status is not None else "may be locked")]
    words = "not locked: tokens and keys may be swapped out"
    how = scene.edit("LimitMEMLOCK=infinity")
    if scene.unit is None:
        how = "raise memlock for its user (limits.conf(5)), log in again, and restart brokerd"
    if scene.unit is not None and scene.unit["LimitMEMLOCK"] == "infinity":
        words, how = f"{words}; the unit allows it, and what systemd runs in does not", "prlimit --memlock --pid 1"
    return [warning("memory", words, how)]


def user(scene: Scene) -> Iterable[Finding]:
    status = _status(scene)
    if status is None and scene.unit is None:
        return []
    uid = scene.account.uid if status is None else int(status["Uid"].split()[1])
    if uid == 0:
        words = "brokerd runs as root, which it never needs"
        how = "brokerctl install --system makes the user brokerd, and a unit that runs as that user"
        return [warning("user", words, how)]
    return [ok("user", f"brokerd runs as {numbered(uid).name}")]


def _status(scene: Scene) -> dict[str, str] | None:
    """What proc(5) says of the daemon's process; None where there is none."""
    if not scene.pid:
        return None
    try:
        lines = Path(f"/proc/{scene.pid}/status").read_text().splitlines()
    except OSError:
        return None
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
