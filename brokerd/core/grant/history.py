# The history of a grant: how its last exchanges ended, and why. Equal failures are one row, so that a provider that is
# down for a day does not push out everything else. Packed, because a daemon keeps one for each of 100,000 grants. Pure.
from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace

import msgspec

from brokerd.core.exchange.outcomes import NAMES, Done, Issued, Outcome
from brokerd.core.grant.renewal import Operation
from brokerd.core.grant.target import Target
from brokerd.core.shortened import shortened

MOST = 20  # rows
REASON_LONGEST = 200  # characters
SUCCESSES = (NAMES[Issued], NAMES[Done])
VARIES = re.compile(r"[0-9a-fA-F-]{8,}|\d+")  # an id or number, which may differ in each answer to the same mistake


@dataclass(frozen=True, slots=True)
class Ended:
    """How an exchange ended, `at` that Unix time; of `count` equal failures the first, and `last` is when the newest
    ended. The other values are the newest's. `seconds`: from its first request to its end. `outcome`: its name in
    metrics and logs. `target`: what a downscoped token was requested for."""

    at: float
    last: float
    count: int
    seconds: float
    operation: str
    outcome: str
    reason: str | None = None
    request_id: str | None = None
    target: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.outcome in SUCCESSES


def ended(
    operation: Operation,
    outcome: Outcome,
    at: float,
    seconds: float,
    target: Target | None = None,
    request_id: str | None = None,
) -> Ended:
    """The row of one exchange."""
    reason = None if isinstance(outcome, Issued | Done) else shortened(outcome.reason, REASON_LONGEST)
    name, at, words = NAMES[type(outcome)], round(at, 2), shortened(str(target), REASON_LONGEST) if target else None
    return Ended(at, at, 1, round(max(0.0, seconds), 3), str(operation), name, reason, request_id, words)


def with_row(packed: bytes, row: Ended) -> bytes:
    """The history with one more exchange. A failure joins an equal one, if nothing has succeeded since that one."""
    rows = _decoded(packed)
    for number in range(len(rows) - 1, -1, -1) if not row.succeeded else ():
        if (before := _ended(rows[number])).succeeded:
            break
        if _kind(before) == _kind(row):
            del rows[number]
            row = replace(row, at=before.at, count=before.count + 1)
            break
    return msgspec.msgpack.encode([*rows, _row(row)][-MOST:])


def alike(reason: str) -> str:
    """The reason without what may differ in each answer to the same mistake."""
    return VARIES.sub("#", reason)


def newest_first(packed: bytes) -> list[dict[str, object]]:
    """The rows as `status` answers them."""
    return [asdict(row) for row in reversed(unpacked(packed))]


def failed_request_id(packed: bytes) -> str | None:
    """The request_id of the newest exchange, if that failed."""
    rows = unpacked(packed)
    return rows[-1].request_id if rows and not rows[-1].succeeded else None


def unpacked(packed: bytes) -> list[Ended]:
    """The rows, oldest first."""
    return [_ended(row) for row in _decoded(packed)]


def _decoded(packed: bytes) -> list[_Row]:
    """Empty if it cannot be read: a history is nobody's reason not to start."""
    try:
        return _DECODER.decode(packed) if packed else []
    except msgspec.DecodeError:
        return []


def _ended(row: _Row) -> Ended:
    (at, after, count, ms), rest = row
    return Ended(at, round(at + after, 2), count, ms / 1000, *rest)


def _row(each: Ended) -> _Row:
    """Differences and whole numbers take fewer bytes than times."""
    after = round(each.last - each.at) if each.count > 1 else 0
    times = (each.at, after, each.count, round(each.seconds * 1000))
    return times, (each.operation, each.outcome, each.reason, each.request_id, each.target)


def _kind(row: Ended) -> tuple[str | None, ...]:
    """What equal failures have in common."""
    return row.operation, row.outcome, row.target, row.reason and alike(row.reason)


_Text = str | None
_Row = tuple[tuple[float, int, int, int], tuple[str, str, _Text, _Text, _Text]]
_DECODER = msgspec.msgpack.Decoder(list[_Row])
