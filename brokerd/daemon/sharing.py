# Joins what a fleet needs: the store in etcd over the host's own one, and what it tells the broker of other hosts.
from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from functools import partial

import trio

from brokerd import __version__
from brokerd.broker.broker import TokenBroker
from brokerd.broker.fleet_changes import FleetChanges
from brokerd.broker.provider import Provider
from brokerd.config.settings import Configuration, StoreSettings
from brokerd.core.events import Event
from brokerd.core.fleet.etcd import EtcdRefused
from brokerd.core.fleet.layout import FleetKeys
from brokerd.core.ports import Clock, Entropy, StoreError
from brokerd.core.secret import Secret, SecretSource
from brokerd.core.validation import ConfigError
from brokerd.daemon.file_reading import in_secrets_thread
from brokerd.edge.etcd.client import EtcdClient
from brokerd.edge.etcd.login import EtcdUser
from brokerd.edge.files.secret_sources import SecretUnreadable, read_secret
from brokerd.edge.fleet.mirror import Mirror
from brokerd.edge.fleet.shared import Self, Shared
from brokerd.edge.fleet.store import FleetStore
from brokerd.edge.store.store import SqliteStore
from brokerd.edge.system.machine import machine_id
from brokerd.setup.installation import CannotStart, key_sources, read_key, store_http_settings
from brokerd.telemetry.event_log import EventLog

AnyStore = SqliteStore | FleetStore
LOOK = 1.0  # seconds between two looks whether etcd has been away for too long


async def store_of(
    configuration: Configuration, local: SqliteStore, clock: Clock, entropy: Entropy, nursery: trio.Nursery
) -> AnyStore:
    """The host's own store, or its fleet's, which runs in `nursery` and has the fleet's records, if etcd answers in
    time. Raises CannotStart if a person must change something."""
    if configuration.store is None:
        return local
    etcd = _client(configuration.store, clock)
    store = _shared(configuration.store, local, etcd, clock, entropy)
    store.membership.more_keys = await in_secrets_thread(lambda: tuple(_keys(configuration)))
    nursery.start_soon(_run, store, etcd)
    try:
        await store.joined()
    except StoreError as error:
        raise CannotStart(str(error)) from None
    return store


def _keys(configuration: Configuration) -> Iterator[bytes]:
    """The present key, and the previous one while they are replaced: each host does that at its own time. Blocking."""
    for source in key_sources(configuration):
        with contextlib.suppress(ConfigError):
            yield read_key(configuration.path, source)


@contextlib.contextmanager
def as_itself() -> Iterator[None]:
    """What keeps brokerd from starting, not in a group of one."""
    try:
        yield
    except BaseExceptionGroup as group:
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup) and len(found.exceptions) == 1:
            found = found.exceptions[0]
        if isinstance(found, CannotStart):
            raise found from None
        raise


async def _run(store: FleetStore, etcd: EtcdClient) -> None:
    try:
        await store.run()
    finally:
        with trio.CancelScope(shield=True):
            await etcd.aclose()


def _client(settings: StoreSettings, clock: Clock) -> EtcdClient:
    user = None
    if settings.user is not None and settings.password is not None:
        user = EtcdUser(settings.user, partial(_password, settings.password))
    return EtcdClient(settings.etcd, store_http_settings(settings), clock, user)


def _shared(
    settings: StoreSettings, local: SqliteStore, etcd: EtcdClient, clock: Clock, entropy: Entropy
) -> FleetStore:
    """Nothing is sent yet."""
    keys = FleetKeys(settings.fleet)
    me = Self(
        fleet=settings.fleet,
        host=settings.name,
        machine=_digest(machine_id(), local.keys.store),
        instance=entropy.bytes(8).hex(),
        release=__version__,
        difference=settings.clock_difference,
    )
    return FleetStore(local, Shared(etcd, keys, Mirror(etcd, keys.root, clock), clock, entropy, me), settings.offline)


def _digest(machine: str, store: str) -> str:
    """Of this installation: two on one machine may say the same name, and so may two machines with the same id."""
    return hashlib.sha256(f"{machine} {store}".encode()).hexdigest()


async def _password(source: SecretSource) -> Secret:
    try:
        return await in_secrets_thread(partial(read_secret, source))
    except SecretUnreadable as error:
        raise EtcdRefused(f"the password of its user cannot be read: {error}") from None


def connect(store: FleetStore, broker: TokenBroker, providers: Mapping[str, Provider]) -> FleetChanges:
    """From now on the broker learns what other hosts change, and the log how etcd is."""
    changes = FleetChanges(broker, providers)
    store.records.taken, store.breaker_changed = changes.record, changes.breaker
    broker.fleet, log = store, EtcdLog(store, broker.events)
    store.noticed = log.look
    log.look()
    return changes


class EtcdLog:
    """Says when etcd goes away and comes back, and when it must be adopted. While it is away, why changes with every
    server that is asked, so that is said once."""

    def __init__(self, store: FleetStore, events: EventLog) -> None:
        self._store = store
        self._events = events
        self._is_well, self._adopted = True, True

    def look(self) -> None:
        state = self._store.etcd_state()
        is_well, reason = state.trouble is None and not state.full, state.trouble
        if is_well != self._is_well:
            self._events.say(Event.ETCD_BACK) if is_well else self._events.say(Event.ETCD_AWAY, reason=reason)
        if self._adopted and not state.adopted:
            self._events.say(Event.ETCD_NOT_ADOPTED)
        self._is_well, self._adopted = is_well, state.adopted


async def stop_serving_offline(store: FleetStore, changes: FleetChanges) -> None:
    """Another host may have revoked what this one serves (law 10): after so many seconds without etcd it serves
    nothing."""
    while store.serves_until < float("inf"):
        store.cut_off = store.shared.clock.now().boot > store.serves_until
        changes.serve(on=not store.cut_off)
        await trio.sleep(LOOK)
