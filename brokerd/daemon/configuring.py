# Applies the configuration to the running broker: at the start, at a reload, and when brokerd is unlocked.
from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from shlex import quote

import trio

from brokerd.alerts.commands import AlertCommands
from brokerd.broker.broker import TokenBroker
from brokerd.broker.live_grant import LiveGrant
from brokerd.broker.provider import Provider
from brokerd.broker.reload import Changes, admit, apply, fingerprint_of, fingerprints, without_secret
from brokerd.config.settings import Configuration, ProviderSettings
from brokerd.core.access.policy import Policy
from brokerd.core.errors import Code, Failure
from brokerd.core.events import Event
from brokerd.core.ports import Http, StoredRecord, StoreError
from brokerd.core.secret import SecretSource
from brokerd.core.validation import ConfigError
from brokerd.daemon.file_reading import in_secrets_thread, unreadable_files
from brokerd.daemon.readiness import Readiness
from brokerd.daemon.sharing import AnyStore
from brokerd.edge.audit.writer import AuditWriter
from brokerd.edge.files.secret_sources import SecretUnreadable
from brokerd.edge.store.store import in_thread
from brokerd.edge.system.clock import SystemClock
from brokerd.edge.system.entropy import SystemEntropy
from brokerd.edge.systemd import notify
from brokerd.server.rights import Rights
from brokerd.setup.installation import key_sources, read_configuration, read_key
from brokerd.telemetry.event_log import EventLog

AT_ONCE = ("rules", "on_event")  # fields of Configuration that a reload applies, besides grants and providers,
AT_START = ("daemon", "http", "credentials", "store")  # and those that only a start applies


