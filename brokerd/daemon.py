# brokerd(8): the only place where objects are built and joined. Start, reload, shutdown; nothing is decided here
# that could be decided below.
from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import trio
from brokerd_client.wire import pack_error

from brokerd import __version__
from brokerd.audit import Audit
from brokerd.broker import Broker
from brokerd.checking import check_configuration, in_order, located, warnings
from brokerd.config import DEFAULT_CONFIG, Configuration, DaemonSettings, GrantSettings, ProviderSettings
from brokerd.core.admission import Admission
from brokerd.core.failure import Code, Failure
from brokerd.core.policy import Policy
from brokerd.core.ports import Http, StoreError, StoreUnavailable
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.typed import ConfigError
from brokerd.custody import Custody
from brokerd.edge import descriptor_store, descriptors, hardening, listen, log, place, systemd
from brokerd.edge.audit_file import FOLDER
from brokerd.edge.clock import SystemClock
from brokerd.edge.entropy import SystemEntropy
from brokerd.edge.http import HttpClient
from brokerd.edge.peer import SystemProcesses, demand_credentials
from brokerd.edge.sealed_record import Stored
from brokerd.edge.secrets import SecretUnreadable, read_secret
from brokerd.edge.store import Store, in_thread
from brokerd.edge.trail import Trail
from brokerd.exchanger import Exchanger, SecretsUnreadable
from brokerd.held import HeldGrant
from brokerd.installation import (
    EXIT_CONFIGURATION,
    EXIT_UNAVAILABLE,
    CannotStart,
    http_settings,
    key_sources,
    loaded,
    opened_store,
    read_key,
    refuse,
    socket_path,
)
from brokerd.installing import in_use
from brokerd.methods import NOT_ADOPTED, Methods
from brokerd.metrics import Metrics
from brokerd.noticing import notice_secrets
from brokerd.provider import Provider
from brokerd.refresher import refresh_ahead
from brokerd.reload import Changes, admit, bring_in, fingerprint_of, fingerprints, sweep_dormant
from brokerd.server import Server
from brokerd.service import Service

CLOSE_IDLE = 15.0  # seconds between looks at connections that are kept and not used
SWEEP = 86_400.0  # seconds between looks at what has lain dormant for too long
LANDING = 10.0  # seconds for exchanges under way at SIGTERM; those that spend keep their own deadline (law 3)


def main() -> None:
    """The command `brokerd`."""
    arguments = parser().parse_args()
    hardening.harden()
    said = log.Log(arguments.log_level)
    path, folders = in_use(arguments.config)
    for name, folder in folders.items():
        os.environ.setdefault(name, folder)  # as the unit of a user's own brokerd sets them
    try:
        if arguments.check:
            sys.exit(_checked(path))
        gc.disable()  # what a start makes stays; looking through it again and again would double its time
        trio.run(functools.partial(run, path))
    except (CannotStart, ConfigError) as error:
        said.cannot_start(str(error))
        sys.exit(_status(error))
    finally:
        said.close()


def _status(error: CannotStart | ConfigError) -> int:
    return error.code if isinstance(error, CannotStart) else EXIT_CONFIGURATION


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="brokerd", description="Keeps API tokens fresh and hands them to local processes."
    )
    made.add_argument(
        "--config",
        metavar="FILE",
        help=f"configuration file (your own, ~/.config/brokerd/brokerd.toml, if there is one, else {DEFAULT_CONFIG})",
    )
    made.add_argument(
        "--check", action="store_true", help="check the configuration and what it names, then exit with 0 or 2"
    )
    made.add_argument("--log-level", choices=log.LEVELS, default="info", help="how much to log (default: %(default)s)")
    version = f"brokerd {__version__}"
    made.add_argument("--version", action="version", version=version, help="print the version, then exit")
    return made


def _checked(path: str) -> int:
    """The exit code of `--check`. For root it looks as the user who owns the configuration: what that names may be a
    file of somebody else's, which root alone could read."""
    from brokerd.ctl.acting import as_owner_of
    from brokerd.ctl.terminal import Failed

    try:
        return as_owner_of(Path(path), lambda: _check(path))
    except FileNotFoundError:
        return _check(path)  # which says so
    except Failed as failed:
        print(f"brokerd: {failed}", file=sys.stderr)  # noqa: T201 - it is what the command is for
        return EXIT_CONFIGURATION


