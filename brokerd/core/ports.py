# The ports: what brokerd needs from the outside world, as protocols. brokerd/edge implements them; tests have their
# own.
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from brokerd.core.access.policy import Caller
    from brokerd.core.exchange.server_metadata import Metadata
    from brokerd.core.exchange.steps import Request, Response
    from brokerd.core.grant.record import Record
    from brokerd.core.timing.breaker import Breaker
    from brokerd.core.timing.moment import Moment


class Clock(Protocol):
    """Reads the time. The only source of it."""

    def now(self) -> Moment: ...


class Entropy(Protocol):
    """The only source of chance: bytes for keys and nonces, fractions for jitter."""

    def bytes(self, n: int) -> bytes: ...

    def fraction(self) -> float:
        """A number in [0, 1)."""


class Process(Protocol):
    """The process at the other end of a connection. `glance` and `look` raise OSError if it has ended."""

    caller: Caller  # without evidence

    def glance(self, needs: frozenset[str]) -> Caller | None:
        """The caller with that evidence as it is now; None: reading it could block."""

    def still_shows(self, needs: frozenset[str], seen: Caller, batch: object) -> bool:
        """Whether `glance` would give the very same `seen` now, provided that the process lives: who asks must look at
        that afterwards. All requests of a batch came before the first look for it, so one look serves all of them."""

    async def look(self, needs: frozenset[str]) -> Caller: ...

    def lives(self) -> bool: ...

    async def until_ended(self) -> None: ...

    def close(self) -> None: ...


class TokenMemory(Protocol):
    """Memory that brokerd writes and a caller only reads, for a shared token."""

    view: memoryview

    def descriptor(self) -> int:
        """A new descriptor of it, for reading only. Raises OSError."""

    def stop_writing(self) -> None: ...

    def is_held(self) -> bool:
        """Whether somebody else still has it open or mapped, or that cannot be known."""

    def close(self) -> None: ...


class Processes(Protocol):
    """Looks up processes and users that have no connection."""

    async def of_pid(self, pid: int) -> Process:
        """The caller must close it. Raises OSError."""

    async def of_user(self, name: str) -> Caller | None:
        """A caller of whom only user and groups are known; None: there is no such user."""


class TransportError(Exception):
    """An HTTP exchange without a whole answer. The text is for people and has no secrets. `sent`: the first byte of the
    request may have left (law 3); if not, the provider saw nothing."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class AddressRefused(TransportError):
    """The name has a private address, to which a public server's metadata must not send us. Nothing was sent."""


class AnswerTooLarge(TransportError):
    """The answer is larger than the settings allow."""


class Http(Protocol):
    """The HTTP client for one provider: TLS settings, proxy, deadlines, kept connections."""

    async def send(self, request: Request) -> Response:
        """Sends the request once. Raises TransportError."""

    def sweep(self) -> None:
        """Close the connections that have been idle for too long."""

    async def aclose(self) -> None:
        """Close the kept connections."""


class StoreError(Exception):
    """The store could not do something. The text says what and why."""


class StoreUnavailable(StoreError):
    """Nothing was written: the disk is full, away or read-only. Trying again later may help."""


class WrongKey(StoreError):
    """The key is not the one that the store was sealed with. Nothing was changed."""


class GenerationConflict(StoreError):
    """Nothing was written: the store has another generation than the one to replace (law 4)."""


class ChangedElsewhere(GenerationConflict):
    """Nothing was written: another host of the fleet has changed the record since."""


