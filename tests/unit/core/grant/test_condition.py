# How bad a grant is, in which order grants are shown, and the line of counts.
from __future__ import annotations

from typing import Any

import pytest

from brokerd.core.grant.condition import KINDS, LOCKED, Tone, counts, is_problem, kind_of, order, shown_state, tone
from brokerd.core.grant.state import State

NOW = 1_000.0


def grant(name: str = "app", state: str = "ready", **about: Any) -> dict[str, Any]:
    well: dict[str, Any] = {"next_renewal_at": 1_300.0}
    well |= {"issued_at": 900.0, "expires_at": 1_500.0, "last_error": None, "unstored": False, "interrupted": None}
    return {"name": name, "state": state, "pending_revocations": 0, **well, **about}


def nothing(name: str = "app", state: str = "ready", **about: Any) -> dict[str, Any]:
    """A grant that serves nothing."""
    return grant(name, state, **{"issued_at": None, "expires_at": None, "next_renewal_at": None, **about})


def test_every_state_has_words_and_a_tone() -> None:
    assert KINDS.keys() == {"waiting", LOCKED, *map(str, State)}


def test_a_state_of_a_later_brokerd_is_a_warning_in_its_own_words() -> None:
    assert kind_of("half_asleep") == (Tone.WARN, "half asleep")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (grant(), Tone.GOOD),
        (nothing(), Tone.GOOD),  # nobody has asked yet
        (nothing(next_renewal_at=1_001.0), Tone.WARN),  # it is to come
        (nothing(state="renewing"), Tone.WARN),
        (grant(issued_at=1.0, expires_at=None), Tone.GOOD),  # it does not say when it expires
        (grant(state="renewing"), Tone.GOOD),
        (grant(state="renewing", last_error="503"), Tone.WARN),
        (grant(state="retrying"), Tone.WARN),
        (nothing(state="retrying"), Tone.BAD),
        (grant(state="retrying", expires_at=NOW), Tone.BAD),
        (grant(state="misconfigured"), Tone.BAD),
        (grant(state="needs_login"), Tone.BAD),
        (grant(unstored=True), Tone.WARN),
        (grant(interrupted=990.0), Tone.WARN),
        (grant(last_error="the refresh token could not be renewed ahead"), Tone.WARN),
        (grant(pending_revocations=1), Tone.WARN),
        (nothing(state="revoked"), Tone.OFF),
        (nothing(state="revoked", pending_revocations=1), Tone.WARN),
        (nothing(state="revoked", last_error="old"), Tone.OFF),
    ],
)
def test_how_bad_a_grant_is(found: dict[str, Any], expected: Tone) -> None:
    assert (tone(found, NOW), is_problem(found, NOW)) == (expected, expected in (Tone.BAD, Tone.WARN))


def test_the_worst_comes_first_then_the_name_decides() -> None:
    shown = [
        nothing("z", "needs_login"),
        nothing("zz", "retrying"),
        grant("a", "misconfigured"),
        grant("b", "needs_login"),
        grant("a", "retrying"),
        grant("b", unstored=True),
        grant("a"),
        grant("b"),
        nothing("a", "revoked"),
    ]
    turned = list(reversed(shown))
    assert sorted(turned, key=lambda each: order(each, NOW)) == shown


def test_the_counts_are_one_line() -> None:
    many = [grant() for _ in range(1_203)]
    assert counts([*many, grant(state="retrying"), grant(state="needs_login")]) == (
        "1,205 grants: 1,203 ready, 1 retrying, 1 needs login"
    )
    assert counts([grant(state="renewing", last_error="503")]) == "1 grant: 1 retrying"
    assert counts([grant(state="later"), grant()]) == "2 grants: 1 ready, 1 later"
    assert counts([]) == "no grants"


def test_a_try_that_is_under_way_is_still_a_retry() -> None:
    assert shown_state(grant(state="renewing", last_error="503")) == "retrying"


def test_a_grant_that_had_no_token_yet_is_not_counted_as_ready() -> None:
    assert counts([grant(), nothing(next_renewal_at=1_001.0)]) == "2 grants: 1 ready, 1 without a token"
