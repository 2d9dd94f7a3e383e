# The custody of the keys: locked and unlocked while brokerd runs, and replaced by others. Where keys come from is the
# daemon's to read, what they wrap the store's. It knows nobody's rights.
from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Protocol

import trio

from brokerd.audit import Audit
from brokerd.broker import Broker
from brokerd.core.failure import Code, Failure
from brokerd.core.ports import StoreError, StoreUnavailable, WrongKey
from brokerd.core.secret import Secret, SecretSource
from brokerd.edge import passphrase as passphrases

SHORTEST = 8  # characters of a passphrase that is chosen; a good one is longer
GO_ON = 10.0  # seconds between looks whether a sealing of everything anew was interrupted
PATIENCE_FIRST, PATIENCE_LONGEST = 1.0, 300.0  # seconds to wait after a wrong passphrase, doubled for each


class KeyStore(Protocol):
    """What custody needs of the store. `passphrase`: how the key is derived of one, "" where it is not;
    `resealing_since`: since when everything is being sealed anew, in Unix seconds; `trouble`: what is wrong with it."""

    trouble: str | None
    resealing_since: float | None

    @property
    def passphrase(self) -> str: ...

    def is_in_use(self, kek: bytes) -> bool: ...

    async def lock(self) -> None: ...

    async def unlock(self, kek: bytes, passphrase: str = "") -> None: ...

    async def rewrap(self, kek: bytes, passphrase: str = "") -> None: ...

    async def reencrypt(self, *, goes_on: bool = False) -> tuple[int, int]: ...

    async def snapshot(self) -> bytes: ...


class World(Protocol):
    """What the daemon does for the custody of its keys."""

    async def key_sources(self) -> tuple[SecretSource, ...]:
        """As the configuration says now, the present one first; none: a passphrase. Raises Failure."""
        ...

    async def read_key(self, source: SecretSource) -> bytes:
        """Raises Failure."""
        ...

    async def resume(self) -> None:
        """Hold again what is configured and stored. Raises Failure."""
        ...

    async def let_go(self) -> None:
        """Hold nothing of what the configuration and providers gave."""
        ...


@dataclass(frozen=True, slots=True)
class Rotation:
    """What became of it: whether the key is another one; how many records were sealed anew, and how many could not be
    opened: for their sake the data keys that they name stay."""

    rewrapped: bool
    reencrypted: int = 0
    damaged: int = 0


