# What the provider knows: logins with single-use refresh tokens, and their access tokens. A refresh token that comes a
# second time, beyond the grant's grace, ends its login and every token of it. No I/O.
from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

Outcome = Literal["rotated", "again", "reuse", "dead", "unknown"]


@dataclass
class Login:
    grant: str
    number: int
    killed: float | None = None


@dataclass
class Refresh:
    id: str
    login: Login
    used: float | None = None
    successor: Refresh | None = None


@dataclass(frozen=True)
class Access:
    id: str
    login: Login
    ends: float


@dataclass(frozen=True)
class Answer:
    outcome: Outcome
    grant: str
    access: tuple[str, Access] | None = None  # the value, and what it is
    refresh: tuple[str, Refresh] | None = None


@dataclass
class Logins:
    """`graces`: for which grants a used refresh token is accepted again, and for how many seconds."""

    life: dict[str, int]
    graces: dict[str, float]
    numbers: count[int] = field(default_factory=count)
    refreshes: dict[str, Refresh] = field(default_factory=dict)
    accesses: dict[str, Access] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)  # of a refresh token's id
    latest: dict[str, Login] = field(default_factory=dict)

    def log_in(self, grant: str) -> tuple[str, Refresh]:
        login = self.latest[grant] = Login(grant, next(self.numbers))
        return self._new_refresh(login)

    def issue(self, grant: str, now: float) -> Answer:
        """Tokens for a password."""
        refresh = self.log_in(grant)
        return Answer("rotated", grant, self._new_access(refresh[1].login, now), refresh)

    def refresh(self, value: str, now: float) -> Answer:
        known = self.refreshes.get(value)
        if known is None:
            return Answer("unknown", "")
        login = known.login
        if login.killed is not None:
            return Answer("dead", login.grant)
        if known.used is None:
            known.used, new = now, self._new_refresh(login)
            known.successor = new[1]
            return Answer("rotated", login.grant, self._new_access(login, now), new)
        following = known.successor
        assert following is not None
        if now - known.used <= self.graces.get(login.grant, 0.0) and following.used is None:
            return Answer("again", login.grant, self._new_access(login, now), (self.values[following.id], following))
        login.killed = now
        return Answer("reuse", login.grant)

    def look(self, value: str, now: float) -> tuple[Access | None, str, float | None]:
        """An access token, why it is dead ("" if it lives), and since when."""
        known = self.accesses.get(value)
        if known is None:
            return None, "unknown", None
        killed = known.login.killed
        if killed is not None and killed <= min(now, known.ends):
            return known, "killed", killed
        return (known, "expired", known.ends) if now >= known.ends else (known, "", None)

    def lost(self) -> list[str]:
        return [grant for grant, login in self.latest.items() if login.killed is not None]

    def _new_refresh(self, login: Login) -> tuple[str, Refresh]:
        made = Refresh(f"r{next(self.numbers)}", login)
        value = f"test-only-{made.id}-{secrets.token_urlsafe(18)}"
        self.refreshes[value], self.values[made.id] = made, value
        return value, made

    def _new_access(self, login: Login, now: float) -> tuple[str, Access]:
        made = Access(f"a{next(self.numbers)}", login, now + self.life[login.grant])
        value = f"test-only-{made.id}-{secrets.token_urlsafe(18)}"
        self.accesses[value] = made
        return value, made
