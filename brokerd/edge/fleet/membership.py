# This host's place in its fleet: the fleet's own record in etcd, made by the first host, whether etcd still has what
# this host knows (law 15), and the host's lease with its name.
from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

import msgspec
import trio

from brokerd.core.fleet.etcd import ABSENT, EtcdError, Pair, Put
from brokerd.core.fleet.layout import SCHEMA, USABLE_BY, MemberValue, MetaValue
from brokerd.core.ports import StoreError, StoreUnavailable
from brokerd.core.sealing import SEALS_PER_KEY, unwrap
from brokerd.edge.fleet.data_keys import BRING, FleetDataKeys
from brokerd.edge.fleet.lease import EVERY, HostLease
from brokerd.edge.fleet.local_copy import KnownFleet, LocalCopy
from brokerd.edge.fleet.shared import Conflict, Shared

WORN = SEALS_PER_KEY // 2  # revisions; the other half is for what was sealed and not written
NEVER = (1 << 63) - 1  # a revision that etcd has never: only an operator ends that
REMEMBER = 60.0  # seconds between two notes of how far etcd was
AGAIN = 1.0  # seconds between two tries to join
LOOKS, LOOK = 100, 0.05  # for what etcd has now while an operator waits, and seconds between two of them


class Membership:
    """`trouble`: why this host is not in the fleet, None: it is. `adopted`: etcd has what this host last knew of it, or
    an operator agreed (law 15).

    Many attributes: each is a part of this host's place in the fleet."""

    def __init__(self, shared: Shared, lease: HostLease, data_keys: FleetDataKeys, copy: LocalCopy) -> None:
        self._shared = shared
        self._lease = lease
        self._data_keys = data_keys
        self._copy = copy
        self._kek: bytes | None = None
        self._opened: dict[int, bytes] = {}  # the fleet's data keys
        self._remembered: dict[int, bytes] = {}  # those that this host's own store has
        self.more_keys: tuple[bytes, ...] = ()  # while keys are being replaced: others may have the new one already
        self.known: KnownFleet | None = None
        self.adopted = True
        self.is_complete = False  # the fleet has everything that this host brought
        self.trouble: str | None = None
        self.noticed: Callable[[], None] = lambda: None
        self._noted = float("-inf")
        self.joined = trio.Event()  # this host has had a lease
        self._registered = 0  # the lease that the others see

    def meta(self) -> MetaValue | None:
        """None: there is none that a host wrote."""
        meta = self._read_meta()
        return meta if meta is not None and self._data_keys.is_proved(self._shared.keys.meta, meta) else None

    def _read_meta(self) -> MetaValue | None:
        """As it lies there. Nothing says that a host wrote it."""
        pair = self._shared.mirror.pairs.get(self._shared.keys.meta)
        return None if pair is None else MetaValue.decoded(pair.value)

    # -- the fleet's own record

    def unusable(self) -> str | None:
        """Why this release must write nothing into the fleet."""
        meta = self.meta()
        return None if meta is None or meta.usable_by <= SCHEMA else _newer(meta)

    async def open(self, kek: bytes) -> bool:
        """After the mirror was loaded: make the fleet if there is none, and open its data keys. Returns whether this
        host has been in it before. Raises StoreError, WrongKey."""
        key = self._shared.keys.meta
        self.known = await self._copy.known()
        known_keys = {} if self.known is None else await self._copy.keys()
        if self.known is None and key not in self._shared.mirror.pairs:
            await self._found(kek)
        meta = self._read_meta()
        was_here = self.known is not None and (meta is None or meta.store == self.known.store)
        self._opened, self._remembered = known_keys if was_here else {}, known_keys
        try:
            await self._join(kek, meta)
        except StoreError:
            if self.known is None or not known_keys or self.unusable() is not None:
                self._data_keys.close()
                raise
            was_here = True  # no host wrote what is there: this one serves what it has, and waits for `adopt`
            self._opened = known_keys
            self._data_keys.use(self.known.store, known_keys)
        if not was_here:
            self.known = None
        self._kek = kek
        self.check()
        self._lease.wake()
        return was_here

    async def _join(self, kek: bytes, meta: MetaValue | None) -> None:
        """Open the data keys of the fleet. Raises StoreError, WrongKey."""
        name = self._shared.keys.meta.decode()
        if meta is None:
            raise StoreError(f"etcd: {name} is gone, or not in a form that this release knows")
        if meta.usable_by > SCHEMA and self.known is None:
            raise StoreError(_newer(meta))
        await self._open_keys(kek, meta)
        if not self._data_keys.is_proved(self._shared.keys.meta, meta):
            if self._data_keys.is_unknown(meta.proof):
                raise StoreError(f"etcd: {name} was sealed under a data key that this host does not know; {BRING}")
            raise StoreError(f"etcd: {name} was not written by a host of the fleet; see who may write to etcd")
        if meta.usable_by > SCHEMA:
            raise StoreError(_newer(meta))

    async def _found(self, kek: bytes) -> None:
        """Make the fleet. Another host may be faster."""
        shared, keys = self._shared, self._shared.keys
        store = shared.new_write().hex()
        first, wrapped = keys.data_key(1), self._data_keys.made(1, kek, store)
        self._data_keys.use(store, {1: unwrap(wrapped, kek, store, 1)})
        meta = self._proved_meta(epoch=1)
        changes: dict[bytes, Put | None] = {keys.meta: Put(meta.encoded()), first: Put(wrapped)}

        def is_ours(found: Mapping[bytes, Pair]) -> int:
            pair = found.get(keys.meta)
            return pair.modified if pair is not None and pair.value == meta.encoded() else 0

        try:
            await shared.transact({keys.meta: ABSENT, first: ABSENT}, changes, is_ours)
        except Conflict:
            return

    def _proved_meta(self, epoch: int) -> MetaValue:
        """What this host says of the fleet now."""
        shared = self._shared
        meta = MetaValue(
            schema=SCHEMA,
            usable_by=USABLE_BY,
            release=shared.me.release,
            store=self._data_keys.store,
            cluster=shared.mirror.cluster,
            epoch=epoch,
            **shared.signed(),
        )
        return self._data_keys.prove(shared.keys.meta, meta)

    def lock(self) -> None:
        self._kek, self._opened, self._remembered, self.more_keys = None, {}, {}, ()
        self._data_keys.close()

    async def _open_keys(self, kek: bytes, meta: MetaValue) -> None:
        found = self._data_keys.open((kek, *self.more_keys), meta, self._shared.mirror.pairs, self._opened)
        is_new, self._opened = found != self._opened, found
        if is_new:
            await self._remember_keys()

    async def _remember_keys(self) -> None:
        """Raises StoreError."""
        opened = dict(self._opened)
        await self._copy.remember_keys(opened)
        self._remembered = opened

    def reopen(self) -> None:
        """A data key has changed. Raises StoreError."""
        meta = self.meta()
        if self._kek is not None and meta is not None:
            keks = (self._kek, *self.more_keys)
            self._opened |= self._data_keys.open(keks, meta, self._shared.mirror.pairs, self._opened)
            if self._opened != self._remembered:
                self._lease.wake()  # `run` remembers them

    def _key_numbers(self) -> list[int]:
        numbers = map(self._shared.keys.number, list(self._shared.mirror.pairs))
        return [each for each in numbers if each is not None]

    async def _renew_worn_key(self) -> None:
        """Seal under a new data key once etcd has counted so many revisions since the last one was made: there are at
        least as many revisions as seals. Raises StoreError."""
        shared, meta, newest = self._shared, self.meta(), self._data_keys.newest
        made = shared.modified(shared.keys.data_key(newest))
        if made and meta is not None and self._kek is not None and shared.mirror.revision - made > WORN:
            key = shared.keys.data_key(newest + 1)
            new = {key: Put(self._data_keys.made(newest + 1, self._kek, meta.store))}
            with contextlib.suppress(Conflict):  # another host was first
                await shared.transact({key: ABSENT}, new, lambda found: _written(found, new))

    async def _bring_keys(self) -> None:
        """Data keys that etcd lacks, because it was restored from an older snapshot or somebody deleted them. What is
        sealed under them could not be opened by other hosts. Raises StoreError."""
        shared, kek = self._shared, self._kek
        if kek is None or self.meta() is None:
            return
        names = {number: shared.keys.data_key(number) for number in self._opened}
        lost = {name: number for number, name in names.items() if name not in shared.mirror.pairs}
        if lost:
            new = {
                name: Put(self._data_keys.wrapped(self._opened[number], number, kek)) for name, number in lost.items()
            }
            with contextlib.suppress(Conflict):  # another host was faster
                await shared.transact(dict.fromkeys(lost, ABSENT), new, lambda found: _written(found, new))

    async def rewrap(self, kek: bytes) -> None:
        """Wrap the data keys by another key, unless another host did. Raises StoreError."""
        shared, meta = self._shared, self.meta()
        if self._kek is None or meta is None:
            raise StoreError("etcd: the fleet's data keys are not open")
        found = self._data_keys.rewrapped(self._kek, kek, meta, shared.mirror.pairs)
        expected = {key: shared.modified(key) for key in found}
        wrapped = {key: Put(value) for key, value in found.items()}
        if found:  # a new data key besides: since when the others are used cannot be seen any more
            key = shared.keys.data_key(self._data_keys.newest + 1)
            expected[key], wrapped[key] = ABSENT, Put(self._data_keys.made(self._data_keys.newest + 1, kek, meta.store))
            await shared.transact(expected, wrapped, lambda now: _written(now, wrapped))
        self._kek = kek
        self.reopen()

    # -- law 15

    def check(self) -> None:
        """Whether etcd is what this host knows: the cluster, and nothing in it older than what was seen."""
        meta, known, mirror, before = self.meta(), self.known, self._shared.mirror, self.adopted
        if not mirror.revision and known is not None and known.revision != NEVER:
            return  # everything is read again
        if meta is None:
            self.adopted = False
        elif known is None or meta.epoch > known.epoch:
            self.adopted = meta.cluster == mirror.cluster
        else:
            is_same = meta.cluster == mirror.cluster == known.cluster and meta.epoch == known.epoch
            self.adopted = is_same and mirror.revision >= known.revision
        if self.adopted and meta is not None:
            known_revision = mirror.revision if known is None or meta.epoch > known.epoch else known.revision
            revision = max(mirror.revision, known_revision)
            self.known = KnownFleet(meta.store, meta.epoch, mirror.cluster, revision)
        if before != self.adopted:
            self.noticed()

    def put_back(self) -> None:
        """etcd is older than what this host has seen, or another one. What hosts write there soon makes it look newer
        again, also for the next process of this host."""
        if self._kek is not None and self.known is not None:
            self.known, self._noted = msgspec.structs.replace(self.known, revision=NEVER), float("-inf")
            self.check()

    def seen(self) -> KnownFleet | None:
        """How far the fleet is now, as this host knows."""
        if not self.is_complete:
            return None
        if self.known is None or not self.adopted:
            return self.known
        return msgspec.structs.replace(self.known, revision=max(self.known.revision, self._shared.mirror.newest()))

    async def _tell_of_restore(self) -> None:
        """etcd was put back: hosts that were away then could not know by its revision. With another cluster in the
        fleet's own record nobody spends anything until somebody adopts it. Raises StoreError."""
        shared, meta, known = self._shared, self.meta(), self.known
        if meta is None or known is None or known.revision != NEVER or meta.epoch > known.epoch or not meta.cluster:
            return
        told = self._data_keys.prove(shared.keys.meta, msgspec.structs.replace(meta, cluster=0))
        new = {shared.keys.meta: Put(told.encoded())}
        with contextlib.suppress(Conflict):  # another host was faster
            await shared.transact(
                {shared.keys.meta: shared.modified(shared.keys.meta)}, new, lambda f: _written(f, new)
            )

    async def adopt(self) -> None:
        """An operator agrees to what etcd has now. Raises StoreError."""
        shared = self._shared
        for _ in range(LOOKS):
            if shared.mirror.revision or self.adopted or self._kek is None:
                break
            await trio.sleep(LOOK)
        if self.adopted or self._kek is None:
            return
        if not shared.mirror.revision:
            raise StoreUnavailable("what etcd has now was not read yet; in some seconds again: brokerctl adopt")
        meta, known = self.meta(), self.known
        epoch = max(meta.epoch if meta else 0, known.epoch if known else 0) + 1
        new = {shared.keys.meta: Put(self._proved_meta(epoch).encoded())}
        keks = (self._kek, *self.more_keys)
        for number, plain in self._opened.items():  # what somebody deleted, or a key wraps that was replaced since
            pair = shared.mirror.pairs.get(name := shared.keys.data_key(number))
            if pair is None or not self._data_keys.is_wrapped_by(keks, pair, number):
                new[name] = Put(self._data_keys.wrapped(plain, number, self._kek))
        expected = {each: shared.modified(each) for each in new}
        await shared.transact(expected, new, lambda found: _written(found, new))
        self.check()

    async def _remember(self) -> None:
        now = self._shared.clock.now().boot
        if self.known is not None and self.is_complete and now - self._noted >= REMEMBER:
            await self._copy.remember(self.seen() or self.known)
            self._noted = now

    # -- the lease

    async def run(self) -> None:
        """Keeps the lease, and looks how far etcd is."""
        try:
            await self._shared.mirror.there.wait()
            while True:
                woken = self._lease.woken
                try:
                    await self._lease.keep()
                    if self._data_keys.is_open and not self._is_registered():
                        await self._register()
                    if self._shared.refused is not None:
                        await self._write_again()
                    await self._shared.mirror.beat()
                    is_read = bool(self._shared.mirror.revision)  # else etcd was put back: what is known of it is old
                    if self._kek is not None and is_read:  # without the key it is not known what this host knew
                        self.check()
                        if (why := self.unusable()) is not None:
                            raise StoreError(why)
                        await self._bring_keys()
                        await self._tell_of_restore()
                        await self._renew_worn_key()
                        if self._opened != self._remembered:
                            await self._remember_keys()
                        await self._remember()
                        if any(key not in self._opened for key in self._key_numbers()):
                            self.reopen()
                        self.says(None)
                    pause = EVERY if is_read else AGAIN
                except (EtcdError, StoreError) as error:
                    self.says(str(error) if isinstance(error, StoreError) else None)
                    pause = AGAIN
                with trio.move_on_after(pause):
                    await woken.wait()
        finally:
            with trio.move_on_after(2.0) as scope:
                scope.shield = True
                await self._lease.end()

    def _is_registered(self) -> bool:
        key = self._shared.keys.member(self._shared.me.host)
        return self._registered == self._lease.number and key in self._shared.mirror.pairs

    async def _register(self) -> None:
        """Raises EtcdError, StoreError."""
        shared, me = self._shared, self._shared.me
        key = shared.keys.member(me.host)
        there = shared.value(key, MemberValue)
        if there is not None and there.machine != me.machine:
            self._lease.drop()
            words = f"another host of the fleet has the name {me.host}"
            raise StoreError(f"etcd: {words}; give this one its own: name in [store] of the configuration")
        member = MemberValue(
            after=shared.mirror.newest(),
            release=me.release,
            schema=SCHEMA,
            instance=me.instance,
            **shared.signed(),
        )
        new = {key: shared.put(key, member, self._lease.number)}
        try:
            await shared.transact({key: shared.modified(key)}, new, lambda found: _written(found, new))
        except StoreError:
            self._lease.drop()
            raise
        self._registered = self._lease.number
        self.joined.set()
        self.says(None)

    async def _write_again(self) -> None:
        """etcd refused what was written last, for example because it had no space: look whether it still does."""
        shared, key = self._shared, self._shared.keys.member(self._shared.me.host)
        if (there := shared.mirror.pairs.get(key)) is not None:
            same = {key: Put(there.value, self._lease.number)}
            with contextlib.suppress(StoreError):
                await shared.transact({key: there.modified}, same, lambda found: _written(found, same))

    def says(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self.noticed()


def _newer(meta: MetaValue) -> str:
    newer = f"the fleet is used by brokerd {meta.release} (schema {meta.schema}); this release has {SCHEMA}"
    return f"{newer}: install that release or the one before it on this host"


def _written(found: Mapping[bytes, Pair], new: Mapping[bytes, Put]) -> int:
    """The revision in which all of these were written; 0: they were not."""
    same = [found[key].modified for key, put in new.items() if key in found and found[key].value == put.value]
    return max(same) if len(same) == len(new) else 0