class Custody:
    def __init__(self, store: KeyStore, broker: Broker, world: World, audit: Audit) -> None:
        self._store = store
        self._broker = broker
        self._world = world
        self._audit = audit
        self._turn = trio.Lock()  # one change of the keys at a time
        self._wrong = 0  # passphrases in a row
        self._again_at = 0.0

    async def lock(self) -> bool:
        """Serve nothing from this moment on; when exchanges under way have ended and are stored, drop tokens,
        credentials and keys. False: it was locked. Raises Failure."""
        async with self._turn:
            if self._broker.locked:
                return False
            with trio.CancelScope(shield=True):  # half of it would serve nothing, hold the keys and pass for locked
                await self._broker.lock()
                await self._store.lock()
                await self._world.let_go()
            self._audit.said("locked")
        return True

    async def unlock(self, passphrase: Secret | None = None, *, new: bool = False) -> bool:
        """Get the key again, and hold what is configured and stored. False: it was unlocked. Raises Failure."""
        async with self._turn:
            if not self._broker.locked:
                return False
            sources = await self._world.key_sources()
            try:
                await self._open(sources, passphrase, new=new)
                await self._world.resume()
            except BaseException:  # half of it would hold the keys and pass for locked
                with trio.CancelScope(shield=True):
                    await self._store.lock()
                    await self._world.let_go()
                raise
            self._broker.unlocked()
        self._audit.said("unlocked", grants=len(self._broker.grants))
        return True

    async def _open(self, sources: tuple[SecretSource, ...], passphrase: Secret | None, *, new: bool) -> None:
        """Open the store. Raises Failure; what the disk did not take then may be open all the same."""
        try:
            if sources:
                await self._unlock_with(sources)
            else:
                await self._unlock_by(passphrase, new=new)
        except StoreError as error:
            code = Code.UNAVAILABLE if isinstance(error, StoreUnavailable) else Code.MISCONFIGURED
            raise Failure(code, str(error)) from None

    async def _unlock_with(self, sources: tuple[SecretSource, ...]) -> None:
        wrong: WrongKey | None = None
        for source in sources:
            try:
                return await self._store.unlock(await self._world.read_key(source))
            except WrongKey as error:
                wrong = wrong or error
        assert wrong is not None
        self._audit.warned("not unlocked", reason=str(wrong))
        raise wrong

    async def _unlock_by(self, passphrase: Secret | None, *, new: bool) -> None:
        how = self._store.passphrase
        if bool(how) == new:
            words = "the store has a passphrase; without --new: brokerctl unlock"
            if not how:
                words = "the store has no passphrase yet; choose one: brokerctl unlock --new"
            raise Failure(Code.BAD_REQUEST, words)
        if not passphrase:
            raise Failure(Code.LOCKED, "expected the passphrase; give it to: brokerctl unlock")
        if (left := self._again_at - trio.current_time()) > 0:
            raise Failure(Code.LIMIT, "a wrong passphrase was given a short while ago", retry_after=left)
        if new:
            _check(passphrase)
            how = passphrases.fresh()
        try:
            await self._store.unlock(await _derived(passphrase, how), how)
        except WrongKey:
            delay = patience(self._wrong)
            self._wrong += 1
            self._again_at = trio.current_time() + delay
            self._audit.warned("not unlocked", reason="a wrong passphrase", in_a_row=self._wrong)
            raise Failure(Code.DENIED, "the passphrase is wrong; nothing was changed", retry_after=delay) from None
        self._wrong = 0

    async def rotate(self, passphrase: Secret | None, *, full: bool) -> Rotation:
        """Wrap the data keys under the key that the configuration names now; `full`: seal everything anew as well.
        Raises Failure."""
        async with self._turn:
            if self._broker.locked:
                raise self._broker.locked_failure()
            sources, how = await self._world.key_sources(), ""
            kek = await self._world.read_key(sources[0]) if sources else None
            if kek is None and passphrase:
                _check(passphrase)
                how = passphrases.fresh()
                kek = await _derived(passphrase, how)
            if kek is None and not (full and self._store.passphrase):
                words = "[daemon] key is a passphrase; choose a new one: brokerctl key rotate --passphrase"
                raise Failure(Code.BAD_REQUEST, words)
            rewraps = kek is not None and not self._store.is_in_use(kek)
            if not (rewraps or full):
                words = "the key that [daemon] key names is the one in use; make another (brokerctl keygen FILE), "
                raise Failure(Code.BAD_REQUEST, f"{words}name it there, and the old one in previous_key")
            try:
                if rewraps and kek is not None:
                    await self._store.rewrap(kek, how)
                    self._audit.said_at_once("key rotated", passphrase=bool(how))
                count, damaged = await self._reencrypt() if full else (0, 0)
            except StoreError as error:
                then = "; the rest goes on by itself" if self._store.resealing_since is not None else ""
                raise Failure(Code.UNAVAILABLE, f"{error}{then}", retry_after=5.0) from None
        return Rotation(rewraps, count, damaged)

    async def backup(self) -> bytes:
        """A copy of the store, sealed as it is. Raises Failure."""
        try:
            copy = await self._store.snapshot()
        except StoreUnavailable as error:
            raise Failure(Code.UNAVAILABLE, str(error), retry_after=5.0) from None
        self._audit.said("backup", bytes=len(copy))
        return copy

    async def go_on(self) -> None:
        """See an interrupted sealing of everything anew to its end; for as long as the daemon serves."""
        while True:
            async with self._turn:
                unfinished = self._store.resealing_since is not None and not self._store.trouble
                if unfinished and not self._broker.locked:
                    with contextlib.suppress(StoreError):  # status says what is wrong with the store
                        await self._reencrypt(goes_on=True)
            await trio.sleep(GO_ON)

    async def _reencrypt(self, *, goes_on: bool = False) -> tuple[int, int]:
        self._audit.said_at_once("sealing everything anew", **({"goes_on": True} if goes_on else {}))
        count, damaged = await self._store.reencrypt(goes_on=goes_on)
        self._audit.said_at_once("everything was sealed anew", records=count, damaged=damaged)
        return count, damaged


def patience(wrong: int) -> float:
    """Seconds until the next passphrase is looked at, after so many wrong ones before this."""
    return float(min(PATIENCE_FIRST * 2**wrong, PATIENCE_LONGEST))


def _check(passphrase: Secret) -> None:
    if len(passphrase.reveal()) < SHORTEST:
        raise Failure(Code.BAD_REQUEST, f"expected a passphrase of at least {SHORTEST} characters")


async def _derived(passphrase: Secret, how: str) -> bytes:
    return await trio.to_thread.run_sync(passphrases.derive, passphrase, how, limiter=_derivations)


_derivations = trio.CapacityLimiter(1)  # each takes 64 MiB
