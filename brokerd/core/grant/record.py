# The record of a grant: everything that brokerd stores about it, as one frozen value, and questions about it. Pure.
# What changes a record: issuance.py, failures.py, attempts.py, downscoped.py and revocation.py beside this file.
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from msgspec import Struct, structs

from brokerd.core.exchange.outcomes import IssuedToken
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from brokerd.core.grant.tokens import AccessToken, RefreshToken, alive, usable, without_fields
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment, seconds_until

SUPERSEDED_SIZE = 2 * 1024 * 1024  # characters of all of them
SUPERSEDED_MOST = 48  # replaced tokens that are remembered: callers can have 3 of each target renewed in a lifetime
DOWNSCOPED_MOST = 16  # downscoped tokens of a grant; a record is sealed and written whole


class DownscopedToken(Struct, frozen=True, rename={"target": "wanted", "requested": "asked"}):  # names in the store
    """An access token of the grant for another scope, audience or resource than its own. `requested`: what the grant's
    own tokens were requested for at that time; `used`: when a caller last got it, which is stored with the next change
    only."""

    target: Target
    access_token: AccessToken
    requested: str
    used: Moment


@dataclass(frozen=True, slots=True)
class PendingRevocation:
    """A token that the provider must still revoke (law 10)."""

    access_token: AccessToken | None = None
    refresh_token: RefreshToken | None = None

    @property
    def kind(self) -> str:
        """In words."""
        return "access token" if self.access_token else "refresh token"

    @property
    def expires(self) -> Moment | None:
        token = self.access_token or self.refresh_token
        return token.expires if token else None


@dataclass(frozen=True, slots=True)
class UnrevokedToken:
    """A token of a revoked grant that the provider did not revoke: it stays alive there until it expires."""

    kind: str  # in words
    expires: Moment | None


@dataclass(frozen=True, slots=True)
class PreviousRefreshToken:
    """The refresh token before the present one, which came with an answer that reports a failure (law 3): nobody knows
    which of the two the provider accepts. `interrupted`: since when this one may be used up."""

    token: RefreshToken
    interrupted: Moment


@dataclass(frozen=True, slots=True)
class Doubt:
    """A password that was sent and perhaps refused, `times` in a row: it is not sent again before `until` (law 7).
    `password` and `request` are digests: of the credentials, and of everything that the request was made of."""

    password: bytes
    request: bytes
    times: int
    until: Moment


@dataclass(frozen=True, slots=True)
class Record:
    """A grant as it is stored, sealed as one piece: law 2 demands one transaction for refresh and access token.

    `generation` rises with every change of the tokens, and every write names the one that it replaces. `downscoped`:
    the last used is last. `superseded`: access tokens that were replaced and are still alive. `pending_revocations`:
    tokens that the provider must still revoke. The next try is not before `revocation_retry`; `revocation_failures`
    tries failed so far. `unrevoked`: tokens that the provider does not revoke, because it cannot or, with
    `revoked_locally`, because an operator chose that. `interrupted`: since when the refresh token may be used up (law
    3). `retry`, `rotation_retry`: no exchange, no early issue, begins before that moment. `retry_after`: the moment
    that the provider named itself (Retry-After). `refused`: a digest of what the provider refused. It is not sent again
    before `refused_until`; where that is None it is a password's, which is not sent again until its bytes change (law
    7). `doubt`: a password that the provider may have refused. `proven_password`: the digest of the last password that
    brought tokens. `first_error`: how the exchange ended that began the trouble since the grant last worked, if it may
    have cost a token. `failing_since`: when that trouble began. `tried_credentials`: the last exchange that failed used
    the grant's credentials, because renewing by refresh token kept failing. `requested`: what the tokens were requested
    for; if the configuration requests something else, they are replaced (law 14). `proof_key`: the key that the tokens
    are bound to (RFC 9449). `subject`: who logged in, as the provider names them. `cause`: the label of the
    Cause of `last_error`; None: it has none, and a person must change something.

    Many attributes: they are the stored fields of one grant, sealed together."""

    name: str
    generation: int = 0
    state: State = State.READY
    access_token: AccessToken | None = None
    refresh_token: RefreshToken | None = None
    downscoped: tuple[DownscopedToken, ...] = ()
    superseded: tuple[AccessToken, ...] = ()
    pending_revocations: tuple[PendingRevocation, ...] = ()
    revocation_retry: Moment | None = None
    revocation_failures: int = 0
    unrevoked: tuple[UnrevokedToken, ...] = ()
    revoked_locally: bool = False
    interrupted: Moment | None = None
    previous_refresh: PreviousRefreshToken | None = None
    retry: Moment | None = None
    retry_after: Moment | None = None
    rotation_retry: Moment | None = None
    rotation_failures: int = 0
    refused: bytes | None = None
    refused_until: Moment | None = None
    doubt: Doubt | None = None
    proven_password: bytes | None = None
    requested: str = ""
    proof_key: Secret | None = None
    renewals: int = 0
    failures: int = 0
    tried_credentials: bool = False
    last_error: str | None = None
    first_error: str | None = None
    failing_since: Moment | None = None
    changed: Moment | None = None
    subject: str | None = None
    cause: str | None = None

    @property
    def uncertain(self) -> Moment | None:
        """Since when a refresh token of the grant may be used up."""
        return self.interrupted or (self.previous_refresh.interrupted if self.previous_refresh else None)

    @property
    def error(self) -> str | None:
        """What is wrong, for people: the last error, and the one that began the trouble."""
        last, first = self.last_error, self.first_error
        if last is None or first is None or first in last:
            return last or first
        return f"{last} (at first: {first})"


