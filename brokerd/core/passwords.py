# What a provider said of its users' passwords, by digest, for all its grants together: an account may have several, and
# their tries together lock it (law 7). Pure; the grants' records make it last.
from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from math import inf

from brokerd.core.backoff import doubted_delay
from brokerd.core.moment import Moment, seconds_until
from brokerd.core.record import Doubt
from brokerd.core.secret import Secret


class Passwords:
    """`refused`: those that are not sent again until their bytes change or an operator says so."""

    __slots__ = ("_doubts", "refused")

    def __init__(self) -> None:
        self.refused: set[bytes] = set()
        self._doubts: dict[bytes, tuple[str, Doubt]] = {}

    def refuse(self, password: bytes) -> None:
        self.refused.add(password)
        self._doubts.pop(password, None)

    def doubt(self, grant: str, doubt: Doubt) -> None:
        """That grant's try may have been refused, or is under way."""
        self._doubts[doubt.password] = grant, doubt

    def leave(self, grant: str, password: bytes, earlier: Doubt | None) -> None:
        """That grant's try said nothing of it: what was known before still holds, and how often it was sent in vain."""
        self._doubts.pop(password, None)
        if earlier is not None:
            self._doubts[password] = grant, earlier

    def trust(self, password: bytes) -> None:
        """It brought tokens, or an operator says that it is right."""
        self.refused.discard(password)
        self._doubts.pop(password, None)

    def earlier(self, grant: str, password: bytes, request: bytes) -> Doubt | None:
        """What is known of it before the grant sends that request. A doubt from another grant's request becomes one of
        this request: only the grant whose try it was may have mended it."""
        if (found := self._doubts.get(password)) is None:
            return None
        by, doubt = found
        return doubt if by == grant else replace(doubt, request=request)

    def times(self, password: bytes) -> int:
        """How often in a row it was sent and perhaps refused."""
        found = self._doubts.get(password)
        return found[1].times if found else 0

    def wait(self, grant: str, password: bytes, request: bytes, now: Moment) -> float:
        """Seconds until the grant may send it as part of that request: 0: now, infinity: not as it is. The grant whose
        try it was may try at once what has been changed in the request. What no clock can date after a reboot (law 8)
        counts from this question on: a machine that is rebooted often does not try at every start."""
        if password in self.refused:
            return inf
        if (found := self._doubts.get(password)) is None:
            return 0.0
        by, doubt = found
        if by == grant and doubt.request != request:  # it is mended
            return 0.0
        if (wait := seconds_until(doubt.until, now)) == -inf:
            wait = doubted_delay(doubt.times, 0.0)
            self._doubts[password] = by, replace(doubt, until=now.after(wait))
        return max(0.0, wait)


def account_of(credentials: Mapping[str, Secret]) -> bytes:
    """What a refused password is known again by, whoever of the provider's grants has it, and whichever client asks:
    a client's secret, or a code of the minute in a field of the request, may change by itself."""
    return digest(_without(BESIDE, credentials))


def lasting(credentials: Mapping[str, Secret]) -> Mapping[str, Secret]:
    """Those of a request with a password whose change is somebody's doing: a code of the minute is not among them."""
    return _without((FIELD,), credentials)


def digest(credentials: Mapping[str, Secret]) -> bytes:
    """What credentials are known again by."""
    found = hashlib.sha256()
    for name, value in sorted(credentials.items()):
        found.update(f"\0{name}\0{value.reveal()}".encode())
    return found.digest()


def _without(beginnings: tuple[str, ...], credentials: Mapping[str, Secret]) -> Mapping[str, Secret]:
    return {name: value for name, value in credentials.items() if not name.startswith(beginnings)}


LOCKABLE = "password"  # the credential whose repetition locks accounts (law 7)
FIELD = "request."  # how secret fields of requests begin,
BESIDE = ("client_secret", "private_key", FIELD)  # and all credentials that do not say whose account it is
