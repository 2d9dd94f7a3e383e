# The data keys that the hosts of a fleet share: wrapped in etcd by the key that [daemon] key names on each host.
# Nothing leaves the host unsealed (law 15).
from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from brokerd.core.fleet.etcd import Pair
from brokerd.core.fleet.layout import FleetKeys, MetaValue, RecordPlace, Value
from brokerd.core.grant.record import Record
from brokerd.core.ports import Entropy, StoreUnavailable, WrongKey
from brokerd.core.sealing import KEY_BYTES, Bound, BoundKey, EnvelopeError, Keyring, key_id_of, unwrap, wrap
from brokerd.edge.store.sealed_record import decoded, encoded

V = TypeVar("V", bound=Value)
MOST = 1024 * 1024  # bytes of a sealed record; etcd takes requests of 1.5 MiB
WRONG = (
    "the key of this host is not the one that the fleet's data keys are wrapped with; nothing was changed; "
    "give every host of the fleet the same [daemon] key; if etcd was restored from a snapshot of before the last "
    "brokerctl key rotate, first on a host of the fleet: brokerctl adopt"
)
BRING = "start brokerd on every host that was in the fleet: one that knows the data key brings it back"
GONE = f"the fleet's data keys are gone from etcd; {BRING}; if there is none, restore etcd from a snapshot"
NEITHER = (
    "the fleet's data keys are wrapped by neither key; nothing was changed; if etcd was restored from a snapshot, "
    "first: brokerctl adopt"
)


class FleetDataKeys:
    """Locked until `open`."""

    def __init__(self, keys: FleetKeys, entropy: Entropy) -> None:
        self._keys = keys
        self._entropy = entropy
        self._ring = Keyring(entropy)
        self.store = ""

    @property
    def is_open(self) -> bool:
        return bool(self._ring.current)

    def made(self, number: int, kek: bytes, store: str) -> bytes:
        """A new data key, wrapped."""
        return wrap(self._entropy.bytes(KEY_BYTES), kek, store, number, self._entropy)

    def wrapped(self, plain: bytes, number: int, kek: bytes) -> bytes:
        return wrap(plain, kek, self.store, number, self._entropy)

    def is_wrapped_by(self, keks: Iterable[bytes], pair: Pair, number: int) -> bool:
        """Whether one of these keys opens that data key in etcd."""
        return _unwrapped(pair.value, keks, self.store, number) is not None

    @property
    def newest(self) -> int:
        """The number of the data key that seals; 0 while it is locked."""
        return self._ring.current

    def open(
        self, keks: Iterable[bytes], meta: MetaValue, pairs: dict[bytes, Pair], known: dict[int, bytes]
    ) -> dict[int, bytes]:
        """Unwrap all of them, each with the one of `keks` that fits; `known`: those that this host has opened before,
        should it have another key than the fleet now, or should they be gone from etcd. Returns them. Raises
        StoreError."""
        found, strange = dict(known), False
        for key, pair in pairs.items():
            if (number := self._keys.number(key)) is not None:
                plain = _unwrapped(pair.value, keks, meta.store, number)
                if plain is not None:
                    found[number] = plain
                strange = strange or number not in found
        if found:
            self.use(meta.store, found)
        if strange:
            raise WrongKey(WRONG)
        if not found:
            raise StoreUnavailable(GONE)
        return found

    def use(self, store: str, keys: dict[int, bytes]) -> None:
        """Seal and open with these from now on."""
        self._ring, self.store = Keyring(self._entropy), store
        for number, plain in keys.items():
            self._ring.add(number, plain)

    def close(self) -> None:
        self._ring = Keyring(self._entropy)

    def rewrapped(self, old: bytes, new: bytes, meta: MetaValue, pairs: dict[bytes, Pair]) -> dict[bytes, bytes]:
        """All data keys, wrapped by another key. One that is wrapped by it already is left out. Raises WrongKey."""
        found = {}
        for key, pair in pairs.items():
            if (number := self._keys.number(key)) is None:
                continue
            try:
                plain = unwrap(pair.value, old, meta.store, number)
            except EnvelopeError:
                try:
                    unwrap(pair.value, new, meta.store, number)
                    continue
                except EnvelopeError:
                    raise WrongKey(NEITHER) from None
            found[key] = wrap(plain, new, meta.store, number, self._entropy)
        return found

    # -- values

    def seal_value(self, key: bytes, value: Value) -> bytes:
        """What etcd gets: nobody without the key can read it, change it or move it to another key. Raises
        StoreUnavailable."""
        self._require_open()
        return self._ring.seal(value.encoded(), BoundKey(self.store, key))

    def open_value(self, pair: Pair, kind: type[V]) -> V | None:
        """None: no host wrote it, or not in a form that this version knows."""
        try:
            return kind.decoded(self._ring.open(pair.value, BoundKey(self.store, pair.key)))
        except EnvelopeError:
            return None

    def is_strange(self, pair: Pair) -> bool:
        """Whether a host with another key than this one's may have written it."""
        return self.is_unknown(pair.value)

    def is_unknown(self, sealed: bytes) -> bool:
        """Whether it seems to be sealed under a data key that is not known here."""
        number = key_id_of(sealed)
        return number is not None and number not in self._ring.ids

    def prove(self, key: bytes, meta: MetaValue) -> MetaValue:
        """Raises StoreUnavailable."""
        self._require_open()
        return msgspec.structs.replace(meta, proof=self._ring.seal(meta.proved, BoundKey(self.store, key)))

    def is_proved(self, key: bytes, meta: MetaValue) -> bool:
        """Whether a host wrote it, as it is."""
        try:
            return self._ring.open(meta.proof, BoundKey(self.store, key)) == meta.proved
        except EnvelopeError:
            return False

    def _require_open(self) -> None:
        if not self.is_open:
            raise StoreUnavailable("the fleet's data keys are not open yet")

    # -- records

    def seal(self, record: Record, place: RecordPlace) -> bytes:
        """Raises StoreUnavailable."""
        self._require_open()
        return self._ring.seal(encoded(record), Bound(self.store, place.grant, record.generation, place.fingerprint))

    def unseal(self, sealed: bytes, place: RecordPlace, generation: int) -> Record:
        """Raises EnvelopeError, msgspec.DecodeError."""
        return decoded(self._ring.open(sealed, Bound(self.store, place.grant, generation, place.fingerprint)))


def _unwrapped(wrapped: bytes, keks: Iterable[bytes], store: str, number: int) -> bytes | None:
    for kek in keks:
        with contextlib.suppress(EnvelopeError):
            return unwrap(wrapped, kek, store, number)
    return None
