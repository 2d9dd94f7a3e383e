# Revocation (law 10): what it does to a record, and what a caller learns of it: which tokens the provider was told of,
# which it is still to be told of, and which live on there, until when. Pure; telling is brokerd/telling.py's matter.
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from brokerd.core.grant import Event, move
from brokerd.core.moment import Moment, seconds_until, wall_time
from brokerd.core.outcome import Tokens
from brokerd.core.record import Doomed, Record, Survivor, all_outlived, new_access, new_refresh, usable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOT_STORED = "it could NOT be stored and ends with this daemon unless the disk comes back; "


@dataclass(frozen=True, slots=True)
class Revocation:
    """Whether it is durable, and what the provider knows, as a word and in words (docs/protocol.md)."""

    stored: bool
    provider: str
    detail: str


def revocation(doomed: tuple[Doomed, ...], record: Record, now: Moment, *, stored: bool) -> Revocation:
    """`doomed`: what the provider was to be told of when it began, `record`: what has become of that."""
    living = survivors(record, now)
    pending = Counter(each.kind for each in record.doomed)
    told = Counter(each.kind for each in doomed) - pending - Counter(each.kind for each in living)
    said = [f"the provider was told of {_tokens(told)}"] if told else []
    if pending:
        error = f" ({record.last_error})" if record.last_error else ""
        said.append(f"the provider is still to be told of {_tokens(pending)}, as often as it takes{error}")
    if living:
        verb = "was not told" if record.local else "cannot be told"
        live = "lives" if len(living) == 1 else "live"
        said.append(f"the provider {verb} of {_tokens(living)}, which {live} on there until {_end(living, now)}")
    word = "pending" if pending else _word(told=bool(told), living=bool(living), local=record.local)
    words = "; ".join(said) or "no token of it was alive at the provider"
    return Revocation(stored, word, words if stored else NOT_STORED + words)


def survivors(record: Record, now: Moment) -> tuple[Survivor, ...]:
    """Those that may still live. Where no clock can tell, a token may."""
    left = {each: seconds_until(each.expires, now) if each.expires else math.inf for each in record.survivors}
    return tuple(each for each in record.survivors if left[each] > 0 or left[each] == -math.inf)


# -- events


def revoked(record: Record, now: Moment, *, local: bool = False) -> Record:
    """From here on nothing of the grant is served; its living tokens are doomed. `local`: the provider is told of none
    of them, nor of what came to be doomed before."""
    refresh = record.refresh_token if usable(record.refresh_token, now) else None
    access = [each for each in all_outlived(record, now) if refresh is None or each.value != refresh.value]
    doomed = record.doomed + tuple(Doomed(access_token=each) for each in access)
    if refresh is not None:  # at some providers the access token is the same one
        doomed += (Doomed(refresh_token=refresh),)
    if record.earlier is not None and usable(record.earlier.token, now):
        doomed += (Doomed(refresh_token=record.earlier.token),)
    return replace(
        record,
        generation=record.generation + 1,
        state=move(record.state, Event.REVOKE, can_issue=True),
        access_token=None,
        refresh_token=None,
        variants=(),
        outlived=(),
        doomed=() if local else doomed,
        survivors=_survivors(record, now, doomed if local else ()),
        local=local,
        telling=None,
        interrupted=None,
        earlier=None,
        retry=None,
        asked_until=None,
        failures=0,
        last_error=None,
        first_error=None,
        changed=now,
    )


def came_late(record: Record, tokens: Tokens, at: Moment) -> Record:
    """Tokens came that nobody is to have: the grant was revoked meanwhile, or they are somebody else's. What becomes of
    the others becomes of them."""
    access, refresh = new_access(tokens, at, 0.0), new_refresh(tokens.refresh_token, at, 0.0)
    late = (Doomed(access_token=access) if access else None, Doomed(refresh_token=refresh) if refresh else None)
    doomed = tuple(filter(None, late))
    return replace(
        record,
        generation=record.generation + 1,
        doomed=record.doomed + (() if record.local else doomed),
        survivors=_survivors(record, at, doomed if record.local else ()),
        changed=at,
    )


def told(record: Record, token: Doomed) -> Record:
    """The provider knows of this one, or need not any more."""
    rest = tuple(each for each in record.doomed if each != token)
    return replace(record, doomed=rest, telling=None, untold=0, last_error=None)


def survived(record: Record, token: Doomed, now: Moment) -> Record:
    """The provider has no way to be told of this one."""
    return replace(told(record, token), survivors=_survivors(record, now, (token,)))


def untold(record: Record, reason: str, now: Moment, delay: float) -> Record:
    """The provider could not be told; again after `delay` seconds."""
    return replace(record, telling=now.after(delay), untold=record.untold + 1, last_error=reason)


def _survivors(record: Record, now: Moment, tokens: tuple[Doomed, ...]) -> tuple[Survivor, ...]:
    """Those of the record, but for what is certainly over, and these tokens."""
    return survivors(record, now) + tuple(Survivor(each.kind, each.expires) for each in tokens)


# -- words


def _word(*, told: bool, living: bool, local: bool) -> str:
    if local:
        return "local"
    if living:
        return "partly" if told else "unsupported"
    return "told"


def _tokens(kinds: Counter[str] | Iterable[Survivor]) -> str:
    """The refresh token and 2 access tokens."""
    counts = kinds if isinstance(kinds, Counter) else Counter(each.kind for each in kinds)
    return " and ".join(f"{n} {kind}s" if n > 1 else f"the {kind}" for kind, n in sorted(counts.items(), reverse=True))


def _end(living: Iterable[Survivor], now: Moment) -> str:
    """When the last of them is over."""
    ends = [each.expires for each in living]
    known = [wall_time(end, now) for end in ends if end is not None]
    if len(known) < len(ends):
        return "the provider ends it" if len(ends) == 1 else "the provider ends them"
    return f"{EPOCH + timedelta(seconds=max(known)):%Y-%m-%d %H:%M} UTC"
