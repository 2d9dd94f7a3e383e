# What the path of a cgroup says: unit, slice, container. Pure. Only folders that systemd or a container engine running
# as root made count: below its own service or user manager, any user can make folders of any name.
from __future__ import annotations

import re
from dataclasses import dataclass

UNIT = re.compile(r"[^/]+\.(service|scope|socket|mount|swap)")  # the kinds that have processes
MANAGER = re.compile(r"user@(\d+)\.service")  # a user's own systemd
CONTAINER = re.compile(r"(?:[a-z-]+-)?([0-9a-f]{64})(?:\.scope)?")  # docker-, libpod-, cri-containerd-, crio-, or none


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process runs. `user_unit` is a unit of the systemd of the user `manager`."""

    unit: str | None = None
    slice: str | None = None
    container: str | None = None
    manager: int | None = None
    user_unit: str | None = None


def read_place(path: str) -> Place:
    """The place that a cgroup's path (version 2, from the root) names; empty if the cgroup is deleted or not
    visible."""
    if not path.startswith("/") or path.startswith("/..") or path.endswith(" (deleted)"):
        return Place()
    folders = [folder.removeprefix("_") for folder in path.split("/") if folder]  # systemd escapes names with it
    slice_, rest = _after_slices(folders)
    if not rest or not UNIT.fullmatch(rest[0]):
        return Place(slice=slice_, container=_container(rest))
    unit = rest[0]
    if (manager := MANAGER.fullmatch(unit)) is None:
        return Place(unit, slice_, _container([unit]))
    _, below = _after_slices(rest[1:])
    user_unit = below[0] if below and UNIT.fullmatch(below[0]) else None
    return Place(unit, slice_, None, int(manager[1]), user_unit)


def _after_slices(folders: list[str]) -> tuple[str | None, list[str]]:
    """The innermost slice at the beginning of the path, and the folders below it."""
    count = next((number for number, folder in enumerate(folders) if not folder.endswith(".slice")), len(folders))
    return (folders[count - 1] if count else None), folders[count:]


def _container(folders: list[str]) -> str | None:
    """The outermost container: the container's own root may have named what is inside."""
    for folder in folders:
        if (found := CONTAINER.fullmatch(folder)) is not None:
            return found[1]
        if UNIT.fullmatch(folder):
            return None
    return None