def served(record: Record, now: Moment, min_ttl: float = 0.0) -> AccessToken | None:
    """The access token that may be handed out now, if there is one."""
    if record.state is State.REVOKED or not alive(record.access_token, now, min_ttl):
        return None
    return record.access_token


def best_dated(theirs: Record, ours: Record) -> Record:
    """A record that another host wrote. If its access token is the one that is known here, the later date counts: no
    host takes a token for younger than it is, and one that has just started may take it for minutes older (law 5)."""
    token, known = theirs.access_token, ours.access_token
    if token is None or known is None or theirs.generation != ours.generation or token.value != known.value:
        return theirs
    is_undated = not token.issued.trusted and token.issued.boot_id != known.issued.boot_id
    if not is_undated and seconds_until(known.issued, token.issued) <= 0:
        return theirs
    return replace(theirs, access_token=structs.replace(token, issued=known.issued))


def has_newer_token(record: Record, before: Record) -> bool:
    """Whether the grant's own token is another one than before. A downscoped token is a renewal too, and leaves the
    grant's own as it is."""
    token, old = record.access_token, before.access_token
    if token is None or old is None or token.value != old.value:
        return token is not None
    return record.renewals != before.renewals and token.issued != old.issued


def refuses_password(record: Record) -> bool:
    """Whether `refused` is a password that the provider refused in its own terms."""
    return record.refused is not None and record.refused_until is None


def is_replaceable(record: Record) -> bool:
    """Whether exchanges can bring everything in the record again, because it has no refresh token and needs none."""
    by_itself = record.state in (State.READY, State.RENEWING, State.RETRYING)
    return by_itself and record.refresh_token is None and not record.pending_revocations


def superseded_by(token: IssuedToken | None, record: Record, now: Moment) -> tuple[AccessToken, ...]:
    """The living access tokens that `token` and others before it replaced, the newest last. A provider may answer with
    the same token again and extend its life: that one is not replaced."""
    before = (*record.superseded, *((record.access_token,) if record.access_token else ()))
    others = (each for each in before if token is None or each.value != token.value)
    return newest(without_fields(each) for each in others if usable(each, now))


def newest(tokens: Iterable[AccessToken]) -> tuple[AccessToken, ...]:
    """Those that are remembered of the replaced tokens: the newest, which are last."""
    kept, left = list[AccessToken](), SUPERSEDED_SIZE
    for each in reversed(tuple(tokens)[-SUPERSEDED_MOST:]):
        left -= len(each.value.reveal())
        if left >= 0:
            kept.append(each)
    return tuple(reversed(kept))


def all_superseded(record: Record, now: Moment) -> tuple[AccessToken, ...]:
    """All access tokens of the record that are alive, the downscoped ones first."""
    downscoped = (without_fields(each.access_token) for each in record.downscoped)
    return (*(each for each in downscoped if usable(each, now)), *superseded_by(None, record, now))


def next_generation(record: Record, at: Moment) -> Record:
    """The record with the next generation number and without the traces of failures, because its tokens change."""
    return replace(
        record,
        generation=record.generation + 1,
        retry=None,
        retry_after=None,
        failures=0,
        last_error=None,
        first_error=None,
        changed=at,
    )


def with_failing_since(before: Record, after: Record, now: Moment) -> Record:
    """The record after a change, with the time of the first failure since the grant last worked."""
    since = now if before.last_error is None else before.failing_since
    since = None if after.last_error is None else since
    return after if after.failing_since == since else replace(after, failing_since=since)
