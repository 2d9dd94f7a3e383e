# Joins what a fleet needs: the store in etcd over the host's own one, and what it tells the broker of other hosts.
from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import trio

from brokerd import __version__
from brokerd.broker.broker import TokenBroker
from brokerd.broker.fleet_changes import FleetChanges
from brokerd.broker.provider import Provider
from brokerd.config.settings import StoreSettings
from brokerd.core.fleet.etcd import EtcdRefused
from brokerd.core.fleet.layout import FleetKeys
from brokerd.core.ports import Clock, Entropy, StoreError
from brokerd.core.secret import Secret, SecretSource
from brokerd.daemon.file_reading import in_secrets_thread
from brokerd.edge.etcd.client import EtcdClient
from brokerd.edge.etcd.login import EtcdUser
from brokerd.edge.files.secret_sources import SecretUnreadable, read_secret
from brokerd.edge.fleet.mirror import Mirror
from brokerd.edge.fleet.shared import Self, Shared
from brokerd.edge.fleet.store import FleetStore
from brokerd.edge.store.store import SqliteStore
from brokerd.edge.system.machine import machine_id
from brokerd.setup.installation import CannotStart, store_http_settings

AnyStore = SqliteStore | FleetStore
LOOK = 1.0  # seconds between two looks whether etcd has been away for too long


async def store_of(
    settings: StoreSettings | None, local: SqliteStore, clock: Clock, entropy: Entropy, nursery: trio.Nursery
) -> AnyStore:
    """The host's own store, or its fleet's, which runs in `nursery` and has the fleet's records, if etcd answers in
    time. Raises CannotStart if a person must change something."""
    if settings is None:
        return local
    store = _shared(settings, local, clock, entropy)
    nursery.start_soon(store.run)
    try:
        await store.joined()
    except StoreError as error:
        raise CannotStart(str(error)) from None
    return store


def _shared(settings: StoreSettings, local: SqliteStore, clock: Clock, entropy: Entropy) -> FleetStore:
    """Nothing is sent yet."""
    user = None
    if settings.user is not None and settings.password is not None:
        user = EtcdUser(settings.user, partial(_password, settings.password))
    etcd = EtcdClient(settings.etcd, store_http_settings(settings), clock, user)
    keys = FleetKeys(settings.fleet)
    me = Self(
        fleet=settings.fleet,
        host=settings.name,
        machine=machine_id(),
        instance=entropy.bytes(8).hex(),
        release=__version__,
        difference=settings.clock_difference,
    )
    return FleetStore(local, Shared(etcd, keys, Mirror(etcd, keys.root, clock), clock, entropy, me))


async def _password(source: SecretSource) -> Secret:
    try:
        return await in_secrets_thread(partial(read_secret, source))
    except SecretUnreadable as error:
        raise EtcdRefused(f"the password of its user cannot be read: {error}") from None


def connect(store: FleetStore, broker: TokenBroker, providers: Mapping[str, Provider]) -> FleetChanges:
    """From now on the broker learns what other hosts change."""
    changes = FleetChanges(broker, providers)
    store.records.taken, store.breaker_changed = changes.record, changes.breaker
    return changes


async def stop_serving_offline(store: FleetStore, changes: FleetChanges, longest: float) -> None:
    """Another host may have revoked what this one serves (law 10): after so many seconds without etcd it serves
    nothing."""
    while True:
        store.cut_off = store.shared.clock.now().boot - max(store.shared.mirror.reached, store.began) > longest
        changes.serve(on=not store.cut_off)
        await trio.sleep(LOOK)
