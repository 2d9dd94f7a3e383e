# The history of a grant: what one row says, which failures are one row, and that it stays small.
from __future__ import annotations

import pytest

from brokerd.core.exchange.outcomes import Blame, Cause, Issued, Misconfigured, Outcome, RetryLater, Tokens
from brokerd.core.grant.history import MOST, Ended, ended, newest_first, unpacked, with_row
from brokerd.core.grant.renewal import Operation
from brokerd.core.grant.target import Target

ISSUED = Issued(Tokens())


def down(reason: str = "connect: connection refused") -> Outcome:
    return RetryLater(reason, Cause.UNREACHABLE)


def row(outcome: Outcome, at: float, operation: Operation = Operation.RENEW, target: Target | None = None) -> Ended:
    return ended(operation, outcome, at, 0.25, target)


def history(*rows: Ended) -> bytes:
    packed = b""
    for each in rows:
        packed = with_row(packed, each)
    return packed


def test_a_row_says_what_ended_when_and_how() -> None:
    made = ended(Operation.ISSUE, Misconfigured("401", Blame.CLIENT), 1.005, 0.1234, Target(("read",)), "id-1")
    assert made == Ended(1.0, 1.0, 1, 0.123, "issue", "misconfigured", "401", "id-1", "scope read")
    assert unpacked(history(made)) == [made]


def test_a_success_has_no_reason() -> None:
    assert row(ISSUED, 5.0).reason is None


def test_the_newest_comes_first_and_the_oldest_go() -> None:
    found = newest_first(history(*(row(ISSUED, float(at)) for at in range(MOST + 5))))
    assert [each["at"] for each in found] == [float(at) for at in reversed(range(5, MOST + 5))]


def test_a_provider_that_is_down_for_a_day_is_one_row() -> None:
    packed = history(row(ISSUED, 1.0), *(row(down(), 10.0 + at) for at in range(0, 86_400, 60)))
    first, last = unpacked(packed)
    assert (first.outcome, first.count) == ("issued", 1)
    assert (last.at, last.last, last.count) == (10.0, 10.0 + 86_340, 1_440)


def test_two_kinds_of_failure_in_turns_are_two_rows_in_the_order_of_their_newest() -> None:
    packed = history(*(row(down(), float(at), (Operation.RENEW, Operation.ISSUE)[at % 2]) for at in range(101)))
    assert [(each.operation, each.count, each.at, each.last) for each in unpacked(packed)] == [
        ("issue", 50, 1.0, 99.0),
        ("renew", 51, 0.0, 100.0),
    ]


def test_failures_with_a_success_between_them_are_not_one_row() -> None:
    packed = history(row(down(), 1.0), row(ISSUED, 2.0), row(down(), 3.0))
    assert [each.count for each in unpacked(packed)] == [1, 1, 1]


@pytest.mark.parametrize(
    "other",
    [
        row(down("503 Service Unavailable"), 2.0),
        row(Misconfigured("connect: connection refused"), 2.0),
        row(down(), 2.0, Operation.ISSUE),
        row(down(), 2.0, target=Target(("read",))),
    ],
)
def test_failures_that_differ_are_rows_of_their_own(other: Ended) -> None:
    assert len(unpacked(history(row(down(), 1.0), other))) == 2


def test_an_id_in_a_reason_makes_no_other_failure_and_the_newest_is_shown() -> None:
    reasons = ("503 (Trace ID: 5f1c0d2e-aa01-4f10, after 12 ms)", "503 (Trace ID: 99aabbcc-0d0e-0001, after 7 ms)")
    (only,) = unpacked(history(*(row(down(reason), at) for at, reason in enumerate(reasons))))
    assert (only.count, only.reason) == (2, reasons[1])


def test_a_long_reason_is_cut() -> None:
    assert len(row(down("x" * 5_000), 1.0).reason or "") == 200


def test_a_history_of_successes_is_small() -> None:
    assert len(history(*(row(ISSUED, 1_800_000_000.5 + at) for at in range(MOST)))) <= MOST * 40


@pytest.mark.parametrize("packed", [b"\xff", b"\x81\xa1a\x01", b"\x91\x90", b"not msgpack", b"\x92\x91"])
def test_a_history_that_cannot_be_read_is_empty_and_goes_on(packed: bytes) -> None:
    assert unpacked(packed) == []
    assert unpacked(with_row(packed, row(ISSUED, 1.0))) == [row(ISSUED, 1.0)]
