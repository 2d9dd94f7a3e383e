# What the core needs of the world, each port as narrow as its users. Implementations live in brokerd/edge.
from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from brokerd.core.exchange import Request, Response
    from brokerd.core.moment import Moment
    from brokerd.core.policy import Caller


class Clock(Protocol):
    """Reads the time. The only source of it."""

    def now(self) -> Moment: ...


class Entropy(Protocol):
    """The only source of chance: bytes for keys and nonces, fractions for jitter."""

    def bytes(self, n: int) -> bytes: ...

    def fraction(self) -> float:
        """A number in [0, 1)."""
        ...


class Process(Protocol):
    """The process at the other end of a connection. Looking at it raises OSError where it is gone."""

    caller: Caller  # without evidence

    def glance(self, needs: frozenset[str]) -> Caller | None:
        """The caller with that evidence as it is now; None where reading it could block."""
        ...

    async def look(self, needs: frozenset[str]) -> Caller: ...

    def close(self) -> None: ...


class Processes(Protocol):
    """Processes and users that nobody calls from."""

    async def of_pid(self, pid: int) -> Process:
        """To be closed. Raises OSError."""
        ...

    async def of_user(self, name: str) -> Caller | None:
        """A caller whom nothing is known of but his user and groups; None: there is no such user."""
        ...


class TransportError(Exception):
    """An HTTP exchange that brought no whole answer. The text is fit for people and free of secrets.

    `sent`: the first byte of the request may have left (law 3). Where it is false the provider saw nothing.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class AddressRefused(TransportError):
    """The name leads to an address that a public server's metadata must not send us to. Nothing was sent."""


class Http(Protocol):
    """One provider's way out: its TLS settings, proxy, deadlines and kept connections."""

    async def send(self, request: Request) -> Response:
        """One request, one answer, nothing repeated. Raises TransportError."""
        ...

    def sweep(self) -> None:
        """Close the connections that have been idle for too long."""
        ...

    async def aclose(self) -> None:
        """Close the kept connections."""
        ...


class StoreError(Exception):
    """The store could not do it. The text says what and why."""


class StoreUnavailable(StoreError):
    """Nothing was written: the disk is full, away or read-only. Trying again later may help."""


class WrongKey(StoreError):
    """The key is not the one that the store was sealed with. Nothing was changed."""


class GenerationConflict(StoreError):
    """Nothing was written: the store holds another generation than the one that was to be replaced (law 4)."""
