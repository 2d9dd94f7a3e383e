# What there is to look at: the configuration, the unit, who brokerd runs as, where its files and its socket are. Read
# once, before the checks; what is wrong with it is for them to say.
from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from brokerd_client.address import find_socket

from brokerd.config import DEFAULT_CONFIG, Configuration, load
from brokerd.core.secret import SecretSource
from brokerd.core.typed import ConfigError
from brokerd.doctor.finding import LOOK_AS_ROOT, Finding
from brokerd.edge import units
from brokerd.edge.accounts import Account, account, numbered, ourselves
from brokerd.edge.listen import holder
from brokerd.edge.units import Unit
from brokerd.installation import state_path

UNIT, SOCKET = "brokerd.service", "brokerd.socket"
CREDENTIALS = Path("/run/credentials")


@dataclass(frozen=True, slots=True)
class Scene:
    """`refused`: why the configuration cannot be used, where it cannot. `activator`: the unit of its socket. `pid`: of
    the daemon that runs, or 0; `environ`: its environment, or what it would be. `is_strange`: a socket was named, and
    no configuration: the one that is looked at need not be that of the brokerd there."""

    path: str
    configuration: Configuration | None
    refused: ConfigError | None
    unit: Unit | None
    activator: Unit | None
    pid: int
    account: Account
    state: Path
    socket: Path
    environ: Mapping[str, str]
    is_strange: bool = False

    @property
    def is_privileged(self) -> bool:
        """Whether we see everything that brokerd sees."""
        return os.geteuid() in (0, self.account.uid)

    @property
    def would_start(self) -> bool:
        """Whether brokerd does not run, and whoever connects starts it."""
        unit, activator = self.unit, self.activator
        rests = unit is not None and unit["ActiveState"] in ("inactive", "failed")
        return rests and activator is not None and activator["ActiveState"] == "active"

    @property
    def systemctl(self) -> str:
        return "systemctl --user" if self.unit is not None and self.unit.own else "systemctl"

    @property
    def start(self) -> str:
        return f"brokerd --config {quote(self.path)}" if self.unit is None else f"{self.systemctl} start brokerd"

    @property
    def restart(self) -> str:
        start = self.start
        return f"stop it, and start this one: {start}" if self.unit is None else f"{self.systemctl} restart brokerd"

    @property
    def journal(self) -> str:
        if self.unit is None:
            return "look at what brokerd has written to stderr"
        return f"journalctl {'--user ' if self.unit.own else ''}-u brokerd -n 20"

    @property
    def is_own(self) -> bool:
        """Whether it is a user's own brokerd, not the machine's."""
        return self.unit.own if self.unit is not None else self.account.uid != 0 and self.path != DEFAULT_CONFIG

    def addressed(self, finding: Finding) -> Finding:
        """With the configuration in a command for root, who would look at another one."""
        if finding.remedy != LOOK_AS_ROOT or self.path == DEFAULT_CONFIG:
            return finding
        return replace(finding, remedy=f"{LOOK_AS_ROOT} --config {quote(self.path)}")

    def edit(self, setting: str) -> str:
        """How the process gets something that its unit says."""
        return f"start it with {setting}" if self.unit is None else f"{self.systemctl} edit brokerd: {setting}"

    def reachable(self, source: SecretSource) -> SecretSource:
        """The same secret from where it can be read without being brokerd: a credential of a unit that runs."""
        if source.credential is None or self.unit is None or "CREDENTIALS_DIRECTORY" in os.environ:
            return source
        file = CREDENTIALS / self.unit.name / source.credential
        return SecretSource(file=str(file)) if os.access(file, os.R_OK) else source


def look_round(
    path: str,
    socket: str | None,
    state_dir: Path | None = None,
    environ_of_state: Mapping[str, str] = os.environ,
    *,
    named: bool = False,
) -> Scene:
    """Blocking. Raises nothing that a check could say better."""
    configuration, refused = None, None
    try:
        configuration = load(path)
    except ConfigError as error:
        refused = error
    unit = units.find(UNIT, own=False) or (units.find(UNIT, own=True) if os.geteuid() else None)
    activator = units.find(SOCKET, own=unit.own) if unit is not None else None
    told = configuration.daemon.socket if configuration else None
    from_environment = os.environ.get("BROKERD_SOCKET")
    at = Path(socket or (told if named else None) or from_environment or told or find_socket())
    pid, uid = (unit.pid, None) if unit is not None else holder(at) or (0, None)
    environ = _environ(unit, pid)
    known = environ if "STATE_DIRECTORY" in environ else environ_of_state
    state = state_dir or state_path(configuration or Configuration(path), known)
    user = _account(unit, uid, state)
    strange = not named and (socket or from_environment) is not None
    return Scene(path, configuration, refused, unit, activator, pid, user, state, at, environ, is_strange=strange)


def _account(unit: Unit | None, uid: int | None, state: Path) -> Account:
    """Who brokerd runs as: its unit says so, or its process does (`uid`), or else whose its directory is."""
    if unit is not None and (unit.own or unit["DynamicUser"] != "yes"):
        return ourselves() if unit.own else account(unit["User"] or 0) or ourselves()
    with contextlib.suppress(OSError):
        return numbered(state.stat().st_uid if uid is None else uid)
    return ourselves()


def _environ(unit: Unit | None, pid: int) -> Mapping[str, str]:
    """The daemon's environment: as it is where it runs and may be looked at, as its unit has it, or else ours."""
    try:
        running = Path(f"/proc/{pid}/environ").read_bytes() if pid else b""
    except OSError:
        running = b""
    if not running:
        return os.environ if unit is None else unit.environment
    pairs = (each.partition("=") for each in running.decode(errors="replace").split("\0"))
    return {name: value for name, _, value in pairs}