def _check(path: str) -> int:
    """What `--check` says, and its exit code."""
    right: str | None = None
    errors: list[ConfigError] = []
    try:
        right = check_configuration(path)
    except ConfigError as error:
        errors = [error, *error.others]
    for each in in_order(errors):
        print(f"brokerd: {located(each)}", file=sys.stderr)  # noqa: T201 - it is what the command is for
    for each in warnings(path):
        print(f"brokerd: warning: {located(each)}", file=sys.stderr)  # noqa: T201
    if right is not None:
        print(right)  # noqa: T201
    return EXIT_CONFIGURATION if errors else 0


# -- running


async def run(path: str) -> None:
    """The daemon, until SIGTERM or SIGINT. Raises ConfigError, CannotStart."""
    pieces = descriptor_store.from_systemd(os.environ)
    with _passed() as passed:
        configuration = await in_thread(functools.partial(loaded, path))
        with (
            contextlib.closing(await opened_store(configuration, pieces)) as store,
            _listening(configuration.daemon, passed) as listener,
        ):
            async with trio.open_nursery() as writing:
                writing.start_soon(store.run)
                trail = await _trail(configuration, store)
                if trail is not None:
                    writing.start_soon(trail.run)
                daemon = Daemon(path, store, configuration, trail)
                del configuration  # it may hold secrets as text, which `lock` has to let go
                await daemon.run(listener)
                writing.cancel_scope.cancel()


