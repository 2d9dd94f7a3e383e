# The facts that the checks work on: the configuration, the unit, the user that brokerd runs as, where its files and its
# socket are. They are gathered once, before the checks, which then say what is wrong with them.
from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from brokerd_client.address import find_socket

from brokerd.config.load import load
from brokerd.config.settings import Configuration
from brokerd.config.toml_files import DEFAULT_CONFIG
from brokerd.core.secret import SecretSource
from brokerd.core.validation import ConfigError
from brokerd.doctor.finding import LOOK_AS_ROOT, Finding
from brokerd.edge.peer.accounts import UserAccount, account, account_of, ourselves
from brokerd.edge.systemd import units
from brokerd.edge.systemd.socket import holder
from brokerd.edge.systemd.units import Unit
from brokerd.setup.installation import state_path

UNIT, SOCKET = "brokerd.service", "brokerd.socket"
CREDENTIALS = Path("/run/credentials")


@dataclass(frozen=True, slots=True)
class Facts:
    """`refused`: why the configuration cannot be used, if it cannot. `activator`: the unit of brokerd's socket. `pid`:
    of the running daemon, or 0. `environ`: the daemon's environment, or what it would be. `is_strange`: the user named
    a socket and no configuration, so this configuration may belong to another brokerd."""

    path: str
    configuration: Configuration | None
    refused: ConfigError | None
    unit: Unit | None
    activator: Unit | None
    pid: int
    account: UserAccount
    state: Path
    socket: Path
    environ: Mapping[str, str]
    is_strange: bool = False

    @property
    def is_privileged(self) -> bool:
        """Whether we can read everything that brokerd can read."""
        return os.geteuid() in (0, self.account.uid)

    @property
    def would_start(self) -> bool:
        """Whether brokerd is stopped and a connection to its socket would start it."""
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
        by_hand = f"stop the running brokerd, then start this one: {self.start}"
        return by_hand if self.unit is None else f"{self.systemctl} restart brokerd"

    @property
    def check_again(self) -> str:
        return f"then check again: brokerd --config {quote(self.path)} --check"

    @property
    def journal(self) -> str:
        if self.unit is None:
            return "read what brokerd wrote to stderr"
        return f"journalctl {'--user ' if self.unit.own else ''}-u brokerd -n 20"

    @property
    def is_own(self) -> bool:
        """Whether it is the brokerd of one user, not the machine's."""
        return self.unit.own if self.unit is not None else self.account.uid != 0 and self.path != DEFAULT_CONFIG

    def with_configuration(self, finding: Finding) -> Finding:
        """Add the configuration to a command for root: root would check the machine's own."""
        if finding.remedy != LOOK_AS_ROOT or self.path == DEFAULT_CONFIG:
            return finding
        return replace(finding, remedy=f"{LOOK_AS_ROOT} --config {quote(self.path)}")

    def edit(self, setting: str) -> str:
        """How to change a setting of the process, which its unit has if there is one."""
        return f"start brokerd with {setting}" if self.unit is None else f"{self.systemctl} edit brokerd: {setting}"

    def reachable(self, source: SecretSource) -> SecretSource:
        """The same secret at a place where others than brokerd can read it: a credential of a running unit."""
        if source.credential is None or self.unit is None or "CREDENTIALS_DIRECTORY" in os.environ:
            return source
        file = CREDENTIALS / self.unit.name / source.credential
        return SecretSource(file=str(file)) if os.access(file, os.R_OK) else source


def gather(
    path: str,
    socket: str | None,
    state_dir: Path | None,
    environ_of_state: Mapping[str, str],
    *,
    named: bool,
) -> Facts:
    """Blocking. What a check can explain better raises nothing here."""
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
    return Facts(path, configuration, refused, unit, activator, pid, user, state, at, environ, is_strange=strange)


def _account(unit: Unit | None, uid: int | None, state: Path) -> UserAccount:
    """The user that brokerd runs as: from its unit, else from its process (`uid`), else the owner of its directory."""
    if unit is not None and (unit.own or unit["DynamicUser"] != "yes"):
        return ourselves() if unit.own else account(unit["User"] or 0) or ourselves()
    with contextlib.suppress(OSError):
        return account_of(state.stat().st_uid if uid is None else uid)
    return ourselves()


def _environ(unit: Unit | None, pid: int) -> Mapping[str, str]:
    """The daemon's environment: the real one if it runs and we may read it, else what its unit says, else ours."""
    try:
        running = Path(f"/proc/{pid}/environ").read_bytes() if pid else b""
    except OSError:
        running = b""
    if not running:
        return os.environ if unit is None else unit.environment
    pairs = (each.partition("=") for each in running.decode(errors="replace").split("\0"))
    return {name: value for name, _, value in pairs}
