# brokerd(8): the command line, and the only place where the objects of the daemon are built and joined. It runs them
# from the start to the stop.
# ruff: noqa: E402 - gc.disable() comes before the imports
from __future__ import annotations

import gc
import sys

gc.disable()  # what an import makes stays; searching it for garbage again and again would be a fifth of the start
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment] # structlog would import it, for colours that are not used

    import structlog  # noqa: F401

    del sys.modules["rich"]

import argparse
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping

import trio
from brokerd_client.wire import load_msgpack
from prometheus_client import ProcessCollector

from brokerd import __version__
from brokerd.alerts.commands import AlertCommands
from brokerd.alerts.expiry_watch import watch_expiries
from brokerd.broker.broker import TokenBroker
from brokerd.broker.changed_secrets import notice_changes
from brokerd.broker.exchanges import ExchangeRunner
from brokerd.broker.key_management import KeyManager
from brokerd.broker.missing_secrets import notice_secrets
from brokerd.broker.reload import sweep_dormant
from brokerd.broker.slow_providers import notice_slow
from brokerd.config.settings import Configuration, ProviderSettings
from brokerd.config.toml_files import DEFAULT_CONFIG
from brokerd.core.access.admission import Admission
from brokerd.core.audit import findings
from brokerd.core.errors import Failure
from brokerd.core.events import Event
from brokerd.core.ports import Http
from brokerd.core.validation import ConfigError
from brokerd.daemon.auditing import audit_writer
from brokerd.daemon.certificates import watch_certificates
from brokerd.daemon.check_command import check
from brokerd.daemon.configuring import Configurator
from brokerd.daemon.file_reading import files_are_readable, read_files, read_secrets
from brokerd.daemon.late_imports import import_late
from brokerd.daemon.listening import LOGGED_AS, PROTOCOLS, Listeners, address_of, exit_code, listening, passed_sockets
from brokerd.daemon.readiness import Readiness
from brokerd.daemon.sharing import AnyStore, as_itself, connect, stop_serving_offline, store_of
from brokerd.edge.audit.writer import AuditWriter
from brokerd.edge.fleet.store import FleetStore
from brokerd.edge.http.client import HttpClient
from brokerd.edge.peer.peer import SystemProcesses
from brokerd.edge.store.store import SqliteStore
from brokerd.edge.system import descriptors, hardening, log
from brokerd.edge.system.clock import SystemClock
from brokerd.edge.system.entropy import SystemEntropy
from brokerd.edge.system.shared_memory import SharedMemory
from brokerd.edge.systemd import descriptor_store, notify
from brokerd.server.http.metrics_port import MetricsPort
from brokerd.server.methods.changes import ChangeMethods
from brokerd.server.methods.dispatcher import Dispatcher
from brokerd.server.methods.explain import ExplainMethod
from brokerd.server.methods.fleet import FleetMethod
from brokerd.server.methods.health import HealthMethods
from brokerd.server.methods.keys import KeyMethods
from brokerd.server.methods.log_level import LogLevelMethod
from brokerd.server.methods.login import LoginMethods
from brokerd.server.methods.overview import OverviewMethod
from brokerd.server.methods.proxied import ProxiedMethod
from brokerd.server.methods.share import ShareMethod
from brokerd.server.methods.status import StatusMethods
from brokerd.server.methods.status_watch import StatusWatchMethod
from brokerd.server.methods.table import methods
from brokerd.server.methods.tokens import TokenMethods
from brokerd.server.methods.trace import TraceMethods
from brokerd.server.methods.try_event import EventTestMethod
from brokerd.server.methods.watch import WatchMethods
from brokerd.server.rights import Rights
from brokerd.server.scrape import Scrape
from brokerd.server.server import Server
from brokerd.server.shared_tokens import SharedTokens
from brokerd.server.short_way import RepeatedGets
from brokerd.server.token_memories import TokenMemories
from brokerd.setup.installation import CannotStart, http_settings, opened_store, read_configuration
from brokerd.setup.layout import in_use
from brokerd.telemetry.event_log import EventLog
from brokerd.telemetry.metrics import Metrics

gc.freeze()  # so that no collection looks at them again
gc.enable()

