# Key management: lock and unlock a running brokerd, replace its keys, copy the store. The daemon reads keys; the store
# owns what they wrap; server/ decides who may do this.
from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Protocol

import trio

from brokerd.broker.broker import TokenBroker
from brokerd.core.errors import Code, Failure
from brokerd.core.events import Event
from brokerd.core.ports import Store, StoreError, StoreUnavailable, WrongKey
from brokerd.core.secret import Secret, SecretSource
from brokerd.edge.store import passphrase as passphrases
from brokerd.telemetry.event_log import EventLog

SHORTEST = 8  # characters that a new passphrase must have; a good one is longer
CHECK_INTERVAL = 10.0  # seconds between checks whether a full rotation was interrupted
DELAY_FIRST, DELAY_LONGEST = 1.0, 300.0  # seconds to wait after a wrong passphrase, doubled for each


class KeyHost(Protocol):
    """What key management asks of the daemon."""

    async def key_sources(self) -> tuple[SecretSource, ...]:
        """Where keys are, as the configuration says now, the present key first; none: a passphrase. Raises Failure."""
        ...

    async def read_key(self, source: SecretSource) -> bytes:
        """Raises Failure."""
        ...

    async def load_grants(self) -> None:
        """Read configuration and store again. Raises Failure."""
        ...

    async def drop_secrets(self) -> None:
        """Keep nothing in memory that came from the configuration and the providers."""
        ...


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did. `rewrapped`: the key was replaced; `reencrypted`: how many records are sealed under a new
    data key; `damaged`: how many could not be opened. The old data keys of damaged records are kept."""

    rewrapped: bool
    reencrypted: int = 0
    damaged: int = 0


class KeyManager:
    def __init__(self, store: Store, broker: TokenBroker, host: KeyHost, events: EventLog) -> None:
        self._store = store
        self._broker = broker
        self._host = host
        self._events = events
        self._one_at_a_time = trio.Lock()
        self._wrong = 0  # wrong passphrases in a row
        self._next_try_at = 0.0

    async def lock(self) -> bool:
        """Serve nothing from now on. When exchanges under way have ended and are stored, drop tokens, credentials and
        keys. Returns False if brokerd was locked already. Raises Failure."""
        async with self._one_at_a_time:
            if self._broker.locked:
                return False
            with trio.CancelScope(shield=True):  # stopped half-way, it would look locked and still have the keys
                await self._broker.lock()
                await self._store.lock()
                await self._host.drop_secrets()
            self._events.say(Event.LOCKED)
        return True

    async def unlock(self, passphrase: Secret | None = None, *, new: bool = False) -> bool:
        """Read the key again, then configuration and store. Returns False if brokerd was not locked. Raises Failure."""
        async with self._one_at_a_time:
            if not self._broker.locked:
                return False
            sources = await self._host.key_sources()
            try:
                await self._open(sources, passphrase, new=new)
                await self._host.load_grants()
            except BaseException:  # stopped half-way, it would look locked and have the keys
                with trio.CancelScope(shield=True):
                    await self._store.lock()
                    await self._host.drop_secrets()
                raise
            self._broker.unlocked()
        self._events.say(Event.UNLOCKED, grants=len(self._broker.grants))
        return True

    async def _open(self, sources: tuple[SecretSource, ...], passphrase: Secret | None, *, new: bool) -> None:
        """Open the store. Raises Failure; after a failed write the store may be open all the same."""
        try:
            if sources:
                await self._unlock_with_key(sources)
            else:
                await self._unlock_with_passphrase(passphrase, new=new)
        except StoreError as error:
            code = Code.UNAVAILABLE if isinstance(error, StoreUnavailable) else Code.MISCONFIGURED
            raise Failure(code, str(error)) from None

    async def _unlock_with_key(self, sources: tuple[SecretSource, ...]) -> None:
        wrong: WrongKey | None = None
        for source in sources:
            try:
                return await self._store.unlock(await self._host.read_key(source))
            except WrongKey as error:
                wrong = wrong or error
        assert wrong is not None
        self._events.say(Event.NOT_UNLOCKED, reason=str(wrong))
        raise wrong

    async def _unlock_with_passphrase(self, passphrase: Secret | None, *, new: bool) -> None:
        parameters = self._store.passphrase
        if bool(parameters) == new:
            words = "the store has a passphrase; unlock it without --new: brokerctl unlock"
            if not parameters:
                words = "the store has no passphrase yet; choose one: brokerctl unlock --new"
            raise Failure(Code.BAD_REQUEST, words)
        if not passphrase:
            raise Failure(Code.LOCKED, "the passphrase is missing; give it to: brokerctl unlock")
        if (left := self._next_try_at - trio.current_time()) > 0:
            raise Failure(Code.LIMIT, "a wrong passphrase was given a short while ago", retry_after=left)
        if new:
            _check(passphrase)
            parameters = passphrases.fresh()
        try:
            await self._store.unlock(await _derived(passphrase, parameters), parameters)
        except WrongKey:
            delay = delay_after(self._wrong)
            self._wrong += 1
            self._next_try_at = trio.current_time() + delay
            self._events.say(Event.NOT_UNLOCKED, reason="a wrong passphrase", in_a_row=self._wrong)
            raise Failure(Code.DENIED, "the passphrase is wrong; nothing was changed", retry_after=delay) from None
        self._wrong = 0

    async def rotate(self, passphrase: Secret | None, *, full: bool) -> Rotation:
        """Wrap the data keys under the key that the configuration names now. `full`: also seal every record under a new
        data key. Raises Failure."""
        async with self._one_at_a_time:
            if self._broker.locked:
                raise self._broker.locked_failure()
            sources, parameters = await self._host.key_sources(), ""
            kek = await self._host.read_key(sources[0]) if sources else None
            if kek is None and passphrase:
                _check(passphrase)
                parameters = passphrases.fresh()
                kek = await _derived(passphrase, parameters)
            if kek is None and not (full and self._store.passphrase):
                words = "[daemon] key is a passphrase; choose a new one: brokerctl key rotate --passphrase"
                raise Failure(Code.BAD_REQUEST, words)
            rewraps = kek is not None and not self._store.is_in_use(kek)
            if not (rewraps or full):
                words = "the key that [daemon] key names is the one in use; make another (brokerctl keygen FILE), "
                raise Failure(Code.BAD_REQUEST, f"{words}name it there, and the old one in previous_key")
            try:
                if rewraps and kek is not None:
                    await self._store.rewrap(kek, parameters)
                    self._events.say_now(Event.KEY_ROTATED, passphrase=bool(parameters))
                count, damaged = await self._reencrypt() if full else (0, 0)
            except StoreError as error:
                then = "; brokerd continues by itself" if self._store.resealing_since is not None else ""
                raise Failure(Code.UNAVAILABLE, f"{error}{then}", retry_after=5.0) from None
        return Rotation(rewraps, count, damaged)

    async def backup(self) -> bytes:
        """A copy of the store; it stays sealed. Raises Failure."""
        try:
            copy = await self._store.snapshot()
        except StoreUnavailable as error:
            raise Failure(Code.UNAVAILABLE, str(error), retry_after=5.0) from None
        self._events.say(Event.BACKUP_MADE, bytes=len(copy))
        return copy

    async def finish_rotations(self) -> None:
        """Continue a full rotation that was interrupted; runs as long as the daemon serves."""
        while True:
            async with self._one_at_a_time:
                unfinished = self._store.resealing_since is not None and not self._store.trouble
                if unfinished and not self._broker.locked:
                    with contextlib.suppress(StoreError):  # status shows what is wrong with the store
                        await self._reencrypt(continues=True)
            await trio.sleep(CHECK_INTERVAL)

    async def _reencrypt(self, *, continues: bool = False) -> tuple[int, int]:
        self._events.say_now(Event.ROTATION_BEGAN, **({"continues": True} if continues else {}))
        count, damaged = await self._store.reencrypt(goes_on=continues)
        self._events.say_now(Event.ROTATION_ENDED, records=count, damaged=damaged)
        return count, damaged


def delay_after(wrong: int) -> float:
    """Seconds until the next passphrase is tried, after a wrong one that had `wrong` others before it."""
    return float(min(DELAY_FIRST * 2**wrong, DELAY_LONGEST))


def _check(passphrase: Secret) -> None:
    if len(passphrase.reveal()) < SHORTEST:
        raise Failure(Code.BAD_REQUEST, f"the passphrase is too short: choose one of at least {SHORTEST} characters")


async def _derived(passphrase: Secret, parameters: str) -> bytes:
    return await trio.to_thread.run_sync(passphrases.derive, passphrase, parameters, limiter=_derivations)


_derivations = trio.CapacityLimiter(1)  # each takes 64 MiB
