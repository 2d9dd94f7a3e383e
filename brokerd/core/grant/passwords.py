# Which passwords one provider refused, or may have refused, by digest: several grants may use one account, and all
# their tries together can lock it (law 7). Pure; the grants' records store it.
from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from math import inf

from brokerd.core.grant.record import Doubt
from brokerd.core.secret import Secret
from brokerd.core.timing.backoff import doubted_delay
from brokerd.core.timing.moment import Moment, seconds_until


class Passwords:
    """`refused`: not sent again until their bytes change or an operator says so."""

    __slots__ = ("_doubts", "refused")

    def __init__(self) -> None:
        self.refused: set[bytes] = set()
        self._doubts: dict[bytes, tuple[str, Doubt]] = {}

    def refuse(self, password: bytes) -> None:
        self.refused.add(password)
        self._doubts.pop(password, None)

    def doubt(self, grant: str, doubt: Doubt) -> None:
        """The grant sends the password now, or sent it and was perhaps refused."""
        self._doubts[doubt.password] = grant, doubt

    def leave(self, grant: str, password: bytes, earlier: Doubt | None) -> None:
        """The grant's try said nothing about the password: what was known before still holds."""
        self._doubts.pop(password, None)
        if earlier is not None:
            self._doubts[password] = grant, earlier

    def trust(self, password: bytes) -> None:
        """The password brought tokens, or an operator says that it is right."""
        self.refused.discard(password)
        self._doubts.pop(password, None)

    def earlier(self, grant: str, password: bytes, request: bytes) -> Doubt | None:
        """The doubt about the password before the grant sends that request. If another grant raised it, it now counts
        for this request: only a change of the grant that raised it can resolve it."""
        if (found := self._doubts.get(password)) is None:
            return None
        by, doubt = found
        return doubt if by == grant else replace(doubt, request=request)

    def times(self, password: bytes) -> int:
        """How often in a row the password was sent and perhaps refused."""
        found = self._doubts.get(password)
        return found[1].times if found else 0

    def wait(self, grant: str, password: bytes, request: bytes, now: Moment) -> float:
        """Seconds until the grant may send the password in that request; infinity: not before it changes. If the grant
        itself raised the doubt and its request has changed, it may send at once. If no clock can date the doubt after a
        reboot (law 8), the wait starts now, so that a machine that reboots often does not send at every start."""
        if password in self.refused:
            return inf
        if (found := self._doubts.get(password)) is None:
            return 0.0
        by, doubt = found
        if by == grant and doubt.request != request:  # somebody changed it
            return 0.0
        if (wait := seconds_until(doubt.until, now)) == -inf:
            wait = doubted_delay(doubt.times, 0.0)
            self._doubts[password] = by, replace(doubt, until=now.after(wait))
        return max(0.0, wait)


def account_of(credentials: Mapping[str, Secret]) -> bytes:
    """The digest of an account and its password: the same for each grant and client of the provider. What may change by
    itself is left out: the client's secret, and fields of the request, which may be one-time codes."""
    return digest(_without(NOT_OF_ACCOUNT, credentials))


def lasting(credentials: Mapping[str, Secret]) -> Mapping[str, Secret]:
    """The credentials that only a person changes: without fields of the request, which may be one-time codes."""
    return _without((FIELD,), credentials)


def digest(credentials: Mapping[str, Secret]) -> bytes:
    """Identifies the credentials."""
    found = hashlib.sha256()
    for name, value in sorted(credentials.items()):
        found.update(f"\0{name}\0{value.reveal()}".encode())
    return found.digest()


def _without(prefixes: tuple[str, ...], credentials: Mapping[str, Secret]) -> Mapping[str, Secret]:
    return {name: value for name, value in credentials.items() if not name.startswith(prefixes)}


LOCKABLE = "password"  # sending a wrong one repeatedly locks accounts (law 7)
FIELD = "request."  # the prefix of secret fields of requests
NOT_OF_ACCOUNT = ("client_secret", "private_key", FIELD)
