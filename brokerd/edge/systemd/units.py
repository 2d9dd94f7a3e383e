# Reads what the service manager says about a unit, with `systemctl show`, which works with every version. It starts,
# stops and changes nothing.
from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from brokerd.edge.systemd import service_manager

WITHIN = 5.0  # seconds; a manager that reloads needs one
PROPERTIES = (
    *("LoadState", "UnitFileState", "ActiveState", "Result", "NeedDaemonReload", "MainPID", "ExecMainStatus"),
    *("ExecStart", "User", "DynamicUser", "Environment", "LimitMEMLOCK"),
    *("LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted", "ImportCredential"),
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit that a service manager knows. `own`: the user's manager, not the system's."""

    name: str
    properties: Mapping[str, str]
    own: bool = False

    def __getitem__(self, name: str) -> str:
        return self.properties.get(name, "")

    @property
    def pid(self) -> int:
        """The pid of its process; 0 if there is none."""
        return int(self["MainPID"] or 0)

    @property
    def program(self) -> Path | None:
        """The program that it starts."""
        path = self["ExecStart"].partition("path=")[2].partition(" ;")[0]
        return Path(path) if path else None

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its file sets; EnvironmentFile= may add others."""
        pairs = (each.partition("=") for each in shlex.split(self["Environment"]))
        return {name: value for name, _, value in pairs}

    @property
    def credentials(self) -> frozenset[str]:
        """The names of its credentials."""
        names = (self[each] for each in PROPERTIES if "Credential" in each)
        return frozenset(each.partition(":")[0] for each in " ".join(names).split())


def find(name: str, *, own: bool) -> Unit | None:
    """The unit in the system's manager, or with `own` in the user's; None if that has none, or without systemd."""
    if not service_manager.is_running():
        return None
    which = ("--user",) if own else ()
    command = ["systemctl", *which, "show", "--property", ",".join(PROPERTIES), name]
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=WITHIN
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.decode(errors="replace").splitlines()
    properties = {key: value for key, _, value in (line.partition("=") for line in lines)}
    known = properties.get("LoadState", "not-found") != "not-found"
    return Unit(name, properties, own) if known else None
