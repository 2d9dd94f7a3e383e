# Which requests may go the short way, and how their bytes are made: those that came whole, checked once for each head
# that came. Pure: the key of what is remembered is the whole head, and RunningProxy forgets it when its rules change.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from brokerd.core.http.forwarding import NotForwarded, Upstream, lines_after_token, lines_before_token, upgrades
from brokerd.core.http.heads import END, BadHead, RequestHead, read_request

REMEMBERED = 128  # heads
LONGEST = 2_048  # bytes of a head that is remembered


@dataclass(slots=True, eq=False)  # frozen would cost as much as all the rest
class ShortRequest:
    """`before` and `after`: the head for the upstream, without the line of the token between them. `path`: without the
    query. `length`: of the body."""

    head: RequestHead
    path: bytes
    length: int
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
        end = data.find(END) + len(END)
        if end < len(END):
            return None
        key = data[:end], name
        if key in self._known:
            found = self._known[key]
        else:
            found = self._make(*key)
            if end <= LONGEST and not (found and found.head.is_private):
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[key] = found
        return found if found and end + found.length == len(data) else None

    def _make(self, data: bytes, name: str) -> ShortRequest | None:
        try:
            head = read_request(data)
            path = self._check(head)
        except (BadHead, NotForwarded):
            return None
        if head.minor == 0 or not head.keeps_alive or head.framing.chunked or upgrades(head):
            return None
        length = head.framing.length
        after = b"\r\n" if length is None else b"Content-Length: %d\r\n\r\n" % length
        before = lines_before_token(head, self._upstream, name)
        return ShortRequest(head, path, length or 0, before, lines_after_token(head) + after)
