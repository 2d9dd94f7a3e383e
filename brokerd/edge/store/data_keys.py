# The store's data keys: unwraps them while brokerd is unlocked, rewraps them under another key-encryption key, and
# replaces them by new ones. Runs in the store's thread, inside its transactions.
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from brokerd.core.ports import Entropy, StoreError, StoreUnavailable, WrongKey
from brokerd.core.sealing import (
    KEY_BYTES,
    SEALS_PER_KEY,
    Bound,
    EnvelopeError,
    Keyring,
    key_id_of,
    name_of_kek,
    unwrap,
    wrap,
)
from brokerd.edge.store.database import Database

RESERVED = 2**16  # seals that are counted ahead, so that the count is seldom written
RETIRED, PASSPHRASE = "retired_key", "passphrase"  # in the table meta


class DataKeys:
    """Of one store. Each transaction must end with `committed` or `rolled_back`: else the keys here differ from those
    in the file."""

    def __init__(self, entropy: Entropy) -> None:
        self.store = ""  # the store's id
        self._entropy = entropy
        self._kek: bytes | None = None
        self.passphrase = ""  # how the key is derived from a passphrase, if it is
        self._next_kek: bytes | None = None  # the key under which this transaction rewraps
        self._next_passphrase = ""
        self._perhaps_kek: bytes | None = None  # the key of a failed rewrapping, which may have reached the disk
        self._ring = Keyring(entropy)
        self._seals_left = 0
        self._added: list[int] = []  # not committed yet
        self._perhaps_added = False  # a transaction that added keys failed, but may have reached the disk

    @property
    def is_open(self) -> bool:
        return self._kek is not None

    @property
    def kek(self) -> bytes | None:
        """The key-encryption key; None while brokerd is locked."""
        return self._kek

    def attach(self, database: Database) -> None:
        """A database was opened, at the start or again. Raises StoreError."""
        self.store, self.passphrase = database.meta("store") or "", database.meta(PASSPHRASE) or ""
        self._seals_left, self._added, self._next_kek, self._perhaps_added = 0, [], None, False
        if self._kek is None:
            return
        try:
            self.open(database, self._kek)
        except WrongKey:
            if self._perhaps_kek is None:
                raise
            self.open(database, self._perhaps_kek)

    def open(self, database: Database, kek: bytes, passphrase: str = "") -> None:
        """Unwrap the data keys; a new store gets its first one. `passphrase`: how the key is derived from one, if it
        is. Raises WrongKey, StoreError."""
        ring, there = Keyring(self._entropy), database.data_keys()
        for key_id, wrapped, _ in there:
            try:
                ring.add(key_id, unwrap(wrapped, kek, self.store, key_id))
            except EnvelopeError as error:
                raise self._wrong(database, kek, str(error)) from None
        if not there and database.rows():
            words = "its data keys are gone, and with them all records; restore a copy of the state directory"
            raise StoreError(f"{database.path}: {words}")
        self._kek, self._ring = kek, ring
        if not there:
            self._add(database, 1)
            database.set_meta(PASSPHRASE, passphrase)
            self.passphrase = passphrase

    def _wrong(self, database: Database, kek: bytes, why: str) -> WrongKey:
        remedy = "configure the key that it was made with ([daemon] key)"
        if database.meta(RETIRED) == name_of_kek(kek, self.store):
            why = "the key was replaced by another one (brokerctl key rotate)"
            remedy = "configure the one that it was replaced by ([daemon] key)"
        return WrongKey(f"{database.path}: {why}; nothing was changed; {remedy}")

    def close(self) -> None:
        """Forget every key."""
        self._kek = self._next_kek = self._perhaps_kek = None
        self._ring, self._seals_left = Keyring(self._entropy), 0

    def committed(self) -> None:
        self._added = []
        if self._next_kek is not None:
            self._kek, self._next_kek, self._perhaps_kek = self._next_kek, None, None
            self.passphrase = self._next_passphrase

    def rolled_back(self) -> None:
        """The transaction failed: nothing may be sealed under the keys that it added."""
        for key_id in self._added:
            self._ring.remove(key_id)
            self._perhaps_added = True
        self._added, self._seals_left = [], 0
        self._perhaps_kek, self._next_kek = self._next_kek or self._perhaps_kek, None
        if not self._ring.current:
            self.passphrase = ""
            self.close()

    def begin(self, database: Database) -> None:
        """Begin a transaction. If the one before seemed to fail but reached the disk, the keys that it added count:
        something may be sealed under them."""
        database.begin()
        if not self._perhaps_added or self._kek is None:
            return
        self._settle(database)
        known = set(self._ring.ids)
        for key_id, wrapped, _ in database.data_keys():
            if key_id not in known:
                self._ring.add(key_id, unwrap(wrapped, self._kek, self.store, key_id))
        self._perhaps_added = False

    # -- sealing

    def seal(self, database: Database, plain: bytes, bound: Bound) -> bytes:
        """Raises StoreUnavailable."""
        self._require_open()
        if not self._seals_left:
            key_id = self._ring.current
            used = next(seals for each, _, seals in database.data_keys() if each == key_id)
            if used + RESERVED > SEALS_PER_KEY:
                key_id = self.renew(database)
            database.reserve_seals(key_id, RESERVED)
            self._seals_left = RESERVED
        self._seals_left -= 1
        return self._ring.seal(plain, bound)

    def seal_uncounted(self, plain: bytes, bound: Bound) -> bytes:
        """Seal while the disk cannot store the count. That is safe: each failed transaction gave up the rest of the
        seals that were counted ahead. Raises StoreUnavailable."""
        self._require_open()
        return self._ring.seal(plain, bound)

    def unseal(self, sealed: bytes | str, bound: Bound) -> bytes:
        """Raises EnvelopeError, StoreUnavailable."""
        self._require_open()
        return self._ring.open(sealed, bound)

    def _require_open(self) -> None:
        if self._kek is None:
            raise StoreUnavailable("the keys are locked")

    # -- rotation

    def rewrap(self, database: Database, kek: bytes, passphrase: str) -> None:
        """Wrap the data keys under another key-encryption key; `passphrase`: how it is derived, if it is. The name of
        the old key is kept, so that an error can say that it was replaced."""
        self._require_open()
        self._settle(database)
        assert self._kek is not None
        for key_id, wrapped, _ in database.data_keys():
            key = unwrap(wrapped, self._kek, self.store, key_id)
            database.set_wrapped(key_id, wrap(key, kek, self.store, key_id, self._entropy))
        database.set_meta(RETIRED, name_of_kek(self._kek, self.store))
        database.set_meta(PASSPHRASE, passphrase)
        self._next_kek, self._next_passphrase = kek, passphrase

    def is_in_use(self, kek: bytes) -> bool:
        return kek == self._kek

    def renew(self, database: Database) -> int:
        """Add a data key and seal everything under it from now on. Returns its id."""
        self._require_open()
        self._seals_left = 0
        return self._add(database, self._ring.current + 1)

    def retire(self, database: Database, current: int, sealed: Iterable[bytes]) -> list[int]:
        """Delete the data keys before `current` that are not used any more, neither in the tables nor by anything in
        `sealed`. Returns the old ones that are left."""
        used = {key_id_of(header) for header in (*database.headers(), *sealed)}
        old = [key_id for key_id, _, _ in database.data_keys() if key_id < current]
        for key_id in old:
            if key_id not in used:
                database.delete_data_key(key_id)
        return [key_id for key_id in old if key_id in used]

    def retired(self, current: int, left: list[int]) -> None:
        """The deletion by `retire` is committed: forget those keys."""
        for key_id in self._ring.ids:
            if key_id < current and key_id not in left:
                self._ring.remove(key_id)

    def _settle(self, database: Database) -> None:
        """Find out whether a rewrapping whose commit failed reached the disk: then its key is the right one."""
        if self._perhaps_kek is None or self._next_kek is not None or self._kek is None:
            return
        for key_id, wrapped, _ in database.data_keys():
            try:
                unwrap(wrapped, self._kek, self.store, key_id)
            except EnvelopeError:
                self._kek, self.passphrase = self._perhaps_kek, database.meta(PASSPHRASE) or ""
            self._perhaps_kek = None
            return

    def _add(self, database: Database, key_id: int) -> int:
        self._settle(database)
        key, kek = self._entropy.bytes(KEY_BYTES), self._next_kek or self._kek
        assert kek is not None
        database.add_data_key(key_id, wrap(key, kek, self.store, key_id, self._entropy))
        self._ring.add(key_id, key)
        self._added.append(key_id)
        return key_id


def fault(path: Path, error: Exception) -> StoreError:
    """Why a transaction was not carried out, after an error that nothing foresaw."""
    if isinstance(error, EnvelopeError):
        words = f"something sealed in it does not open ({error}), so it was changed; nothing was written"
        return StoreError(f"{path}: {words}; put the file back as it was, or: brokerctl restore BACKUP")
    return StoreError(f"a fault of brokerd's own in the store: {type(error).__name__}")
