# One simulated world: a machine that starts brokerd again whenever it ends, with its clocks, disk, files and providers.
# events.py decides what happens in it, recovery_check.py how it ends, laws.py what must be true.
from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from random import Random
from unittest import mock

import trio

from brokerd.config.load import load
from brokerd.config.settings import Configuration
from brokerd.core.exchange import request_ids
from brokerd.edge.audit import writer
from tests.stress.simulation import providers as models
from tests.stress.simulation.clock import Clock
from tests.stress.simulation.crash import Crashed
from tests.stress.simulation.disk import Disk
from tests.stress.simulation.events import happen
from tests.stress.simulation.keys_and_backups import Backup, Keys, Systemd
from tests.stress.simulation.laws import Laws
from tests.stress.simulation.life import Life
from tests.stress.simulation.providers import RIGHT
from tests.stress.simulation.recovery_check import heal, last_look
from tests.stress.simulation.schedule import GRANTS, PASSWORD, PROVIDER_OF, Schedule

SCOPE = ["read", "write", "admin"]


class Entropy:
    """The Entropy port, from the seed."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def bytes(self, n: int) -> bytes:
        """An exchange's id decides nothing, so it takes nothing of the seed."""
        return bytes(n) if n == request_ids.BYTES else self._random.randbytes(n)

    def fraction(self) -> float:
        return self._random.random()


@functools.lru_cache(maxsize=512)
def _loaded(path: Path, text: str) -> Configuration:
    path.write_text(text)
    path.chmod(0o600)
    return load(path)


class Time:
    """What the audit log takes for the module `time`."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._counted = clock, 0

    def time(self) -> float:
        return self._clock.now().wall

    def monotonic_ns(self) -> int:
        self._counted += 1
        return self._counted


class World:
    """A schedule at work. `run` is the main task of a trio of its own."""

    def __init__(self, schedule: Schedule, folder: Path) -> None:
        self.schedule, self.folder = schedule, folder
        self.clock, self.disk = Clock(), Disk()
        self._random = Random(f"{schedule.seed} world")
        self.torn = Random(f"{schedule.seed} torn")
        self.entropy = Entropy(Random(f"{schedule.seed} entropy"))
        self.over = trio.Event()
        self.providers = {
            name: models.Provider(name, setup, self.clock, Random(f"{schedule.seed} {name}"))
            for name, setup in schedule.setup.providers.items()
        }
        self.laws = Laws(self)
        self.machine = "machine-1"
        self.systemd, self.keys = Systemd(), Keys(Random(f"{schedule.seed} keys"))
        self.backup: Backup | None = None
        self.copied: dict[bytes, Backup] = {}  # all that were ever taken, by their content
        self.restoring = False  # once brokerd has ended, the backup is put back
        self.life: Life | None = None
        self.lives = self.crashes = 0
        self.ended = 0.0  # when, once it has
        self.without: set[str] = set()
        self.scoped: set[str] = set()
        self.armed: tuple[str, int] | None = None  # the place where it crashes, at the so manieth time
        self.down = 0.1  # seconds until brokerd is started again
        self.password_file = folder / "password"
        self.write_password(RIGHT)

    def time(self) -> float:
        return trio.current_time()

    def provider_of(self, grant: str) -> models.Provider:
        return self.providers[PROVIDER_OF[grant]]

    def disk_delay(self) -> float:
        slow = 5.0 if self.clock.true() < self.disk.slow else 0.0
        return self._random.random() * (self.schedule.setup.disk_latency + slow)

    def write_password(self, value: str) -> None:
        self.password_file.write_text(value)
        self.password_file.chmod(0o600)

    def strikes(self, where: str) -> bool:
        """Whether the schedule wants a crash here and now."""
        if self.armed is None or self.armed[0] != where:
            return False
        self.armed = (where, self.armed[1] - 1) if self.armed[1] > 1 else None
        return self.armed is None

    def configuration(self, *, half: bool = False) -> Configuration:
        """What is configured. `half`: the file is being written. Raises ConfigError."""
        text = self._text() + ("\n[grants.half" if half else "")
        return _loaded(self.folder / "brokerd.toml", text)

    def _text(self) -> str:
        parts = []
        for name, setup in self.schedule.setup.providers.items():
            lines = [f"[providers.{name}]", 'dialect = "oauth2"', f'token_url = "https://{name}.test/token"']
            if setup.revocation:
                lines.append(f'revocation_url = "https://{name}.test/revoke"')
            if "dev" in self.schedule.setup.grants:
                lines.append(f'device_authorization_url = "https://{name}.test/device"')
            lines += [f"reuse_grace = {setup.grace}", f"concurrency = {setup.concurrency}"]
            parts.append("\n".join(lines))
        for grant in self.schedule.setup.grants:
            if grant in self.without:
                continue
            credentials = f'client_id = "{grant}"'
            if GRANTS[grant] == PASSWORD:
                credentials += f', username = "alice", password = {{ file = "{self.password_file}" }}'
            else:
                credentials += ', client_secret = "test-only-secret"'
            auth = "none" if GRANTS[grant] == PASSWORD else "client_secret_post"
            lines = [f"[grants.{grant}]", f'provider = "{PROVIDER_OF[grant]}"', f'grant_type = "{GRANTS[grant]}"']
            lines += [f'client_auth = "{auth}"', f"credentials = {{ {credentials} }}"]
            scope = SCOPE + (["more"] if grant in self.scoped else [])
            lines += [f"scope = {scope}", 'fields = ["id"]']
            parts.append("\n".join(lines))
        return "\n".join(parts)

    # -- running

    async def run(self) -> None:
        try:
            with mock.patch.object(writer, "time", Time(self.clock)):
                await self._run()
        finally:
            self.ended = self.clock.true()

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._machine)
            nursery.start_soon(self._happen)
            await self.over.wait()
            if self.life is not None:
                self.life.crash()
            nursery.cancel_scope.cancel()

    async def _machine(self) -> None:
        """Starts brokerd again whenever it has ended, as systemd does."""
        while True:
            self.lives += 1
            self.life = Life(self, self.lives)
            await self.life.run()
            self.life = None
            if self.restoring and self.backup is not None:
                self._restore(self.backup)
            await trio.sleep(self.down)

    def _restore(self, backup: Backup) -> None:
        self.restoring = False
        backup.restore(self.folder)
        self.keys.put_back(backup.key)
        self.systemd.pieces.clear()  # brokerd was stopped
        self.laws.restored(backup.records)

    async def _happen(self) -> None:
        try:
            for event in self.schedule.events:
                await trio.sleep_until(event.at)
                happen(self, event)
                if self.life is not None:
                    self.life.look()
            await trio.sleep_until(self.schedule.horizon)
            with contextlib.suppress(Crashed):  # a law was broken, and the world ends
                await heal(self)
                await last_look(self)
        finally:
            self.over.set()

    @property
    def there(self) -> Life | None:
        """The life that is up."""
        return self.life if self.life is not None and self.life.ready else None