CLOSE_IDLE = 15.0  # seconds between looks for HTTP connections that were kept open and not used
SWEEP = 86_400.0  # seconds between looks for records that have been dormant for too long
STOP_WITHIN = 10.0  # seconds for exchanges under way at SIGTERM; one that sends a stored token has more (law 3)


def main() -> None:
    """The command `brokerd`."""
    arguments = parser().parse_args()
    load_msgpack()
    hardening.harden()
    output = log.Log(arguments.log_level, form=arguments.log_format)
    path, folders = in_use(arguments.config)
    for name, folder in folders.items():
        os.environ.setdefault(name, folder)  # as the unit of a user's own brokerd sets them
    try:
        if arguments.check:
            sys.exit(check(path))
        gc.disable()  # what a start creates stays; searching it for garbage again and again would double its time
        trio.run(run, path, output)
    except (CannotStart, ConfigError) as error:
        output.cannot_start(str(error))
        sys.exit(exit_code(error))
    finally:
        output.close()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="brokerd", description="Keeps API tokens fresh and gives them to local programs over a Unix socket."
    )
    made.add_argument(
        "--config",
        metavar="FILE",
        help=f"configuration file (default: ~/.config/brokerd/brokerd.toml if it exists, else {DEFAULT_CONFIG})",
    )
    made.add_argument(
        "--check",
        action="store_true",
        help="check the configuration and the files it names, then exit: 0 if brokerd can use them, 2 if not",
    )
    made.add_argument("--log-level", choices=log.LEVELS, default="info", help="how much to log (default: %(default)s)")
    words = "how a line of the log is written (default: %(default)s)"
    made.add_argument("--log-format", choices=log.FORMATS, default=log.FORMATS[0], help=words)
    version = f"brokerd {__version__}"
    made.add_argument("--version", action="version", version=version, help="print the version, then exit")
    return made


async def run(path: str, output: log.Log) -> None:
    """The daemon, until SIGTERM or SIGINT. Raises ConfigError, CannotStart."""
    pieces = descriptor_store.from_systemd(os.environ)
    with passed_sockets() as passed:
        configuration = await read_configuration(path)
        with (
            contextlib.closing(await opened_store(configuration, pieces)) as local,
            listening(configuration, passed) as listeners,
            as_itself(),
        ):
            async with trio.open_nursery() as writing:
                writing.start_soon(local.run)
                clock = SystemClock()
                store = await store_of(configuration, local, clock, SystemEntropy(), writing)
                audit = await audit_writer(configuration, local)
                if audit is not None:
                    writing.start_soon(audit.run)
                daemon = Daemon(
                    path,
                    local,
                    store,
                    clock,
                    configuration,
                    EventLog(audit=audit, required=configuration.daemon.audit == "stop", output=output),
                    audit,
                )
                del configuration  # it may hold secrets as text, which `lock` must be able to drop
                await daemon.run(listeners)
                writing.cancel_scope.cancel()


