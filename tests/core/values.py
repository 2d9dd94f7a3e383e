# Values that the tests of the core share: two clocks at noon, tokens and records made in one line.
from __future__ import annotations

from typing import Any

from brokerd.core.moment import Moment
from brokerd.core.outcome import Token, Tokens
from brokerd.core.record import AccessToken, Record, RefreshToken
from brokerd.core.secret import Secret

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
        access_token=Token(Secret(access_value), lifetime) if access_value else None,
        refresh_token=Token(Secret(refresh_value), refresh_lifetime) if refresh_value else None,
    )
