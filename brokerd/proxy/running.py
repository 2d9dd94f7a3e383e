# What a proxy and a metadata endpoint have in common while they run: whom they admit, by which names clients may call
# them, and how a request is checked. RunningProxy, which forwards, is here; RunningEndpoint is in endpoints.py.
from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Protocol, TypeVar

from brokerd.config.metadata import EndpointSettings
from brokerd.config.proxies import ProxySettings
from brokerd.core.access.policy import Caller
from brokerd.core.http.forwarding import check_browser, hosts_of
from brokerd.core.http.heads import RequestHead
from brokerd.proxy.exchange import LOOK_AFTER, Course, Exchange
from brokerd.proxy.short_requests import ShortRequests
from brokerd.proxy.streams import Incoming
from brokerd.proxy.tokens import LiveTokens
from brokerd.proxy.upstreams import UpstreamConnections
from brokerd.proxy.usage import Usage

Settings = TypeVar("Settings", ProxySettings, EndpointSettings, covariant=True)


class RequestExchange(Protocol):
    """One request and its answer, run once. `done` says how far it came, also if `run` raises."""

    done: Course

    async def run(self, room: memoryview) -> None: ...


@dataclass(eq=False)
class Running(ABC, Generic[Settings]):
    """`runs`: its clients may send further requests. `needs`: the evidence that its `caller` asks for; at a TCP port
    there is none. `kind`: its tables in FILE.toml."""

    kind: ClassVar[str]
    settings: Settings
    tokens: LiveTokens
    usage: Usage
    runs: bool = field(default=True, kw_only=True)
    needs: frozenset[str] = field(init=False)
    hosts: frozenset[bytes] = field(init=False)

    def __post_init__(self) -> None:
        place = self.settings.place
        self.needs = frozenset[str]().union(*(each.asks() for each in self.settings.callers))
        self.hosts = hosts_of(place.host, place.port)

    @property
    def table(self) -> str:
        return f"{self.kind}.{self.settings.name}"

    def admits(self, caller: Caller) -> bool:
        return any(each.matches(caller) for each in self.settings.callers)

    @abstractmethod
    def check(self, head: RequestHead) -> bytes:
        """The path of a request that may be answered. Raises NotForwarded."""

    @abstractmethod
    def exchange(self, client: Incoming, head: RequestHead, caller: Caller) -> RequestExchange: ...

    def close(self) -> None:
        """Requests under way go on."""

    def sweep(self) -> None:
        """Close what has waited for too long."""


@dataclass(eq=False)
class RunningProxy(Running[ProxySettings]):
    """A proxy and its connections to the upstream."""

    kind = "proxies"
    upstreams: UpstreamConnections
    requests: ShortRequests | None = field(init=False)  # None: all go the long way

    def __post_init__(self) -> None:
        super().__post_init__()
        is_patient = self.settings.timeout >= 2 * LOOK_AFTER
        self.requests = ShortRequests(self.check, self.settings.upstream) if is_patient else None

    def check(self, head: RequestHead) -> bytes:
        path = self.settings.allowed.check(head)
        if self.settings.place.port:
            check_browser(head, self.hosts)
        return path

    def exchange(self, client: Incoming, head: RequestHead, _caller: Caller) -> Exchange:
        return Exchange(self.settings, self.tokens, self.upstreams, client, head)

    def close(self) -> None:
        self.upstreams.close()

    def sweep(self) -> None:
        self.upstreams.sweep()
