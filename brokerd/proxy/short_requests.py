# Which requests may go the short way, and how their bytes are made: requests without a body, checked once for each head
# that came. Pure: the key of what is remembered is the whole head, and RunningProxy forgets it when its rules change.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from brokerd.core.http.forwarding import NotForwarded, Upstream, lines_after_token, lines_before_token, upgrades
from brokerd.core.http.heads import END, BadHead, RequestHead, read_request
from brokerd.proxy.exchange import IDEMPOTENT

REMEMBERED = 128  # heads
LONGEST = 2_048  # bytes of a head that is remembered


@dataclass(frozen=True, slots=True, eq=False)
class ShortRequest:
    """`before` and `after`: the head for the upstream, without the line of the token between them. `path`: without the
    query."""

    head: RequestHead
    path: bytes
    before: bytes
    after: bytes


class ShortRequests:
    """`check` decides whether a request may be forwarded, from its head alone, and raises NotForwarded."""

    def __init__(self, check: Callable[[RequestHead], bytes], upstream: Upstream) -> None:
        self._check = check
        self._upstream = upstream
        self._known: dict[tuple[bytes, str], ShortRequest | None] = {}

    def find(self, data: bytes, name: str) -> ShortRequest | None:
        """The request of which `data` is all; None: it must go the long way. `name`: of the token's header."""
        key = data, name
        if (found := self._known.get(key, self)) is not self:
            return found  # type: ignore[return-value]
        made = self._make(data, name)
        if len(data) <= LONGEST:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[key] = made
        return made

    def _make(self, data: bytes, name: str) -> ShortRequest | None:
        if data.find(END) != len(data) - len(END):
            return None
        try:
            head = read_request(data)
            path = self._check(head)
        except (BadHead, NotForwarded):
            return None
        if head.minor == 0 or not head.keeps_alive or head.has_body or head.method not in IDEMPOTENT or upgrades(head):
            return None
        length = b"" if head.framing.length is None else b"Content-Length: 0\r\n"
        before = lines_before_token(head, self._upstream, name)
        return ShortRequest(head, path, before, lines_after_token(head) + length + b"\r\n")
