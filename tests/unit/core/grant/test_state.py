# The table of a grant's states: every state by every event, as docs/architecture.md shows them.
from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from brokerd.core.exchange.outcomes import IssuedToken, Tokens
from brokerd.core.grant import attempts, failures, issuance
from brokerd.core.grant import revocation as revocations
from brokerd.core.grant.record import Record, served
from brokerd.core.grant.state import IllegalMove, State, Trigger, move
from brokerd.core.grant.tokens import usable
from brokerd.core.secret import Secret
from tests.unit.core.values import DAY, HOUR, MINUTE, NOW, record, tokens

S, E = State, Trigger
# The table written a second time: (state, event) → where it leads if the grant can issue, and if it cannot.
ALLOWED: dict[tuple[State, Trigger], tuple[State, State]] = {
    (S.READY, E.BEGIN): (S.RENEWING, S.RENEWING),
    (S.RENEWING, E.ISSUED): (S.READY, S.READY),
    (S.RENEWING, E.FAILED): (S.RETRYING, S.RETRYING),
    (S.RENEWING, E.REFUSED): (S.MISCONFIGURED, S.MISCONFIGURED),
    (S.RENEWING, E.REJECTED): (S.READY, S.NEEDS_LOGIN),
    (S.RENEWING, E.DECLINED): (S.READY, S.READY),
    (S.RETRYING, E.BEGIN): (S.RENEWING, S.RENEWING),
    (S.RETRYING, E.AGAIN): (S.READY, S.READY),
    (S.MISCONFIGURED, E.AGAIN): (S.READY, S.READY),
    (S.NEEDS_LOGIN, E.AGAIN): (S.READY, S.NEEDS_LOGIN),
    # A refresh by hand or a reload meets every state; these it leaves as they are.
    (S.READY, E.AGAIN): (S.READY, S.READY),
    (S.RENEWING, E.AGAIN): (S.RENEWING, S.RENEWING),
    (S.REVOKED, E.AGAIN): (S.REVOKED, S.REVOKED),
    **{(state, E.REVOKE): (S.REVOKED, S.REVOKED) for state in S},
    **{(state, E.GRANTED): (S.READY, S.READY) for state in S},
}
EVERY_PAIR = list(itertools.product(State, Trigger))


@pytest.mark.parametrize(("state", "event"), [pair for pair in EVERY_PAIR if pair in ALLOWED])
def test_a_move_of_the_table_leads_where_the_design_says(state: State, event: Trigger) -> None:
    can_issue, cannot_issue = ALLOWED[state, event]
    assert move(state, event, can_issue=True) is can_issue
    assert move(state, event, can_issue=False) is cannot_issue


@pytest.mark.parametrize(("state", "event"), [pair for pair in EVERY_PAIR if pair not in ALLOWED])
@pytest.mark.parametrize("can_issue", [True, False])
def test_every_other_move_is_one_error_that_names_both(state: State, event: Trigger, can_issue: bool) -> None:
    with pytest.raises(IllegalMove, match=f"^{event} while {state}$"):
        move(state, event, can_issue=can_issue)


def test_only_a_login_leaves_revoked() -> None:
    leaving = {event for state, event in ALLOWED if state is S.REVOKED and ALLOWED[state, event][0] is not S.REVOKED}
    assert leaving == {E.GRANTED}


def test_the_states_are_called_as_the_contract_says() -> None:
    assert list(map(str, State)) == ["ready", "renewing", "retrying", "misconfigured", "needs_login", "revoked"]


