# What the methods remember about one connection: who calls, which rules it matches, what it watches and has begun.
from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import trio

from brokerd.core.access.admission import Account
from brokerd.core.access.policy import Caller, Policy, Standing, learned
from brokerd.core.ports import Process
from brokerd.core.secret import Secret

if TYPE_CHECKING:
    from brokerd.server.short_way import KnownRequest

Notify = Callable[[str, dict[str, object]], Awaitable[bool]]


@dataclass(eq=False, slots=True)
class Watches:
    """The grants that a connection watches. `callbacks` is by grant; `changed` holds the grants about which nothing was
    pushed since they changed."""

    callbacks: dict[str, Callable[[str], None]] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    wake: trio.Event = field(default_factory=trio.Event)
    pusher: trio.CancelScope | None = None


class Followed(Protocol):
    """A renewal that is followed."""

    @property
    def scope(self) -> trio.CancelScope: ...


@dataclass(eq=False, slots=True)
class StatusWatch:
    """A connection that watches the status of all grants. `changed`: those about which nothing was pushed since."""

    changed: set[str] = field(default_factory=set)
    wake: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def notice(self, name: str) -> None:
        self.changed.add(name)
        self.wake.set()

    def take(self) -> list[str]:
        """What has changed; from now on it collects again."""
        names, self.changed, self.wake = sorted(self.changed), set(), trio.Event()
        return names


@dataclass(eq=False, slots=True)
class CallerSession:
    """One connection as the methods see it. It has more than 12 attributes because several methods remember something
    here between two requests, and this is the only object that ends with the connection.

    `caller` carries the evidence that `process` showed last. `standing` is what `rules` can say about this caller, and
    `matching` the rules that it matches with that evidence; None: not looked up yet."""

    process: Process
    account: Account
    notify: Notify
    caller: Caller = field(init=False)
    seen: tuple[Caller | None, frozenset[str]] = (None, frozenset())  # the last look, and what was looked for
    rules: Policy | None = None
    standing: Standing | None = None
    matching: Policy | None = None
    may_get: set[str] = field(default_factory=set)
    watches: Watches = field(default_factory=Watches)
    status_watch: StatusWatch | None = None
    short: dict[bytes, KnownRequest] = field(default_factory=dict)  # what the short way knows, by request
    logins: set[str] = field(default_factory=set)
    backup: bytes = b""  # a copy of the store that the caller fetches piece by piece
    trace: Followed | None = None  # the renewal that it follows
    parts: tuple[str, Secret] | None = None  # a grant, and the beginning of a refresh token for it

    def __post_init__(self) -> None:
        self.caller = self.process.caller

    def update(self, seen: Caller, needs: frozenset[str]) -> None:
        """Take over what a look at the process has just shown. If it differs, what the rules said is forgotten."""
        if seen is self.seen[0] and needs == self.seen[1]:
            return
        self.seen = seen, needs
        caller = learned(self.caller, seen, needs)
        if caller != self.caller:
            self.caller = caller
            self.matching = None
            self.may_get.clear()
