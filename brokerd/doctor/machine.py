# Checks the machine: its clock, the disk under the store, memory that is not swapped, a user with few rights.
from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from brokerd.doctor.context import Facts
from brokerd.doctor.finding import Finding, hidden, ok, problem, warning
from brokerd.edge.files.disk import Disk
from brokerd.edge.peer.accounts import account_of
from brokerd.edge.system.clock import synchronised

LITTLE, NEARLY_NONE = 64 << 20, 8 << 20  # bytes; the store of ten thousand grants, and a write-ahead log
FEW_INODES = 16
# Where locks and shared memory are not this machine's alone, SQLite cannot keep its promises; elsewhere tokens go with
# the mount.
SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "glusterfs", "lustre", "vboxsf", "virtiofs"})
PASSING = frozenset({"tmpfs", "ramfs"})


def clock(_scene: Facts) -> Iterable[Finding]:
    if synchronised():
        return [ok("clock", "synchronised")]
    words = "not synchronised, so brokerd renews every token before it serves it after a start"
    return [warning("clock", words, "timedatectl set-ntp true && timedatectl status")]


def disk(facts: Facts) -> Iterable[Finding]:
    if facts.configuration is None:
        return []
    folder = next(each for each in (facts.state, *facts.state.parents) if each.exists())
    try:
        found = Disk.under(folder)
    except PermissionError:
        return [hidden("disk", str(folder))]
    return list(of_disk(found, folder, writable=folder == facts.state and facts.is_privileged)) or [
        ok("disk", f"{folder}: {found.kind}, {found.free >> 20:,} MiB free")
    ]


def of_disk(found: Disk, folder: Path, *, writable: bool) -> Iterator[Finding]:
    other = "use another directory: set [daemon] state_dir"
    if found.kind in SHARED:
        words = f"{folder} is on {found.kind}, which is shared between machines: SQLite's locks do not work there"
        yield problem("disk", words, other)
    elif found.kind in PASSING:
        yield problem("disk", f"{folder} is on {found.kind}: all grants are lost at the next boot", other)
    elif found.kind == "overlay":
        words = f"{folder} is in a container's own layer and is lost when the container is removed"
        yield warning("disk", words, "mount a volume there")
    if found.read_only:
        how = f"find out why: dmesg | tail; if the file system is damaged, repair it first; or {other}"
        yield problem("disk", f"{folder} is mounted read-only", how)
        return
    if found.free < LITTLE or found.inodes < FEW_INODES:
        level = problem if found.free < NEARLY_NONE or found.inodes < FEW_INODES else warning
        free = f"{found.free >> 10:,} KiB and {found.inodes:,} files"
        yield level("disk", f"{folder}: only room for {free}", f"df -h {folder}; du -xsh {found.mounted_on}/*")
    elif writable and (why := found.refuses(folder)) is not None:
        remedy = f"quota -vu; df -h {folder}" if why == errno.EDQUOT else "dmesg | tail"
        yield problem("disk", f"{folder} cannot be written: {os.strerror(why)}", remedy)


def memory(facts: Facts) -> Iterable[Finding]:
    """The memory of the running daemon is locked, or its unit allows that. Without daemon and unit, no finding."""
    status = _status(facts)
    if status is None and facts.unit is None:
        return []
    if status is not None:
        locked = int(status.get("VmLck", "0").split()[0]) > 0
    else:
        locked = facts.unit is not None and facts.unit["LimitMEMLOCK"] == "infinity"
    if locked:
        return [ok("memory", "locked" if status is not None else "may be locked")]
    words = "not locked: tokens and keys may be written to swap"
    how = facts.edit("LimitMEMLOCK=infinity")
    if facts.unit is None:
        how = "raise memlock for brokerd's user (limits.conf(5)), log in again, and start brokerd again"
    elif facts.unit["LimitMEMLOCK"] == "infinity":
        words += ". The unit allows locking, but the container or system around systemd does not"
        how = "prlimit --memlock --pid 1"
    return [warning("memory", words, how)]


def user(facts: Facts) -> Iterable[Finding]:
    status = _status(facts)
    if status is None and facts.unit is None:
        return []
    uid = facts.account.uid if status is None else int(status["Uid"].split()[1])
    if uid == 0:
        words = "brokerd runs as root, which it never needs"
        how = "create the user brokerd and a unit that runs as it: brokerctl install --system"
        return [warning("user", words, how)]
    return [ok("user", f"brokerd runs as {account_of(uid).name}")]


def _status(facts: Facts) -> dict[str, str] | None:
    """What proc(5) says of the daemon's process; None where there is none."""
    if not facts.pid:
        return None
    try:
        lines = Path(f"/proc/{facts.pid}/status").read_text().splitlines()
    except OSError:
        return None
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