class LifeOfAGrant(RuleBasedStateMachine):
    """Every event that is legal, in any order; what must hold of all lives is checked after each."""

    def __init__(self) -> None:
        super().__init__()
        self.record = record()
        self.now = NOW
        self.number = 0
        self.dead: set[str] = set()  # refresh tokens that an answer has replaced or rejected
        self.generation = 0

    def apply(self, after: Record) -> None:
        before, self.record = self.record, after
        old, new = before.refresh_token, after.refresh_token
        if old is not None and (new is None or old.value != new.value):
            self.dead.add(old.value.reveal())

    @rule(seconds=st.sampled_from([0.0, 1.0, MINUTE, HOUR, DAY, 40 * DAY]))
    def time_passes(self, seconds: float) -> None:
        self.now = self.now.after(seconds)

    @precondition(lambda self: self.record.state in (State.READY, State.RETRYING))
    @rule()
    def an_exchange_begins(self) -> None:
        self.apply(attempts.begun(self.record))

    @precondition(lambda self: self.record.state is State.RENEWING)
    @rule(brings=st.sampled_from(["access", "refresh", "both"]), lifetime=st.sampled_from([0.0, MINUTE, HOUR, None]))
    def tokens_come(self, brings: str, lifetime: float | None) -> None:
        self.number += 1
        brought = tokens(
            f"access-{self.number}" if brings != "refresh" else None,
            f"refresh-{self.number}" if brings != "access" else None,
            lifetime=lifetime,
        )
        self.apply(issuance.issued(self.record, brought, self.now, 0.5, ""))

    @precondition(lambda self: self.record.state is State.RENEWING)
    @rule(interrupted=st.booleans())
    def it_fails(self, interrupted: bool) -> None:
        was = self.record.interrupted
        self.apply(failures.failed(self.record, "503", self.now, 1.0, interrupted=interrupted))
        assert self.record.interrupted == (was or (self.now if interrupted else None))

    @precondition(lambda self: self.record.state is State.RENEWING)
    @rule(can_issue=st.booleans())
    def it_is_rejected(self, can_issue: bool) -> None:
        self.apply(failures.rejected(self.record, "dead", self.now, can_issue=can_issue))

    @precondition(lambda self: self.record.state is State.RENEWING)
    @rule()
    def it_is_refused(self) -> None:
        self.apply(failures.refused(self.record, "wrong", self.now, HOUR, b"digest"))

    @rule(by_hand=st.booleans(), can_issue=st.booleans())
    def again(self, by_hand: bool, can_issue: bool) -> None:
        was = self.record.interrupted
        self.apply(attempts.again(self.record, can_issue=can_issue, by_hand=by_hand))
        assert self.record.interrupted == was

    @rule()
    def it_is_revoked(self) -> None:
        held = (self.record.access_token, self.record.refresh_token, *self.record.superseded)
        living = sum(usable(each, self.now) for each in held)
        before = len(self.record.pending_revocations)
        self.apply(revocations.revoked(self.record, self.now))
        assert len(self.record.pending_revocations) == before + living

    @precondition(lambda self: self.record.state is State.REVOKED)
    @rule()
    def tokens_come_late(self) -> None:
        self.number += 1
        self.apply(revocations.came_late(self.record, tokens(f"late-{self.number}"), self.now))

    @precondition(lambda self: bool(self.record.pending_revocations))
    @rule()
    def the_provider_is_told(self) -> None:
        self.apply(revocations.provider_told(self.record, self.record.pending_revocations[0]))

    @rule()
    def someone_logs_in(self) -> None:
        self.number += 1
        self.apply(
            issuance.granted(
                self.record, Tokens(refresh_token=IssuedToken(Secret(f"imported-{self.number}"))), self.now, 0.5, ""
            )
        )

    @rule()
    def the_daemon_is_killed_and_started(self) -> None:
        self.apply(attempts.reopened(self.record, interrupted=None))
        assert self.record.state is not State.RENEWING

    @invariant()
    def a_generation_never_falls(self) -> None:
        assert self.record.generation >= self.generation
        self.generation = self.record.generation

    @invariant()
    def a_dead_refresh_token_never_comes_back(self) -> None:
        held = self.record.refresh_token
        assert held is None or held.value.reveal() not in self.dead

    @invariant()
    def what_is_served_is_alive_and_not_revoked(self) -> None:
        token = served(self.record, self.now)
        if token is not None:
            assert self.record.state is not State.REVOKED
            assert token.lifetime is None or token.issued.boot + token.lifetime > self.now.boot

    @invariant()
    def a_revoked_grant_holds_no_token_that_could_be_sent_for_another(self) -> None:
        if self.record.state is State.REVOKED:
            assert self.record.access_token is None
            assert self.record.refresh_token is None


TestLifeOfAGrant = LifeOfAGrant.TestCase


TestLifeOfAGrant.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