class HeldElsewhere(StoreUnavailable):
    """Another host of the fleet has an exchange of the grant under way; `host` is "" if its name is not known."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host or 'another host of the fleet'} has an exchange of this grant under way")
        self.host = host


class NotNow(StoreUnavailable):
    """This host of the fleet may begin no exchange of the grant now. Nothing was sent, and the grant is as it was."""


@dataclass(frozen=True, slots=True)
class Awaits:
    """`seconds` after which no answer of an exchange is waited for any more. `patient`: if the outcome of another
    host's exchange is not known, begin only when no answer to that can come."""

    seconds: float
    patient: bool = True


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as the store has it. `damage`: why it could not be opened; `record` is then None. `dormant_since`: when
    its grant vanished from the configuration, in Unix seconds. `recovered`: the process before could not store it, and
    systemd kept it; `unstored`: this process could not store it either, and the store still has generation
    `replaces`. `history`: how its last exchanges ended, packed (core/grant/history.py)."""

    grant: str
    fingerprint: str
    record: Record | None
    dormant_since: float | None
    damage: str | None = None
    recovered: bool = False
    unstored: bool = False
    replaces: int | None = None
    history: bytes = b""


class Store(Protocol):
    """Where records are kept. What a method did is durable when it returns. Every method may raise StoreUnavailable.

    `adopted`: it belongs to this machine, so its tokens may be sent (law 15). `trouble`: what is wrong with the disk,
    `since`: since when, in Unix seconds. `resealing_since`: when a full rotation of the keys began that has not
    ended. `cut_off`: the fleet's etcd has been away for longer than the configuration permits, so nothing is served.
    `misses`: records that this host knows are gone from the fleet's etcd, and are not sent."""

    @property
    def adopted(self) -> bool: ...

    @property
    def cut_off(self) -> bool: ...

    @property
    def misses(self) -> bool: ...

    @property
    def trouble(self) -> str | None: ...

    @property
    def since(self) -> float | None: ...

    @property
    def resealing_since(self) -> float | None: ...

    async def read(self, grant: str) -> Iterable[StoredRecord]:
        """The records of one grant as the disk has them, the active one first."""

    async def newest(self, grant: str) -> Iterable[StoredRecord]:
        """The same. If systemd keeps a newer record because the disk refused it, that one replaces the disk's."""

    async def begin(self, grant: str, fingerprint: str, generation: int, at: Moment, awaits: Awaits, /) -> None:
        """An exchange begins that is about to send the token of this generation. That is journalled (law 2), and nobody
        else may have an exchange of the grant at the same time (law 1). Raises HeldElsewhere, StoreUnavailable."""

    async def claim(self, grant: str, fingerprint: str, at: Moment, /) -> None:
        """The same for one that sends no stored token: nothing is journalled."""

    def last_look(self, grant: str, fingerprint: str, /) -> None:
        """Right before the first byte of a stored token leaves. Raises StoreUnavailable: it must not (law 3)."""

    async def end(self, grant: str, fingerprint: str, /, *, unstored: bool) -> None:
        """The exchange that `begin` or `claim` began is over. `unstored`: its outcome is still to be written."""

    async def until_free(self, grant: str, fingerprint: str, /) -> None:
        """After HeldElsewhere, until the other host's exchange has ended."""

    def patience(self, grant: str, fingerprint: str, left: float | None, /) -> float:
        """Seconds that another host is left to renew a grant that is due by itself; 0 or less: begin. `left`: how
        long the token lives."""

    async def write(
        self, record: Record, fingerprint: str, replaces: int | None, *, concludes: bool, history: bytes = b""
    ) -> None:
        """Write a record over generation `replaces`, None: there is none yet. `concludes`: an exchange ended with it,
        and its journal row is deleted in the same transaction. `history` is written with it, unless it is empty. Raises
        GenerationConflict."""

    async def dormant(self) -> Iterable[StoredRecord]:
        """The records of grants that the configuration does not name any more."""

    async def set_dormant(self, records: Iterable[tuple[str, str]], since: float | None) -> None:
        """Mark records (grant, fingerprint) that the configuration does not name any more; without `since`, unmark
        them."""

    async def forget(self, grant: str, fingerprint: str | None = None) -> int:
        """Delete the records of a grant, or those with that fingerprint. Returns how many there were."""

    async def write_breaker(self, provider: str, breaker: Breaker) -> None:
        """This host's own. It may have opened because this host cannot reach the provider."""

    async def share_breaker(self, provider: str, breaker: Breaker) -> None:
        """It is so by what the provider said: for all hosts of the fleet."""

    async def write_metadata(self, provider: str, metadata: Metadata) -> None: ...

    def kept(self) -> Iterable[StoredRecord]:
        """What systemd keeps because the disk refused it."""

    def is_kept_by_systemd(self, grant: str, fingerprint: str) -> bool:
        """Whether systemd keeps what the disk refused, until the service is stopped."""

    def is_kept_here(self, grant: str, fingerprint: str, /) -> bool:
        """Whether this host's own store has, durably, what the fleet's etcd could not be told yet."""

    async def adopt(self) -> None:
        """Let the store belong to this machine and this file from now on."""

    @property
    def passphrase(self) -> str:
        """How the key is derived from a passphrase; "" if it is not."""

    def is_in_use(self, kek: bytes) -> bool:
        """Whether this is the present key-encryption key."""

    async def lock(self) -> None:
        """Forget every key."""

    async def unlock(self, kek: bytes, passphrase: str = "") -> None:
        """Raises WrongKey."""

    async def rewrap(self, kek: bytes, passphrase: str = "") -> None:
        """Change the key-encryption key, in one transaction."""

    async def reencrypt(self, *, goes_on: bool = False) -> tuple[int, int]:
        """Seal everything under a new data key, or go on with that. Returns how many records there were, and how many
        could not be opened."""

    async def snapshot(self) -> bytes:
        """The whole database, as a file."""
