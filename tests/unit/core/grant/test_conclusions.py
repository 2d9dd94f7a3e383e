# What an exchange's end does to a record, as a table: one row for each outcome and situation (laws 3, 4 and 7). And
# what it says of the password that was sent.
from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from brokerd.core.exchange.outcomes import (
    Blame,
    Cause,
    Declined,
    Done,
    Issued,
    IssuedToken,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
)
from brokerd.core.grant import attempts
from brokerd.core.grant import revocation as revocations
from brokerd.core.grant.conclusions import ONCE as ONCE_REJECTED
from brokerd.core.grant.conclusions import Ending, Sent, Terms, Verdict, concluded, verdict
from brokerd.core.grant.record import Doubt, PreviousRefreshToken, Record
from brokerd.core.grant.renewal import Operation, Pace, Plan, sent_again_after
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import seconds_until
from tests.unit.core.values import DAY, HOUR, NOW, access, record, refresh, tokens

LATER = NOW.after(0.7 * HOUR)  # a renewal of a token of an hour
OLD, NEW = refresh(), IssuedToken(Secret("refresh-2"))
REQUEST, PASSWORD = b"request", b"password"
ONCE = refresh(rejected=NOW)


def own(**fields: object) -> Record:
    """A grant in the middle of its renewal."""
    given: dict[str, object] = {
        "state": State.RENEWING,
        "generation": 4,
        "access_token": access(),
        "refresh_token": OLD,
    }
    return record(**(given | fields))


def end(
    outcome: Outcome,
    before: Record,
    *,
    operation: Operation = Operation.RENEW,
    can_issue: bool = False,
    password: bool = False,
    status: int | None = None,
    earlier: Doubt | None = None,
    early: bool = False,
    wanted: Target | None = None,
    generation: int = 4,
    spends: bool | None = None,
) -> Record | None:
    sent = Sent(REQUEST, PASSWORD if password else None, earlier)
    plan = Plan(operation, 0.0, early=early, target=wanted)
    spends = operation is Operation.RENEW if spends is None else spends
    ending = Ending(plan, generation, outcome, LATER, status, spends, sent)
    return concluded(before, ending, Terms("asked", Target(), can_issue, Pace()), LATER, 0.0)


@dataclass(frozen=True)
class Row:
    """What comes of an outcome: the fields named in `after`, and in how many seconds the next try is."""

    outcome: Outcome
    after: dict[str, object]
    retry: float | None = None
    before: Record = field(default_factory=own)
    how: dict[str, object] = field(default_factory=dict)


def later(cause: Cause, **more: object) -> RetryLater:
    return RetryLater("words", cause, **more)  # type: ignore[arg-type]


