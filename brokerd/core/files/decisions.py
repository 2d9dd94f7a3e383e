# When a file is written or removed, and when its on_change runs: decisions over frozen values; the time is an argument.
# A file never holds a token that has expired, or that brokerd has taken back (law 5). Pure.
from __future__ import annotations

from dataclasses import dataclass, replace

# The codes of docs/protocol.md that take a token away at once. After any other one, the file stays until its token
# expires: in an outage a valid token is served with its true expiry.
TAKEN_BACK = frozenset({"unknown_grant", "denied", "revoked", "needs_login", "locked"})
EXPIRED = "its token has expired, and brokerd has given no newer one"
ONCE_IN = 1.0  # seconds: on_change starts at most once in that time
RUN_LONGEST = 60.0  # seconds between two tries of an on_change that fails
WRITE_LONGEST = 30.0  # seconds between two tries to write a file


@dataclass(frozen=True, slots=True, repr=False)
class WantedContent:
    """What a file is to hold. `content` None: no token. `why`: the reason, for the log."""

    content: bytes | None
    expires_at: float | None = None
    why: str = ""

    def __repr__(self) -> str:
        return f"WantedContent(content={'None' if self.content is None else '***'}, expires_at={self.expires_at!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Held:
    """What a file holds. `content` None: no token; UNKNOWN: what an earlier process wrote."""

    content: bytes | None = None
    expires_at: float | None = None


UNKNOWN = b"\0 written by an earlier process"  # no format makes that


def after_loss(wanted: WantedContent | None, code: str, why: str, held: Held) -> WantedContent | None:
    """What is wanted after brokerd has said that it has no token, with that code. A token without a known expiry would
    stay for ever, so it goes at once."""
    if code in TAKEN_BACK:
        return WantedContent(None, None, why)
    if wanted is None:
        return None if held.content is None or held.expires_at is not None else WantedContent(None, None, why)
    return wanted if wanted.expires_at is not None else WantedContent(None, None, why)


def due(wanted: WantedContent | None, held: Held, now: float, *, failing: bool = False) -> WantedContent | None:
    """What is to be done to the file now. None: nothing. `failing`: what is wanted could not be written: then at least
    a dead token goes."""
    is_dead = held.content is not None and _is_over(held.expires_at, now)
    if wanted is not None and wanted.content is not None and _is_over(wanted.expires_at, now):
        wanted = WantedContent(None, None, EXPIRED)
    if wanted is None or (failing and is_dead):
        return WantedContent(None, None, EXPIRED) if is_dead else None
    same = (wanted.content, wanted.expires_at) == (held.content, held.expires_at)
    return None if same else wanted


def wakes_at(held: Held) -> float | None:
    """When `due` is to be asked again, if nothing else happens."""
    return None if held.content is None else held.expires_at


def write_delay(failures: int) -> float:
    return min(WRITE_LONGEST, 0.5 * 2.0 ** min(failures, 20))


def _is_over(expires_at: float | None, now: float) -> bool:
    return expires_at is not None and expires_at <= now


@dataclass(frozen=True, slots=True)
class RunPace:
    """When an on_change may start. `failures`: in a row."""

    started: float = float("-inf")
    failures: int = 0

    @property
    def next_start(self) -> float:
        return self.started + max(ONCE_IN, min(RUN_LONGEST, 2.0 ** min(self.failures, 20)) if self.failures else 0.0)

    def start(self, now: float) -> RunPace:
        return replace(self, started=now)

    def ended(self, *, well: bool) -> RunPace:
        return replace(self, failures=0 if well else self.failures + 1)
