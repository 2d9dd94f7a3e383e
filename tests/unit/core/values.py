# Values that the tests of the core share: moments, tokens, records, and what dialects can do.
from __future__ import annotations

from typing import Any

from brokerd.core.exchange.outcomes import IssuedToken, Tokens
from brokerd.core.grant.record import Record
from brokerd.core.grant.renewal import Ability, Pace
from brokerd.core.grant.state import State
from brokerd.core.grant.tokens import AccessToken, RefreshToken
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment

BOOT = "boot-1"
NOW = Moment(1_800_000_000.0, 5_000.0, BOOT)
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0


def access(lifetime: float | None = HOUR, *, at: Moment = NOW, jitter: float = 0.5, **more: Any) -> AccessToken:
    return AccessToken(Secret(more.pop("value", "access-1")), "Bearer", at, lifetime, jitter, **more)


def refresh(lifetime: float | None = 30 * DAY, *, at: Moment = NOW, jitter: float = 0.5, **more: Any) -> RefreshToken:
    return RefreshToken(Secret(more.pop("value", "refresh-1")), at, lifetime, jitter, **more)


def record(**fields: Any) -> Record:
    return Record("reports", **fields)


def tokens(
    access_value: str | None = "access-2",
    refresh_value: str | None = None,
    *,
    lifetime: float | None = HOUR,
    refresh_lifetime: float | None = 30 * DAY,
) -> Tokens:
    return Tokens(
        access_token=IssuedToken(Secret(access_value), lifetime) if access_value else None,
        refresh_token=IssuedToken(Secret(refresh_value), refresh_lifetime) if refresh_value else None,
    )


LATER = NOW.after(MINUTE)
REBOOTED = Moment(NOW.wall + MINUTE, 7.0, "boot-2")
UNSURE = REBOOTED._replace(trusted=False)


def renewing(**fields: object) -> Record:
    return record(state=State.RENEWING, generation=4, access_token=access(), refresh_token=refresh(), **fields)


PACE = Pace()
# occam, ix-api: credentials, and single-use refresh tokens
ROTATES = Ability(issue=True, renew=True, renew_sends_stored=True)
LOGIN_ONLY = Ability(issue=False, renew=True, renew_sends_stored=True)  # a grant that a person logged in for
ISSUES = Ability(issue=True, renew=False)  # every renewal is an issue
TWO_LIVES = Ability(issue=True, renew=True, issue_sends_stored=True)  # click2mail: a long token that is itself rotated


def holds(lifetime: float | None = HOUR, jitter: float = 0.5, **more: object) -> Record:
    """A grant with a token of that lifetime, just issued, and a refresh token of 30 days."""
    return record(access_token=access(lifetime, jitter=jitter), refresh_token=refresh(), **more)