@dataclass(eq=False, repr=False)
class Configurator:
    """`http_client` makes a provider's HTTP client.

    Many attributes: a configuration reaches every part of the daemon.
    """

    _path: str
    _store: AnyStore
    _clock: SystemClock
    _entropy: SystemEntropy
    _http_client: Callable[[ProviderSettings], Http]
    _events: EventLog
    _audit: AuditWriter | None
    _broker: TokenBroker
    _rights: Rights
    _readiness: Readiness
    _alerts: AlertCommands
    _tables: dict[str, object] = field(default_factory=dict)  # as they were applied, or at the start
    providers: dict[str, Provider] = field(default_factory=dict)
    # One at a time reloads or unlocks: a grant that another one adds or removes would be applied without its record.
    _reloading: trio.Lock = field(default_factory=trio.Lock)

    async def start(self, configuration: Configuration) -> None:
        self._tables = {name: getattr(configuration, name) for name in (*AT_ONCE, *AT_START)}
        self._alerts.configure(configuration.on_event)
        if self._store.is_locked:
            self._rights.policy, self._broker.locked = _policy(configuration), True
            names = {name: grant.provider.name for name, grant in configuration.grants.items()}
            self._broker.locked_grants.keep_names(names)
        else:
            await self._apply_all(configuration)

    async def reload(self) -> Changes:
        """Read the configuration again and apply all of it or nothing (law 14). Raises Failure."""
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> Changes:
        if self._broker.locked:
            raise self._broker.locked_failure()
        notify.notify("RELOADING=1")
        try:
            configuration = await read_configuration(self._path)
            with self._broker.registry.reading():
                changes = await self._apply(configuration, None)
        except (ConfigError, StoreError) as error:
            self._events.say(Event.NOT_RELOADED, reason=str(error))
            more = len(error.others) if isinstance(error, ConfigError) else 0
            check = f"brokerd --config {quote(self._path)} --check"
            words = f"; to see {more} more error{'s' if more > 1 else ''}: {check}" if more else ""
            raise Failure(_code(error), f"nothing has changed: {error}{words}") from None
        finally:
            await self._readiness.ready()
        changes.later = [name for name in AT_START if getattr(configuration, name) != self._tables[name]]
        named = {"added": changes.added, "changed": changes.changed, "removed": changes.removed}
        self._events.say(Event.RELOADED, **named, tables=changes.tables)
        if changes.later:
            self._events.say(Event.RESTART_NEEDED, tables=changes.later)
        for name, reason in (await unreadable_files(configuration.grants.values())).items():
            if (grant := self._broker.grants.get(name)) is not None:
                then = without_secret(grant, self._clock.now())
                changes.unreadable.append({"grant": name, "reason": reason, "then": then})
                self._events.say(Event.SECRET_UNREADABLE, **grant.about, reason=reason, then=then)
        return changes

    async def _apply_all(self, configuration: Configuration) -> None:
        """With all records. Other hosts of a fleet may change them meanwhile."""
        with self._broker.registry.reading():
            await self._apply(configuration, await in_thread(self._store.all))

    async def _apply(self, configuration: Configuration, stored: list[StoredRecord] | None) -> Changes:
        """`stored`: all records, at the start. None: a reload, which reads the records of new grants."""
        prints = await in_secrets_thread(partial(fingerprints, configuration))
        starting = stored is not None
        if stored is None:
            known = {name: grant.fingerprint for name, grant in self._broker.grants.items()}
            new = [name for name, printed in prints.items() if known.get(name) != printed]
            stored = [row for name in new for row in await self._store.newest(name)]
        else:
            for row in stored:
                if row.recovered:
                    event = Event.STATE_FROM_SYSTEMD
                    self._events.say(event, grant=row.grant, stored=not row.unstored)
            times = [row.record.changed.wall for row in stored if row.record and row.record.changed]
            self._clock.floor = max(times, default=0.0)
        changes, unused = apply(
            self._broker,
            configuration,
            prints,
            stored,
            await in_thread(self._store.breakers) if starting else {},
            self.providers,
            self._http_client,
            self._clock,
            self._entropy,
            starting=starting,
            metadata=await in_thread(self._store.metadata) if starting else {},
        )
        changes.tables = [name for name in AT_ONCE if getattr(configuration, name) != self._tables[name]]
        self._tables |= {name: getattr(configuration, name) for name in AT_ONCE}
        self._rights.policy = _policy(configuration)
        self._alerts.configure(configuration.on_event)
        for name in self._broker.grants:  # a rule may have changed, or a grant came back that somebody watches
            self._broker.tell_watchers(name)
        for http in unused:
            await http.aclose()
        await self._note_dormant(changes)
        return changes

    async def _note_dormant(self, changes: Changes) -> None:
        with contextlib.suppress(StoreError):  # the next start does it again
            await self._store.set_dormant(changes.active, None)
            await self._store.set_dormant(changes.dormant, self._clock.now().wall)

    async def admit(self, grant: LiveGrant) -> None:
        """Begin with a grant whose secret files could not be read until now."""
        with contextlib.suppress(StoreError, SecretUnreadable):  # the next look does it again
            printed = await in_secrets_thread(partial(fingerprint_of, grant.settings))
            with self._broker.registry.reading():
                rows = await self._store.newest(grant.name)
                if self._broker.grants.get(grant.name) is grant:
                    await self._note_dormant(admit(self._broker, grant, printed, rows))

    # -- for key management: what its KeyHost says

    async def key_sources(self) -> tuple[SecretSource, ...]:
        try:
            return key_sources(await read_configuration(self._path))
        except ConfigError as error:
            raise Failure(Code.MISCONFIGURED, f"nothing has changed: {error}") from None

    async def read_key(self, source: SecretSource) -> bytes:
        try:
            return await in_secrets_thread(partial(read_key, self._path, source))
        except ConfigError as error:
            raise Failure(Code.MISCONFIGURED, f"nothing has changed: {error}") from None

    async def load_grants(self) -> None:
        try:
            configuration = await read_configuration(self._path)
            if self._audit is not None:
                self._audit.unlock(await self._store.audit_memory())
            async with self._reloading:
                await self._apply_all(configuration)
        except (ConfigError, StoreError) as error:
            raise Failure(_code(error), f"still locked: {error}") from None

    async def drop_secrets(self) -> None:
        if self._audit is not None:
            await self._audit.lock()
        for provider in self.providers.values():
            await provider.http.aclose()
        self.providers.clear()
        gc.unfreeze()
        gc.collect()


def _policy(configuration: Configuration) -> Policy:
    return Policy(configuration.rules, os.geteuid())


def _code(error: ConfigError | StoreError) -> Code:
    return Code.MISCONFIGURED if isinstance(error, ConfigError) else Code.UNAVAILABLE