@dataclass
class Daemon:
    """The parts that a reload needs to reach. `configuration`: what to begin with; None from then on."""

    path: str
    store: Store
    configuration: Configuration | None
    trail: Trail | None

    def __post_init__(self) -> None:
        assert self.configuration is not None
        self.settings = self.configuration.daemon
        self.clock, self.entropy = SystemClock(), SystemEntropy()
        self.audit = Audit(trail=self.trail, required=self.settings.audit == "stop")
        self.metrics = Metrics()
        self.providers: dict[str, Provider] = {}
        self.broker: Broker
        self.service: Service
        self.server: Server

    async def run(self, listener: socket.socket) -> None:
        self.store.noticed = self._note_trouble
        self._say_how_safe()
        if self.store.is_new and not self.store.is_locked:
            self.audit.said("a new store was begun", path=str(self.store.path))
        if (done := self.store.migration) is not None:
            words = f"the store was brought from schema {done.before} to {done.after}"
            self.audit.said(words, kept=str(done.copy))
        if not self.store.adopted:
            self.audit.warned(NOT_ADOPTED, path=str(self.store.path))
        self.audit.said("starting", version=__version__, pid=os.getpid())
        if self.trail is not None:
            self.trail.noticed = self._note_audit_trouble
            await self.trail.write()  # whether it can be written is known before anybody is served
        async with trio.open_nursery() as flights:
            exchanger = Exchanger(self.store, self.clock, self.entropy, read_secrets, self.audit, self.metrics)
            self.broker = Broker(flights, self.store, self.clock, self.entropy, exchanger, self.audit, self.metrics)
            self.service = Service(self.broker, systemd.notify)
            async with trio.open_nursery() as serving:
                custody = Custody(self.store, self.broker, self, self.audit)
                processes = SystemProcesses()
                methods = Methods(self.broker, serving, self.reload, custody, self.audit, self.metrics, processes)
                limits = self.settings.limits.within(descriptors.raise_limit())
                admission = Admission(limits, os.geteuid())
                self.server = Server(serving, methods, admission, self.audit, self.metrics)
                await self._begin()
                gc.freeze()  # nor does a collection of later look through ten thousand grants while callers wait
                gc.enable()
                with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
                    serving.start_soon(self.server.accept, listener)
                    serving.start_soon(refresh_ahead, self.broker.flights, self.clock)
                    serving.start_soon(self._sweep)
                    serving.start_soon(self._close_idle)
                    serving.start_soon(notice_secrets, self.broker, files_are_readable, self._admit)
                    serving.start_soon(self.service.run)
                    serving.start_soon(custody.go_on)
                    self.audit.said(
                        "ready", version=__version__, grants=len(self.broker.grants), socket=_name(listener)
                    )
                    if self.broker.locked:
                        self.audit.warned("brokerd is locked and serves nothing", remedy="brokerctl unlock")
                    await self._until_stopped(signals)
                self.broker.flights.stopping = True
                self.service.stopping()
                serving.cancel_scope.cancel()
            listener.close()  # who connects from now on is refused at once, or kept by systemd for the next one
            with trio.move_on_after(LANDING):
                await self.broker.flights.landed()
            flights.cancel_scope.cancel()
        with trio.move_on_after(LANDING):  # an exchange that spends may have taken longer than the wait for it
            await self.broker.flights.store_again()
        self.broker.flights.tell_what_is_lost()
        self.audit.said("stopped")
        if self.trail is not None:
            await self.trail.write(everything=True)

    async def _begin(self) -> None:
        configuration, self.configuration = self.configuration, None
        assert configuration is not None
        if self.store.is_locked:
            self.server.methods.policy, self.broker.locked = _policy(configuration), True
        else:
            await self._bring_in(configuration, await in_thread(self.store.all))

    def _say_how_safe(self) -> None:
        if not hardening.lock_memory():
            self.audit.said("memory is not locked and may be swapped out", remedy="LimitMEMLOCK=infinity in its unit")
        if os.geteuid() == 0:
            self.audit.warned("brokerd runs as root, which it never needs", remedy="User=brokerd in its unit")

    def _note_trouble(self) -> None:
        """The log learns when the disk fails, and when it is back."""
        if self.store.trouble:
            self.audit.warned("the store cannot be written", reason=self.store.trouble)
        else:
            self.audit.said("the store can be written again")

    def _note_audit_trouble(self) -> None:
        why, _ = self.audit.trouble
        if why is None:
            self.audit.said("the audit log can be written again")
        else:
            self.audit.warned("THE AUDIT LOG CANNOT BE WRITTEN", reason=why, then=self.settings.audit)

    async def _until_stopped(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number != signal.SIGHUP:
                return
            with contextlib.suppress(Failure):  # it was logged
                await self.reload()

    async def reload(self) -> Changes:
        """Read the configuration again, all or nothing (law 14). Raises Failure."""
        if self.broker.locked:
            raise self.broker.locked_failure()
        systemd.notify("RELOADING=1")
        try:
            configuration = await in_thread(functools.partial(loaded, self.path))
            changes = await self._bring_in(configuration, None)
        except (ConfigError, StoreError) as error:
            self.audit.warned("the configuration was not reloaded; nothing has changed", reason=str(error))
            code = Code.MISCONFIGURED if isinstance(error, ConfigError) else Code.UNAVAILABLE
            more = len(error.others) if isinstance(error, ConfigError) else 0
            words = f"; {more} more: brokerd --config {quote(self.path)} --check" if more else ""
            raise Failure(code, f"nothing has changed: {error}{words}") from None
        finally:
            await self.service.ready()
        self.audit.said("reloaded", added=changes.added, changed=changes.changed, removed=changes.removed)
        if configuration.daemon != self.settings:
            changes.restart = True
            self.audit.warned("[daemon] has changed: that counts from the next start on")
        return changes

    async def _bring_in(self, configuration: Configuration, stored: list[Stored] | None) -> Changes:
        """`stored` has all records at the start; at a reload, None, those of grants that are new are read."""
        prints = await trio.to_thread.run_sync(fingerprints, configuration, limiter=_secrets)
        starting = stored is not None
        if stored is None:
            held = {name: held.fingerprint for name, held in self.broker.grants.items()}
            new = [name for name, printed in prints.items() if held.get(name) != printed]
            stored = [row for name in new for row in await self.store.read(name)]
        else:
            for row in stored:
                if row.recovered:
                    words = "what could not be stored before this start was held by systemd"
                    self.audit.warned(words, grant=row.grant, stored=not row.unstored)
            times = [row.record.changed.wall for row in stored if row.record and row.record.changed]
            self.clock.floor = max(times, default=0.0)
        changes, unused = bring_in(
            self.broker,
            configuration,
            prints,
            stored,
            await in_thread(self.store.breakers) if starting else {},
            self.providers,
            self._way_out,
            self.clock,
            self.entropy,
            starting=starting,
            metadata=await in_thread(self.store.metadata) if starting else {},
        )
        self.server.methods.policy = _policy(configuration)
        for http in unused:
            await http.aclose()
        with contextlib.suppress(StoreError):  # the next start does it again
            await self.store.set_dormant(changes.awake, None)
            await self.store.set_dormant(changes.aside, self.clock.now().wall)
        return changes

    # -- for the custody of the keys

    async def key_sources(self) -> tuple[SecretSource, ...]:
        try:
            configuration = await in_thread(functools.partial(loaded, self.path))
        except ConfigError as error:
            raise Failure(Code.MISCONFIGURED, f"nothing has changed: {error}") from None
        return key_sources(configuration)

    async def read_key(self, source: SecretSource) -> bytes:
        try:
            return await trio.to_thread.run_sync(read_key, self.path, source, limiter=_secrets)
        except ConfigError as error:
            raise Failure(Code.MISCONFIGURED, f"nothing has changed: {error}") from None

    async def resume(self) -> None:
        try:
            configuration = await in_thread(functools.partial(loaded, self.path))
            if self.trail is not None:
                self.trail.unlock(await self.store.audit_memory())
            await self._bring_in(configuration, await in_thread(self.store.all))
        except (ConfigError, StoreError) as error:
            code = Code.MISCONFIGURED if isinstance(error, ConfigError) else Code.UNAVAILABLE
            raise Failure(code, f"still locked: {error}") from None

    async def let_go(self) -> None:
        if self.trail is not None:
            await self.trail.lock()
        for provider in self.providers.values():
            await provider.http.aclose()
        self.providers.clear()
        gc.unfreeze()
        gc.collect()

    def _way_out(self, settings: ProviderSettings) -> Http:
        return HttpClient(http_settings(settings), self.clock)

    async def _close_idle(self) -> None:
        while True:
            await trio.sleep(CLOSE_IDLE)
            for provider in self.providers.values():
                provider.http.sweep()

    async def _admit(self, held: HeldGrant) -> None:
        with contextlib.suppress(StoreError, SecretUnreadable):  # the next look does it again
            printed = await trio.to_thread.run_sync(fingerprint_of, held.settings, limiter=_secrets)
            rows = await self.store.read(held.name)
            if self.broker.grants.get(held.name) is held:
                changes = admit(self.broker, held, printed, rows)
                await self.store.set_dormant(changes.awake, None)
                await self.store.set_dormant(changes.aside, self.clock.now().wall)

    async def _sweep(self) -> None:
        while True:
            await sweep_dormant(self.store, self.clock, self.audit)
            await trio.sleep(SWEEP)


async def read_secrets(settings: GrantSettings) -> dict[str, Secret]:
    """The credentials of a grant, read in threads of their own (law 13). Raises SecretsUnreadable."""

    def read() -> dict[str, Secret]:
        found = {}
        for name, source in settings.credentials.items():
            try:
                found[name] = read_secret(source)
            except SecretUnreadable as error:
                raise SecretsUnreadable(str(error), in_file=source.file is not None) from None
        return found

    return await trio.to_thread.run_sync(read, limiter=_secrets, abandon_on_cancel=True)


async def files_are_readable(settings: GrantSettings) -> bool:
    """Whether the grant's secrets that are in files can be read."""

    def look() -> bool:
        for _, source in settings.sources:
            if source.file is not None:
                read_secret(source)
        return True

    try:
        return await trio.to_thread.run_sync(look, limiter=_secrets, abandon_on_cancel=True)
    except SecretUnreadable:
        return False


_secrets = trio.CapacityLimiter(8)


# -- what else it stands on


async def _trail(configuration: Configuration, store: Store) -> Trail | None:
    """The audit log, unless there is to be none."""
    settings = configuration.daemon
    if settings.audit == "off":
        return None
    try:
        memory = None if store.is_locked else await store.audit_memory()
    except StoreUnavailable as error:
        raise CannotStart(str(error), EXIT_UNAVAILABLE) from None
    return Trail(store.path.parent / FOLDER, memory, settings.audit_size * 1024 * 1024, store.remember_audit)


def _policy(configuration: Configuration) -> Policy:
    return Policy(configuration.rules, os.geteuid())


@contextlib.contextmanager
def _passed() -> Iterator[socket.socket | None]:
    """systemd's socket, if it passed one. Where a person has to mend something first, nobody is kept waiting at it."""
    try:
        passed = listen.from_systemd(os.environ)
    except listen.CannotListen as error:
        raise CannotStart(str(error)) from None
    try:
        yield passed
    except (CannotStart, ConfigError) as error:
        if passed is not None and _status(error) == EXIT_CONFIGURATION:
            own = "--user " if str(passed.getsockname()).startswith("/run/user/") else ""
            words = f"brokerd cannot start; its log says why: journalctl {own}-u brokerd"
            listen.turn_away(passed, pack_error(None, Failure(Code.MISCONFIGURED, words).as_map()))
        raise


@contextlib.contextmanager
def _listening(settings: DaemonSettings, passed: socket.socket | None) -> Iterator[socket.socket]:
    """The listening socket. One of our own goes with us; systemd's stays, and keeps those who connect meanwhile."""
    path = socket_path(settings)
    try:
        if passed is None:
            refuse(place.faults_of_socket(path.parent))
        listener = passed or listen.at(path, settings.socket_mode, settings.socket_group)
    except listen.CannotListen as error:
        raise CannotStart(str(error)) from None
    demand_credentials(listener)
    try:
        yield listener
    finally:
        listener.close()
        if passed is None:
            path.unlink(missing_ok=True)


def _name(listener: socket.socket) -> str:
    return str(listener.getsockname())


if __name__ == "__main__":
    main()
