# When files are written and removed, and when on_change runs.
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.files.decisions import (
    EXPIRED,
    ONCE_IN,
    RUN_LONGEST,
    TAKEN_BACK,
    UNKNOWN,
    Held,
    RunPace,
    WantedContent,
    after_loss,
    due,
    wakes_at,
    write_delay,
)

NOW = 1_000.0
NEW, OLD = WantedContent(b"new", NOW + 60), Held(b"old", NOW + 5)
NOTHING = WantedContent(None, None, "revoked")


@pytest.mark.parametrize(
    ("wanted", "held", "expected"),
    [
        (None, Held(), None),
        (None, OLD, None),  # brokerd has said nothing yet: a living token stays
        (None, Held(UNKNOWN, NOW + 5), None),
        (None, Held(UNKNOWN, None), None),  # nobody knows until when it lives
        (None, Held(UNKNOWN, NOW), WantedContent(None, None, EXPIRED)),
        (NEW, Held(), NEW),
        (NEW, OLD, NEW),
        (NEW, Held(b"new", NOW + 60), None),
        (NEW, Held(UNKNOWN, NOW + 60), NEW),
        (NEW, Held(b"new", NOW + 5), NEW),  # the same token, which lives longer than it was said
        (WantedContent(b"never", None), Held(), WantedContent(b"never", None)),
        (WantedContent(b"dead", NOW), Held(), None),
        (WantedContent(b"dead", NOW), Held(b"dead", NOW), WantedContent(None, None, EXPIRED)),
        (NOTHING, OLD, NOTHING),
        (NOTHING, Held(), None),
    ],
)
def test_what_is_due(wanted: WantedContent | None, held: Held, expected: WantedContent | None) -> None:
    assert due(wanted, held, NOW) == expected


def test_a_dead_token_goes_even_if_the_new_one_cannot_be_written() -> None:
    held = Held(b"old", NOW)
    assert due(NEW, held, NOW, failing=True) == WantedContent(None, None, EXPIRED)
    assert due(NEW, Held(), NOW, failing=True) is NEW
    assert due(NEW, OLD, NOW, failing=True) is NEW
    assert due(None, held, NOW, failing=True) == WantedContent(None, None, EXPIRED)


TIMES = st.none() | st.floats(0, 2 * NOW)


@given(
    st.none() | st.builds(WantedContent, st.none() | st.binary(max_size=3), TIMES),
    st.builds(Held, st.none() | st.binary(max_size=3), TIMES),
    st.booleans(),
)
def test_after_what_is_due_no_dead_token_is_held(wanted: WantedContent | None, held: Held, failing: bool) -> None:
    """Law 5."""
    done = due(wanted, held, NOW, failing=failing)
    after = held if done is None else Held(done.content, done.expires_at)
    assert after.content is None or after.expires_at is None or after.expires_at > NOW
    at = wakes_at(after)
    assert at is None or at > NOW, "it would look again and again"


@pytest.mark.parametrize("code", sorted(TAKEN_BACK))
def test_what_brokerd_takes_back_goes_at_once(code: str) -> None:
    assert after_loss(NEW, code, "why", OLD) == WantedContent(None, None, "why")


@pytest.mark.parametrize("code", ["unavailable", "misconfigured", "limit", "internal", "unheard_of"])
def test_in_an_outage_a_token_stays_until_it_expires(code: str) -> None:
    assert after_loss(NEW, code, "why", OLD) is NEW
    assert after_loss(None, code, "why", Held(UNKNOWN, NOW + 5)) is None
    assert after_loss(None, code, "why", Held()) is None
    for held, wanted in ((Held(UNKNOWN, None), None), (Held(b"x", None), WantedContent(b"x", None))):
        assert after_loss(wanted, code, "why", held) == WantedContent(None, None, "why")


def test_a_run_starts_once_a_second_at_most_and_later_after_failures() -> None:
    pace = RunPace()
    assert pace.next_start < 0
    pace = pace.start(100.0).ended(well=True)
    assert pace.next_start == 100.0 + ONCE_IN
    waits = []
    for _ in range(10):
        pace = pace.start(200.0).ended(well=False)
        waits.append(pace.next_start - 200.0)
    assert waits[:4] == [2.0, 4.0, 8.0, 16.0]
    assert waits[-1] == RUN_LONGEST
    assert pace.start(300.0).ended(well=True).next_start == 300.0 + ONCE_IN


def test_writing_is_tried_again_ever_more_slowly() -> None:
    waits = [write_delay(each) for each in range(1, 12)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1.0, 30.0)