BY_PASSWORD: dict[str, object] = {"operation": Operation.ISSUE, "password": True, "can_issue": True}
BY_SECRET: dict[str, object] = {"operation": Operation.ISSUE, "can_issue": True}
EMPTY = own(refresh_token=None, access_token=None)
UNCERTAIN = own(interrupted=NOW, first_error="answered 200 with text/html")
TWO = own(refresh_token=refresh(value="refresh-2"), previous_refresh=PreviousRefreshToken(OLD, NOW))
REFUSED_BEFORE = own(refused=PASSWORD)
ROWS = {
    # a living refresh token, and answers that say nothing of it
    "unreachable": Row(later(Cause.UNREACHABLE), {"state": State.RETRYING, "interrupted": None, "refused": REQUEST}, 1),
    "unanswered": Row(later(Cause.UNANSWERED), {"state": State.RETRYING, "interrupted": LATER}, 1),
    "unanswered, for the third time": Row(later(Cause.UNANSWERED), {"failures": 3}, 4, own(failures=2)),
    "a 503 with Retry-After": Row(
        later(Cause.UNAVAILABLE, after=120.0),
        {"refused": None, "refused_until": None, "retry_after": LATER.after(120)},
        120,
    ),
    "a 429": Row(later(Cause.LIMITED, after=86_400.0), {"interrupted": None}, DAY),
    # 2xx that cannot be read (law 3)
    "a 2xx without anything": Row(later(Cause.UNREADABLE), {"interrupted": LATER, "first_error": "words"}, 1),
    "a 2xx with a good refresh token": Row(
        later(Cause.UNREADABLE, refresh_token=NEW),
        {
            "interrupted": None,
            "previous_refresh": None,
            "generation": 5,
            "first_error": "words",
            "state": State.RETRYING,
        },
        1,
    ),
    "the first cause stays": Row(
        later(Cause.UNANSWERED),
        {"first_error": "answered 200 with text/html", "last_error": "words", "interrupted": NOW},
        1,
        UNCERTAIN,
    ),
    "a 5xx with a good refresh token": Row(
        later(Cause.FAILED, refresh_token=NEW),
        {
            "interrupted": None,
            "previous_refresh": PreviousRefreshToken(OLD, LATER),
            "generation": 5,
            "first_error": "words",
        },
        1,
    ),
    "a 2xx that only mirrors what was sent": Row(
        later(Cause.UNREADABLE, refresh_token=IssuedToken(OLD.value)),
        {"interrupted": LATER, "generation": 4, "refresh_token": OLD, "first_error": "words"},
        1,
    ),
    "a 2xx that only mirrors what was sent, after an interruption": Row(
        later(Cause.UNREADABLE, refresh_token=IssuedToken(OLD.value)), {"interrupted": NOW}, 1, UNCERTAIN
    ),
    "a 5xx that mirrors what was sent": Row(
        later(Cause.FAILED, refresh_token=IssuedToken(OLD.value)), {"interrupted": LATER, "previous_refresh": None}, 1
    ),
    "a 5xx with a third refresh token": Row(
        later(Cause.FAILED, refresh_token=IssuedToken(Secret("refresh-3"))),
        {"previous_refresh": PreviousRefreshToken(TWO.refresh_token or OLD, LATER)},
        1,
        TWO,
    ),
    "a 5xx with a refresh token, to credentials": Row(
        later(Cause.FAILED, refresh_token=NEW), {"refresh_token": OLD, "previous_refresh": None}, 1, own(), BY_SECRET
    ),
    "a failed answer to the stored token, with one that is not kept": Row(
        later(Cause.FAILED, refresh_token=NEW),
        {"refresh_token": OLD, "previous_refresh": None, "interrupted": LATER},
        None,
        own(),
        {**BY_SECRET, "early": True, "spends": True},
    ),
    "a 2xx with a refresh token, to credentials": Row(
        later(Cause.UNREADABLE, refresh_token=NEW), {"generation": 5, "previous_refresh": None}, 1, EMPTY, BY_SECRET
    ),
    # rejections (law 4)
    "rejected for the first time": Row(
        Rejected("no"),
        {"state": State.RETRYING, "generation": 4, "refresh_token": refresh(rejected=LATER)},
        0.3 * HOUR - 60,
    ),
    "rejected again": Row(
        Rejected("no"),
        {"state": State.NEEDS_LOGIN, "refresh_token": None, "generation": 5},
        None,
        own(refresh_token=ONCE),
    ),
    "rejected for the first time, and by hand there was no answer": Row(
        later(Cause.UNAVAILABLE),
        {"state": State.RETRYING, "refresh_token": ONCE, "refused": None, "retry_after": None},
        0.3 * HOUR - 60,
        own(refresh_token=ONCE),
    ),
    "rejected for the first time, and by hand there was a Retry-After": Row(
        later(Cause.LIMITED, after=120.0), {"retry_after": LATER.after(120)}, 0.3 * HOUR - 60, own(refresh_token=ONCE)
    ),
    "rejected for the first time, and near the end there was no answer": Row(
        later(Cause.UNAVAILABLE),
        {"refresh_token": ONCE, "refused": REQUEST},
        1,
        own(refresh_token=ONCE, access_token=access(0.75 * HOUR)),
    ),
    "rejected near the end": Row(
        Rejected("no"),
        {"state": State.NEEDS_LOGIN, "refresh_token": None},
        None,
        own(access_token=access(0.75 * HOUR)),
    ),
    "rejected without a living token": Row(
        Rejected("no"), {"state": State.NEEDS_LOGIN, "refresh_token": None}, None, own(access_token=None)
    ),
    "rejected after an interruption": Row(
        Rejected("no"),
        {
            "state": State.NEEDS_LOGIN,
            "last_error": "no (an exchange was interrupted at 2027-01-15 08:00:00 UTC and may have used it up:"
            " answered 200 with text/html)",
        },
        None,
        UNCERTAIN,
    ),
    "rejected, and credentials bring another": Row(
        Rejected("no"), {"state": State.READY, "refresh_token": None}, None, own(), {"can_issue": True}
    ),
    "rejected, and there is an earlier one": Row(
        Rejected("no"),
        {"state": State.READY, "refresh_token": OLD, "interrupted": NOW, "previous_refresh": None},
        None,
        TWO,
    ),
    # refusals whose repetition locks no account (law 7)
    "the client is refused": Row(
        Misconfigured("no", Blame.CLIENT),
        {"state": State.MISCONFIGURED, "refused": REQUEST, "refused_until": LATER.after(1), "interrupted": None},
        1,
    ),
    "the client is refused for long": Row(Misconfigured("no", Blame.CLIENT), {}, 300, own(failures=50)),
    "the client is refused with Retry-After": Row(
        Misconfigured("no", Blame.CLIENT, 3.0), {"retry_after": LATER.after(3)}, 3, own(failures=50)
    ),
    "the client is refused, a password was before": Row(
        Misconfigured("no", Blame.CLIENT), {"refused": PASSWORD, "refused_until": None}, 1, REFUSED_BEFORE
    ),
    "credentials take over at the end": Row(
        later(Cause.STRANGE), {}, 0.05 * HOUR, own(failures=50, access_token=access(0.75 * HOUR)), {"can_issue": True}
    ),
    # passwords (law 7)
    "a password is refused": Row(
        Misconfigured("no", Blame.PASSWORD),
        {"state": State.MISCONFIGURED, "refused": PASSWORD, "refused_until": None},
        300,
        EMPTY,
        BY_PASSWORD,
    ),
    "a recipe's password is rejected": Row(
        Rejected("no"), {"state": State.MISCONFIGURED, "refused": PASSWORD}, 300, EMPTY, BY_PASSWORD
    ),
    "a password's client is refused": Row(
        Misconfigured("no", Blame.CLIENT),
        {"state": State.MISCONFIGURED, "refused": REQUEST, "doubt": None},
        1,
        own(refresh_token=None, doubt=Doubt(PASSWORD, REQUEST, 1, LATER)),
        {**BY_PASSWORD, "status": 401},
    ),
    "a password is perhaps refused": Row(
        later(Cause.SILENT),
        {"state": State.MISCONFIGURED, "doubt": Doubt(PASSWORD, REQUEST, 1, LATER.after(900)), "refused": None},
        900,
        EMPTY,
        {**BY_PASSWORD, "status": 401},
    ),
    "a password is perhaps refused, again": Row(
        later(Cause.STRANGE, after=3.0),
        {"doubt": Doubt(PASSWORD, REQUEST, 2, LATER.after(HOUR))},
        HOUR,
        EMPTY,
        {**BY_PASSWORD, "status": 422, "earlier": Doubt(PASSWORD, REQUEST, 1, NOW)},
    ),
    "a password is perhaps refused with Retry-After": Row(
        later(Cause.SILENT, after=400.0),
        {"retry_after": LATER.after(400), "doubt": Doubt(PASSWORD, REQUEST, 1, LATER.after(900))},
        900,
        EMPTY,
        {**BY_PASSWORD, "status": 401},
    ),
    "a password is perhaps refused, and a refresh token is there": Row(
        later(Cause.SILENT),
        {
            "state": State.MISCONFIGURED,
            "doubt": Doubt(PASSWORD, REQUEST, 1, LATER.after(900)),
            "tried_credentials": True,
        },
        1,
        own(),
        {**BY_PASSWORD, "status": 401},
    ),
    "a password is perhaps refused with a long Retry-After": Row(
        Misconfigured("no", Blame.REQUEST, 2_000.0),
        {"retry_after": LATER.after(2_000), "doubt": Doubt(PASSWORD, REQUEST, 1, LATER.after(900))},
        2_000,
        EMPTY,
        {**BY_PASSWORD, "status": 403},
    ),
    "a password meets an outage": Row(
        later(Cause.STRANGE),
        {"state": State.RETRYING, "doubt": None},
        1,
        own(refresh_token=None, doubt=Doubt(PASSWORD, REQUEST, 1, LATER)),
        {**BY_PASSWORD, "status": 404},
    ),
    "a password that was perhaps refused before meets an outage": Row(
        later(Cause.UNAVAILABLE),
        {"state": State.RETRYING, "doubt": Doubt(PASSWORD, REQUEST, 3, NOW)},
        1,
        own(refresh_token=None, doubt=Doubt(PASSWORD, REQUEST, 4, LATER.after(HOUR))),
        {**BY_PASSWORD, "status": 503, "earlier": Doubt(PASSWORD, REQUEST, 3, NOW)},
    ),
    "a password that was perhaps refused before brings a variant": Row(
        Issued(tokens("access-2")),
        {"state": State.READY, "doubt": None},
        None,
        own(doubt=Doubt(PASSWORD, REQUEST, 4, LATER.after(HOUR))),
        {**BY_PASSWORD, "earlier": Doubt(PASSWORD, REQUEST, 3, NOW), "wanted": Target(("read",))},
    ),
    "a password is right": Row(
        Issued(tokens("access-2")),
        {"state": State.READY, "proven_password": PASSWORD, "doubt": None, "refused": None},
        None,
        own(refused=b"before", doubt=Doubt(PASSWORD, REQUEST, 1, LATER)),
        BY_PASSWORD,
    ),
    # what worked
    "tokens end every trouble": Row(
        Issued(tokens("access-2", "refresh-2")),
        {"state": State.READY, "first_error": None, "last_error": None, "interrupted": None, "failures": 0},
        None,
        replace(UNCERTAIN, failures=3, retry_after=LATER, last_error="words"),
    ),
    "the newer of two worked": Row(Issued(tokens("access-2")), {"previous_refresh": None, "generation": 5}, None, TWO),
    "a rejected one worked": Row(
        Issued(tokens("access-2")), {"refresh_token": refresh(kept=True)}, None, own(refresh_token=ONCE)
    ),
    "a renewal makes no refused password better": Row(
        Issued(tokens("access-2")), {"refused": PASSWORD, "refused_until": None}, None, REFUSED_BEFORE
    ),
    # ahead of need
    "refused ahead of need": Row(
        Misconfigured("no"),
        {"state": State.READY, "rotation_retry": LATER.after(900), "retry": None},
        None,
        own(rotation_failures=50),
        {**BY_SECRET, "early": True},
    ),
    "a password is perhaps refused ahead of need": Row(
        later(Cause.SILENT),
        {
            "state": State.READY,
            "rotation_retry": LATER.after(900),
            "doubt": Doubt(PASSWORD, REQUEST, 1, LATER.after(900)),
        },
        None,
        own(),
        {**BY_PASSWORD, "early": True, "status": 400},
    ),
    "a password is perhaps refused ahead of need with Retry-After": Row(
        later(Cause.SILENT, after=400.0),
        {"state": State.READY, "rotation_retry": LATER.after(900), "retry_after": LATER.after(400)},
        400,
        own(),
        {**BY_PASSWORD, "early": True, "status": 403},
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_an_ending_makes_this_of_a_record(row: Row) -> None:
    after = end(row.outcome, row.before, **row.how)  # type: ignore[arg-type]
    assert after is not None
    assert {name: getattr(after, name) for name in row.after} == row.after
    delay = None if after.retry is None else seconds_until(after.retry, LATER)
    assert delay == (None if row.retry is None else pytest.approx(row.retry))


def test_the_newer_refresh_token_of_a_failed_answer_is_tried_first_and_the_old_one_by_law_3() -> None:
    after = end(later(Cause.FAILED, refresh_token=NEW), own())
    assert after is not None
    assert after.refresh_token is not None
    assert after.refresh_token.value.reveal() == "refresh-2"
    assert sent_again_after(after, Pace(), LATER) == 0.0, "it was never sent"
    assert after.uncertain == LATER
    rejected = end(Rejected("no"), replace(attempts.begun(after)), generation=5)
    assert rejected is not None
    assert (rejected.refresh_token, rejected.interrupted) == (OLD, LATER)
    assert sent_again_after(rejected, Pace(), LATER) == pytest.approx(0.3 * HOUR - 60)
    last = end(Rejected("no"), attempts.begun(rejected), generation=6)
    assert last is not None
    assert (last.state, last.refresh_token) == (State.NEEDS_LOGIN, None)


def test_a_revocation_tells_of_both_refresh_tokens() -> None:
    after = end(later(Cause.FAILED, refresh_token=NEW), own())
    assert after is not None
    doomed = revocations.revoked(after, LATER).pending_revocations
    assert [each.refresh_token.value.reveal() for each in doomed if each.refresh_token] == ["refresh-2", "refresh-1"]


def test_what_was_first_is_said_until_the_grant_works() -> None:
    after = end(later(Cause.UNREADABLE, refresh_token=NEW), own())
    assert after is not None
    rejected = end(Rejected("invalid_grant"), attempts.begun(after), generation=5)
    assert rejected is not None
    assert rejected.error == f"invalid_grant ({ONCE_REJECTED}) (at first: words)"


def test_an_ending_of_an_older_generation_moves_nothing() -> None:
    assert end(Rejected("no"), own(), generation=3) is None
    revoked = revocations.revoked(own(), LATER)
    late = end(Issued(tokens("access-2")), revoked)
    assert late is not None
    assert len(late.pending_revocations) == len(revoked.pending_revocations) + 1


def test_a_refused_variant_leaves_the_grant_as_it_was() -> None:
    after = end(Declined("invalid_scope"), own(), wanted=Target(("read",)))
    assert after is not None
    assert (after.state, after.refresh_token, after.interrupted) == (State.READY, OLD, LATER)


def test_an_exchange_for_a_token_is_never_merely_done() -> None:
    with pytest.raises(AssertionError, match="cannot end with Done"):
        end(Done(), own())


VERDICTS = [
    (Issued(tokens()), 200, Verdict.ACCEPTED),
    (Misconfigured("", Blame.PASSWORD), 400, Verdict.REFUSED),
    (Rejected(""), 400, Verdict.REFUSED),
    (Misconfigured("", Blame.CLIENT), 401, Verdict.NOTHING),
    *((Misconfigured("", Blame.REQUEST), status, Verdict.DOUBTED) for status in (400, 401, 403, 422)),
    *((RetryLater("", Cause.STRANGE), status, Verdict.DOUBTED) for status in (400, 401, 403, 422)),
    *((RetryLater("", Cause.STRANGE), status, Verdict.NOTHING) for status in (404, 407, 302)),
    (RetryLater("", Cause.SILENT), 401, Verdict.DOUBTED),
    (RetryLater("", Cause.LIMITED), 429, Verdict.NOTHING),
    (RetryLater("", Cause.FAILED), 400, Verdict.NOTHING),  # temporarily_unavailable, in the protocol's own terms
    (RetryLater("", Cause.UNANSWERED), None, Verdict.NOTHING),
]


@pytest.mark.parametrize(("outcome", "status", "said"), VERDICTS, ids=str)
def test_an_ending_says_this_of_the_password(outcome: Outcome, status: int | None, said: Verdict) -> None:
    plan = Plan(Operation.ISSUE, 0.0)
    assert verdict(Ending(plan, 4, outcome, LATER, status, False, Sent(REQUEST, PASSWORD))) is said
    assert verdict(Ending(plan, 4, outcome, LATER, status, False, Sent(REQUEST))) is Verdict.NOTHING


def test_an_answer_that_lacks_a_field_costs_no_refresh_token() -> None:
    after = end(Misconfigured("no instance_url", refresh_token=NEW), own())
    assert (after.state, after.last_error, after.interrupted) == (State.MISCONFIGURED, "no instance_url", None)
    assert after.refresh_token is not None
    assert after.refresh_token.value == Secret("refresh-2")
    assert after.access_token == access()
    assert after.generation == 5
    kept = end(Misconfigured("no instance_url"), own())
    assert (kept.refresh_token, kept.interrupted) == (OLD, None)


def test_a_token_that_is_a_credential_is_not_served_once_that_cannot_be_read() -> None:
    before = record(state=State.RENEWING, generation=4, access_token=access(None), downscoped=())
    ending = Ending(Plan(Operation.ISSUE, 0.0), 4, Misconfigured("/s: No such file"), LATER)
    for in_credentials, left in ((True, None), (False, access(None))):
        terms = Terms("", Target(), True, Pace(), in_credentials)
        after = concluded(before, ending, terms, LATER, 0.5)
        assert after is not None
        assert (after.access_token, after.state) == (left, State.MISCONFIGURED)
        assert after.generation == (5 if in_credentials else 4)