class Daemon:
    """Everything that runs between an opened store and the last write to it.

    Many attributes: it joins the daemon."""

    broker: TokenBroker
    scrape: Scrape
    configurator: Configurator

    def __init__(
        self,
        path: str,
        local: SqliteStore,
        store: AnyStore,
        clock: SystemClock,
        configuration: Configuration,
        events: EventLog,
        audit: AuditWriter | None,
    ) -> None:
        self.path = path
        self.local, self.store = local, store
        self.audit = audit
        self.initial: Configuration | None = configuration  # until it was applied
        self.settings = configuration.daemon
        self.clock, self.entropy = clock, SystemEntropy()
        self.events = events
        self.alerts = AlertCommands(events)
        self.metrics = Metrics()
        self.metrics.build.labels(__version__).set(1)
        ProcessCollector(registry=self.metrics.registry)

    async def run(self, listeners: Listeners) -> None:
        await self._begin()
        async with trio.open_nursery() as exchanging:
            runner = ExchangeRunner(self.store, self.clock, self.entropy, read_secrets, self.events, self.metrics)
            self.broker = TokenBroker(
                exchanging, self.store, self.clock, self.entropy, runner, self.events, self.metrics
            )
            self.scrape = Scrape(self.broker, self.events, self.metrics)
            readiness = Readiness(self.broker, notify.notify)
            async with trio.open_nursery() as serving:
                await self._serve(serving, readiness, listeners)
                self.broker.stop()
                readiness.stopping()
                serving.cancel_scope.cancel()
            for listener in listeners.values():
                listener.close()  # now a connection is refused at once, or systemd keeps it for the next brokerd
            with trio.move_on_after(STOP_WITHIN):
                await self.broker.single_flight.until_all_idle()
            exchanging.cancel_scope.cancel()
        with trio.move_on_after(STOP_WITHIN):  # an exchange that sent a stored token may have ended only now
            await self.broker.repair.store_again()
        self.broker.repair.report_unstored()
        self.events.say(Event.STOPPED)
        if self.audit is not None:
            await self.audit.write(everything=True)

    async def _begin(self) -> None:
        """Log what was found and how safe it is to run here."""
        store, events = self.local, self.events
        store.noticed, store.took = self._log_store_trouble, self.metrics.store_commits.observe
        if not hardening.lock_memory():
            events.say(Event.MEMORY_NOT_LOCKED)
        if os.geteuid() == 0:
            events.say(Event.RUNS_AS_ROOT)
        if self.initial and (metrics := self.initial.http.metrics) is not None and not metrics.is_loopback:
            events.say(Event.METRICS_EXPOSED, address=str(metrics))
        if store.is_new and not store.is_locked:
            events.say(Event.STORE_CREATED, path=str(store.path))
        if (done := store.migration) is not None:
            events.say(Event.STORE_UPGRADED, before=done.before, after=done.after, kept=str(done.copy))
        if not store.adopted:
            events.say(Event.STORE_NOT_ADOPTED, path=str(store.path))
        events.say(Event.STARTING, version=__version__, pid=os.getpid())
        if self.audit is not None:
            self.audit.noticed, self.audit.finding = self._log_audit_trouble, self._log_audit_finding
            await self.audit.write()  # whether it can be written is known before anybody is served

    async def _serve(self, serving: trio.Nursery, readiness: Readiness, listeners: Listeners) -> None:
        """Until a signal says stop."""
        broker, events, settings = self.broker, self.events, self.settings
        store, clock, entropy = self.store, self.clock, self.entropy
        rights = Rights(broker, events, self.metrics)
        self.configurator = configurator = Configurator(
            self.path,
            store,
            clock,
            entropy,
            self._http_client,
            events,
            self.audit,
            broker,
            rights,
            readiness,
            self.alerts,
        )
        key_manager = KeyManager(store, broker, configurator, events)
        limits = settings.limits.within(descriptors.raise_limit())
        admission = Admission(limits, os.geteuid())
        http_socket = str(listeners["http"].getsockname()) if "http" in listeners else None
        dispatcher = self._dispatcher(serving, rights, key_manager, http_socket, limits.shared_tokens)
        short_way = RepeatedGets(broker, rights, events, self.metrics)
        server = Server(serving, dispatcher, admission, events, self.metrics, short_way)
        if isinstance(store, FleetStore):
            changes = connect(store, broker, configurator.providers)
            serving.start_soon(stop_serving_offline, store, changes)
        initial, self.initial = self.initial, None
        assert initial is not None, "a daemon runs once"
        await serving.start(self.alerts.run)
        await configurator.start(initial)
        del initial
        gc.freeze()  # nor will a later collection search ten thousand grants while callers wait
        gc.enable()
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            for kind, listener in listeners.items():
                if kind in PROTOCOLS:
                    serving.start_soon(server.accept, listener, PROTOCOLS[kind])
                else:
                    serving.start_soon(MetricsPort(self.scrape, socket.gethostname()).run, listener)
            serving.start_soon(broker.schedule.run, broker.single_flight.renew)
            serving.start_soon(self._delete_dormant)
            serving.start_soon(self._close_idle)
            serving.start_soon(watch_certificates, configurator.providers.values)
            serving.start_soon(notice_secrets, broker, files_are_readable, configurator.admit)
            serving.start_soon(notice_changes, broker, read_files)
            serving.start_soon(notice_slow, self.configurator.providers.values, self.clock, self.events)
            serving.start_soon(readiness.run)
            serving.start_soon(self._watch_expiries)
            serving.start_soon(key_manager.finish_rotations)
            serving.start_soon(import_late)
            at = {LOGGED_AS[kind]: address_of(listener) for kind, listener in listeners.items()}
            events.say(Event.READY, version=__version__, grants=len(broker.grants), **at)
            if broker.locked:
                events.say(Event.STARTED_LOCKED)
            await self._until_stopped(serving, signals)

    def _dispatcher(
        self, serving: trio.Nursery, rights: Rights, key_manager: KeyManager, http_socket: str | None, most_shared: int
    ) -> Dispatcher:
        broker, events = self.broker, self.events
        tokens = TokenMethods(broker, rights, events, self.metrics)
        watches, logins = WatchMethods(broker, rights, tokens, serving, events), LoginMethods(broker, rights)
        memories = TokenMemories(SharedMemory, most_shared)
        shared = SharedTokens(broker, rights, serving, events, self.metrics, memories)
        status = StatusMethods(broker, rights, events, shared, http_socket)
        status_watch = StatusWatchMethod(broker, rights, serving, events)
        table = methods(
            tokens,
            watches,
            status,
            HealthMethods(broker, rights, events, self.scrape),
            OverviewMethod(broker, rights, status, events),
            status_watch,
            ExplainMethod(broker, rights, SystemProcesses()),
            ChangeMethods(broker, self.configurator.reload),
            logins,
            KeyMethods(key_manager, events),
            traces := TraceMethods(broker, rights, serving),
            LogLevelMethod(events, serving),
            EventTestMethod(self.alerts),
            ProxiedMethod(broker, rights, events, self.metrics),
            ShareMethod(shared),
            FleetMethod(broker, rights),
        )
        return Dispatcher(table, broker, rights, events, watches, status_watch, logins, traces, shared)

    def _http_client(self, settings: ProviderSettings) -> Http:
        return HttpClient(http_settings(settings), self.clock)

    async def _until_stopped(self, serving: trio.Nursery, signals: AsyncIterator[int]) -> None:
        """A reload runs in its own task: the configuration may be on a disk that never answers, and SIGTERM must still
        stop brokerd. A SIGHUP during a reload asks for one more reload, and so do many."""
        requested, requests = trio.open_memory_channel[None](1)
        serving.start_soon(self._reload_at, requests)
        async for number in signals:
            if number != signal.SIGHUP:
                return
            with contextlib.suppress(trio.WouldBlock):
                requested.send_nowait(None)

    async def _reload_at(self, requests: trio.MemoryReceiveChannel[None]) -> None:
        async for _ in requests:
            with contextlib.suppress(Failure):  # reload() logged it
                await self.configurator.reload()

    async def _watch_expiries(self) -> None:
        refresh_token, certificate = self.settings.warn_refresh_token, self.settings.warn_certificate
        await watch_expiries(self.broker, self.clock, self.events, refresh_token=refresh_token, certificate=certificate)

    async def _close_idle(self) -> None:
        while True:
            await trio.sleep(CLOSE_IDLE)
            for provider in self.configurator.providers.values():
                provider.http.sweep()

    async def _delete_dormant(self) -> None:
        while True:
            await sweep_dormant(self.store, self.broker.registry, self.clock, self.events)
            await trio.sleep(SWEEP)

    def _log_store_trouble(self) -> None:
        if self.local.trouble:
            self.events.say(Event.STORE_NOT_WRITTEN, reason=self.local.trouble)
        else:
            self.events.say(Event.STORE_WRITTEN_AGAIN)

    def _log_audit_finding(self, entry: Mapping[str, object]) -> None:
        kind = findings.KINDS[str(entry["event"])]
        self.metrics.audit_findings.labels(kind).inc()
        self.events.say(findings.EVENTS[kind], reason=entry["event"], **findings.numbers(entry))

    def _log_audit_trouble(self) -> None:
        why, _ = self.events.audit_trouble
        if why is None:
            self.events.say(Event.AUDIT_WRITTEN_AGAIN)
        else:
            self.events.say(Event.AUDIT_NOT_WRITTEN, reason=why, then=self.settings.audit)


if __name__ == "__main__":
    main()
