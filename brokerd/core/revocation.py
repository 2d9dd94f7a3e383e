# What a caller learns of a revocation (law 10): which tokens the provider was told of, which it is still to be told of,
# and which live on there, until when. Pure; telling is exchanger.py's matter.
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from brokerd.core.moment import Moment, wall_time
from brokerd.core.record import Doomed, Record, Survivor, survivors

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
