# What each event does to a grant's record: one test for each, and a machine that applies them in any order.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from brokerd.core import record as records
from brokerd.core import revocation as revocations
from brokerd.core.grant import IllegalMove, State
from brokerd.core.moment import Moment
from brokerd.core.outcome import Token, Tokens
from brokerd.core.record import AccessToken, Doomed, Record, RefreshToken, alive, served, usable
from brokerd.core.secret import Secret
from tests.core.values import DAY, HOUR, MINUTE, NOW, access, record, refresh, tokens

LATER = NOW.after(MINUTE)
REBOOTED = Moment(NOW.wall + MINUTE, 7.0, "boot-2")
UNSURE = REBOOTED._replace(trusted=False)


def renewing(**fields: object) -> Record:
    return record(state=State.RENEWING, generation=4, access_token=access(), refresh_token=refresh(), **fields)


# Alive, usable, served


def test_a_token_is_served_until_it_has_no_more_than_min_ttl_to_live() -> None:
    held = record(access_token=access(HOUR))
    assert served(held, NOW.after(HOUR - 0.001)) is held.access_token
    assert served(held, NOW.after(HOUR)) is None
    assert served(held, NOW.after(HOUR - 61), min_ttl=60) is held.access_token
    assert served(held, NOW.after(HOUR - 60), min_ttl=60) is None


@pytest.mark.parametrize("make", [access, refresh])
def test_a_token_expires_a_lifetime_after_it_was_issued(make: Callable[..., AccessToken | RefreshToken]) -> None:
    assert make(HOUR).expires == NOW.after(HOUR)
    assert make(None).expires is None


def test_a_token_without_a_known_expiry_is_alive() -> None:
    assert alive(access(None), NOW.after(1_000 * DAY), min_ttl=HOUR)
    assert not alive(None, NOW)


@pytest.mark.parametrize("state", [each for each in State if each is not State.REVOKED])
def test_a_living_token_is_served_in_every_state_but_revoked(state: State) -> None:
    held = record(state=state, access_token=access())
    assert served(held, NOW) is held.access_token


def test_a_revoked_grant_is_never_served() -> None:
    assert served(record(state=State.REVOKED, access_token=access(None)), NOW) is None


def test_a_token_lives_on_over_a_reboot_by_the_wall_clock() -> None:
    assert alive(access(HOUR), REBOOTED)
    assert not alive(access(HOUR), REBOOTED.after(HOUR))


def test_a_token_of_another_boot_is_not_served_while_the_clock_is_unsure_but_may_be_sent() -> None:
    assert not alive(access(HOUR), UNSURE)
    assert usable(refresh(HOUR), UNSURE)
    assert usable(refresh(HOUR), UNSURE.after(2 * HOUR))  # nobody here can tell: the provider can


def test_a_token_that_is_known_to_be_dead_is_not_sent() -> None:
    assert not usable(refresh(HOUR), NOW.after(HOUR))
    assert not usable(refresh(HOUR), NOW._replace(trusted=False).after(HOUR))  # the same boot: its clock is sure
    assert not usable(refresh(HOUR), REBOOTED.after(HOUR))
    assert not usable(None, NOW)
    assert usable(refresh(None), NOW.after(1_000 * DAY))


# An exchange, and how it ends


@pytest.mark.parametrize("state", [State.READY, State.RETRYING])
def test_an_exchange_begins_and_leaves_the_tokens_alone(state: State) -> None:
    before = replace(renewing(), state=state)
    assert records.begun(before) == renewing()


@pytest.mark.parametrize("state", [State.RENEWING, State.MISCONFIGURED, State.NEEDS_LOGIN, State.REVOKED])
def test_an_exchange_begins_in_no_other_state(state: State) -> None:
    with pytest.raises(IllegalMove):
        records.begun(record(state=state))


def test_issued_tokens_replace_the_old_ones_as_one_new_generation() -> None:
    before = renewing(interrupted=NOW, retry=NOW, rotation_retry=NOW, rotation_failures=2, refused=b"x", failures=3)
    before = replace(before, last_error="the network was away", renewals=7)
    brought = tokens("access-2", "refresh-2", lifetime=600, refresh_lifetime=DAY)
    after = records.issued(before, brought, LATER, 0.25, "asked")
    assert after == record(
        generation=5,
        access_token=access(600, at=LATER, jitter=0.25, value="access-2"),
        refresh_token=refresh(DAY, at=LATER, jitter=0.25, value="refresh-2"),
        outlived=(before.access_token,),
        asked="asked",
        renewals=8,
        changed=LATER,
    )


def test_an_answer_without_a_refresh_token_keeps_the_old_one() -> None:
    after = records.issued(renewing(), tokens("access-2"), LATER, 0.25, "")
    assert after.refresh_token == refresh(kept=True)  # and it is known from then on that renewals leave it as it is
    assert after.access_token is not None
    assert after.access_token.value == Secret("access-2")


def test_an_answer_without_an_access_token_keeps_the_old_one() -> None:
    after = records.issued(renewing(), tokens(None, "refresh-2"), LATER, 0.25, "")
    assert after.access_token == access()
    assert after.refresh_token is not None
    assert after.refresh_token.value == Secret("refresh-2")


def test_a_token_keeps_the_id_and_the_scope_that_the_provider_gave_it() -> None:
    brought = replace(tokens(None), access_token=Token(Secret("a"), 60.0, "id-1"), token_type="DPoP", scope=("read",))
    after = records.issued(renewing(), brought, LATER, 0.0, "")
    assert after.access_token is not None
    assert (after.access_token.id, after.access_token.token_type, after.access_token.scope) == (
        "id-1",
        "DPoP",
        ("read",),
    )


def test_a_token_that_came_dead_counts_as_a_failure_and_holds_the_next_try_back() -> None:
    issued = records.issued(renewing(failures=2), tokens(lifetime=0.0), NOW, 0.0, "")
    after = records.came_dead(issued, 3, NOW, 4.0)
    assert (after.state, after.retry, after.failures) == (State.RETRYING, NOW.after(4.0), 3)
    assert after.generation == issued.generation
    assert after.last_error == "the provider issued a token that had already expired"
    odd = "the provider says that the token lives 0 s; if that is wrong, write lifetime on the grant"
    assert records.came_dead(issued, 3, NOW, 4.0, odd).last_error == f"{after.last_error}: {odd}"


def test_a_failure_holds_the_next_try_back_and_leaves_the_tokens_served() -> None:
    after = records.failed(renewing(failures=1), "503", LATER, 2.0, interrupted=False)
    assert (after.state, after.retry, after.failures, after.last_error) == (
        State.RETRYING,
        LATER.after(2.0),
        2,
        "503",
    )
    assert after.interrupted is None
    assert after.generation == 4
    assert served(after, LATER) == access()
    assert after.refresh_token == refresh()


def test_an_interruption_is_dated_from_its_first_time() -> None:
    first = records.failed(renewing(), "timeout", NOW, 2.0, interrupted=True)
    assert first.interrupted == NOW
    second = records.failed(records.begun(first), "timeout", LATER, 2.0, interrupted=True)
    assert second.interrupted == NOW  # the token may have been used up then already


def test_a_failure_before_the_first_byte_neither_marks_nor_unmarks_an_interruption() -> None:
    assert records.failed(renewing(), "DNS", LATER, 2.0, interrupted=False).interrupted is None
    assert records.failed(renewing(interrupted=NOW), "DNS", LATER, 2.0, interrupted=False).interrupted == NOW


def test_refused_credentials_leave_the_grant_misconfigured_and_its_living_token_served() -> None:
    after = records.refused(renewing(), "wrong password", NOW, HOUR, b"digest")
    assert (after.state, after.retry, after.refused, after.failures) == (
        State.MISCONFIGURED,
        NOW.after(HOUR),
        b"digest",
        1,
    )
    assert served(after, NOW) == access()
    assert after.refresh_token == refresh()


@pytest.mark.parametrize(("can_issue", "state"), [(True, State.READY), (False, State.NEEDS_LOGIN)])
def test_a_rejected_refresh_token_is_gone_and_a_living_access_token_served(can_issue: bool, state: State) -> None:
    after = records.rejected(renewing(interrupted=NOW, retry=NOW), "expired", LATER, can_issue=can_issue)
    assert after.refresh_token is None
    assert (after.state, after.generation, after.interrupted, after.retry) == (state, 5, None, None)
    assert (after.failures, after.last_error) == (1, "expired")
    assert served(after, LATER) == access()


def test_a_failed_rotation_costs_the_living_refresh_token_nothing() -> None:
    after = records.rotation_failed(renewing(), "403", NOW, HOUR, interrupted=False)
    assert after == replace(
        renewing(), state=State.READY, rotation_retry=NOW.after(HOUR), rotation_failures=1, last_error="403"
    )
    assert records.rotation_failed(renewing(), "timeout", NOW, HOUR, interrupted=True).interrupted == NOW


# Someone says: again


@pytest.mark.parametrize("state", [State.RETRYING, State.MISCONFIGURED, State.READY])
def test_again_lets_go_what_held_the_grant_back_but_not_an_interruption(state: State) -> None:
    held = replace(renewing(retry=NOW, rotation_retry=NOW, interrupted=NOW), state=state)
    after = records.again(held, can_issue=False, by_hand=False)
    assert after == replace(held, state=State.READY, retry=None, rotation_retry=None)


def test_a_refused_password_is_let_go_by_hand_only() -> None:
    held = replace(renewing(refused=b"digest"), state=State.MISCONFIGURED)
    assert records.again(held, can_issue=True, by_hand=False).refused == b"digest"
    assert records.again(held, can_issue=True, by_hand=True).refused is None


@pytest.mark.parametrize(
    ("can_issue", "has_token", "state"),
    [
        (True, False, State.READY),
        (False, True, State.READY),
        (False, False, State.NEEDS_LOGIN),
    ],
)
def test_again_ends_needs_login_only_where_there_is_something_to_try(
    can_issue: bool, has_token: bool, state: State
) -> None:
    held = record(state=State.NEEDS_LOGIN, refresh_token=refresh() if has_token else None)
    assert records.again(held, can_issue=can_issue, by_hand=True).state is state


def test_again_does_not_end_a_revocation() -> None:
    held = revocations.revoked(renewing(), NOW)
    assert records.again(held, can_issue=True, by_hand=True).state is State.REVOKED


@pytest.mark.parametrize("state", [State.READY, State.RETRYING])
def test_a_grant_that_has_nothing_to_get_a_token_with_needs_a_login(state: State) -> None:
    after = records.lacks_login(record(state=state, access_token=access()), "its refresh token has expired")
    assert (after.state, after.last_error) == (State.NEEDS_LOGIN, "its refresh token has expired")
    assert served(after, NOW) == access()


def test_what_is_put_off_is_only_looked_at_later() -> None:
    held = replace(renewing(), state=State.MISCONFIGURED)
    assert records.put_off(held, NOW, 300.0) == replace(held, retry=NOW.after(300.0))


# Revocation


def test_revocation_dooms_the_living_tokens_and_serves_nothing_from_then_on() -> None:
    after = revocations.revoked(renewing(interrupted=NOW, retry=NOW, failures=2), LATER)
    assert after.doomed == (Doomed(access_token=access()), Doomed(refresh_token=refresh()))
    assert (after.access_token, after.refresh_token, after.state) == (None, None, State.REVOKED)
    assert (after.generation, after.interrupted, after.retry, after.failures) == (5, None, None, 0)
    assert served(after, LATER) is None


def test_the_provider_is_not_told_of_tokens_that_are_dead_already() -> None:
    after = revocations.revoked(renewing(), NOW.after(2 * HOUR))
    assert after.doomed == (Doomed(refresh_token=refresh()),)
    assert revocations.revoked(renewing(), NOW.after(60 * DAY)).doomed == ()


def test_the_provider_is_told_of_tokens_whose_death_no_clock_can_tell() -> None:
    assert len(revocations.revoked(renewing(), UNSURE).doomed) == 2


@pytest.mark.parametrize("state", list(State))
def test_a_grant_can_be_revoked_in_every_state(state: State) -> None:
    assert revocations.revoked(record(state=state), NOW).state is State.REVOKED


def test_revoking_again_forgets_no_token_that_is_still_to_be_told() -> None:
    once = revocations.revoked(renewing(), NOW)
    assert revocations.revoked(once, LATER).doomed == once.doomed


def test_tokens_that_come_for_a_revoked_grant_are_doomed_and_not_served() -> None:
    before = revocations.revoked(renewing(), NOW)
    after = revocations.came_late(before, tokens("access-2", "refresh-2"), LATER)
    values = [(each.access_token or each.refresh_token).value.reveal() for each in after.doomed]  # type: ignore[union-attr]
    assert values == ["access-1", "refresh-1", "access-2", "refresh-2"]
    assert (after.state, after.generation) == (State.REVOKED, before.generation + 1)
    assert (after.access_token, after.refresh_token) == (None, None)
    assert served(after, LATER) is None


def test_a_late_refresh_token_alone_is_doomed_too() -> None:
    after = revocations.came_late(record(state=State.REVOKED), tokens(None, "refresh-2"), LATER)
    assert [each.refresh_token is not None for each in after.doomed] == [True]


def test_what_the_provider_could_not_be_told_is_told_again_later() -> None:
    before = revocations.revoked(renewing(), NOW)
    once = revocations.untold(before, "503", LATER, 2.0)
    twice = revocations.untold(once, "503", LATER, 4.0)
    assert once == replace(before, telling=LATER.after(2.0), untold=1, last_error="503")
    assert twice == replace(before, telling=LATER.after(4.0), untold=2, last_error="503")


def test_a_token_that_the_provider_knows_of_is_told_no_more() -> None:
    before = revocations.revoked(renewing(), NOW)
    after = revocations.told(revocations.untold(before, "503", LATER, 2.0), before.doomed[0])
    assert after == replace(before, doomed=before.doomed[1:])


def test_access_tokens_that_were_replaced_and_live_are_told_of_too() -> None:
    first = records.issued(renewing(), tokens("access-2", lifetime=HOUR), NOW.after(HOUR / 2), 0.5, "")
    second = records.issued(records.begun(first), tokens("access-3"), NOW.after(2 * HOUR / 3), 0.5, "")
    assert [each.value.reveal() for each in second.outlived] == ["access-1", "access-2"]
    revoked = revocations.revoked(second, NOW.after(1.2 * HOUR))  # the first has ended by then
    told_of = [(each.access_token or each.refresh_token).value.reveal() for each in revoked.doomed]  # type: ignore[union-attr]
    assert told_of == ["access-2", "access-3", "refresh-1"]
    assert revoked.outlived == ()


def test_an_answer_without_an_access_token_outlives_none() -> None:
    after = records.issued(renewing(), tokens(None, "refresh-2"), LATER, 0.5, "")
    assert after.outlived == ()


def test_a_record_does_not_grow_with_tokens_that_never_end() -> None:
    held = renewing()
    for number in range(500):
        held = records.issued(replace(held, state=State.RENEWING), tokens(f"a-{number}", lifetime=None), NOW, 0.5, "")
    assert 1 <= len(held.outlived) <= 100
    assert held.outlived[-1].value == Secret("a-498")


def test_a_token_that_an_import_replaced_is_told_of_when_the_grant_is_revoked() -> None:
    """It is still good at the provider, and revocation is for every token that is alive (law 10)."""
    imported = records.granted(
        replace(renewing(), state=State.READY), Tokens(refresh_token=Token(Secret("imported"))), LATER, 0.5, ""
    )
    told_of = [each.access_token for each in revocations.revoked(imported, LATER).doomed]
    assert access() in told_of


# A new life, and a new process


@pytest.mark.parametrize("state", list(State))
def test_a_login_or_import_is_a_new_life_in_every_state(state: State) -> None:
    before = record(state=state, generation=4, refresh_token=refresh(), interrupted=NOW, retry=NOW)
    before = replace(before, rotation_retry=NOW, refused=b"x", failures=3, last_error="rejected")
    after = records.granted(before, Tokens(refresh_token=Token(Secret("imported"))), LATER, 0.125, "")
    assert after == record(
        generation=5, refresh_token=refresh(None, at=LATER, jitter=0.125, value="imported"), changed=LATER
    )


def test_a_new_life_does_not_stop_the_provider_from_being_told_of_the_old_one() -> None:
    revoked = revocations.revoked(renewing(), NOW)
    assert (
        records.granted(revoked, Tokens(refresh_token=Token(Secret("imported"))), LATER, 0.0, "").doomed
        == revoked.doomed
    )


def test_a_record_that_was_stored_while_renewing_is_tried_again() -> None:
    assert records.reopened(renewing(), interrupted=None) == replace(renewing(), state=State.RETRYING)


@pytest.mark.parametrize("state", [each for each in State if each is not State.RENEWING])
def test_every_other_record_is_reopened_as_it_was(state: State) -> None:
    held = replace(renewing(interrupted=NOW), state=state)
    assert records.reopened(held, interrupted=LATER) == held


def test_the_journal_marks_a_record_as_interrupted() -> None:
    assert records.reopened(renewing(), interrupted=LATER).interrupted == LATER


# In any order


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
        self.apply(records.begun(self.record))

    @precondition(lambda self: self.record.state is State.RENEWING)
    @rule(brings=st.sampled_from(["access", "refresh", "both"]), lifetime=st.sampled_from([0.0, MINUTE, HOUR, None]))
    def tokens_come(self, brings: str, lifetime: float | None) -> None:
        self.number += 1
        brought = tokens(
            f"access-{self.number}" if brings != "refresh" else None,
            f"refresh-{self.number}" if brings != "access" else None,
            lifetime=lifetime,
        )
        self.apply(records.issued(self.record, brought, self.now, 0.5, ""))

    @precondition(lambda self: self.record.state is State.RENEWING)
    @rule(interrupted=st.booleans())
    def it_fails(self, interrupted: bool) -> None:
        was = self.record.interrupted
        self.apply(records.failed(self.record, "503", self.now, 1.0, interrupted=interrupted))
        assert self.record.interrupted == (was or (self.now if interrupted else None))

    @precondition(lambda self: self.record.state is State.RENEWING)
    @rule(can_issue=st.booleans())
    def it_is_rejected(self, can_issue: bool) -> None:
        self.apply(records.rejected(self.record, "dead", self.now, can_issue=can_issue))

    @precondition(lambda self: self.record.state is State.RENEWING)
    @rule()
    def it_is_refused(self) -> None:
        self.apply(records.refused(self.record, "wrong", self.now, HOUR, b"digest"))

    @rule(by_hand=st.booleans(), can_issue=st.booleans())
    def again(self, by_hand: bool, can_issue: bool) -> None:
        was = self.record.interrupted
        self.apply(records.again(self.record, can_issue=can_issue, by_hand=by_hand))
        assert self.record.interrupted == was

    @rule()
    def it_is_revoked(self) -> None:
        held = (self.record.access_token, self.record.refresh_token, *self.record.outlived)
        living = sum(usable(each, self.now) for each in held)
        before = len(self.record.doomed)
        self.apply(revocations.revoked(self.record, self.now))
        assert len(self.record.doomed) == before + living

    @precondition(lambda self: self.record.state is State.REVOKED)
    @rule()
    def tokens_come_late(self) -> None:
        self.number += 1
        self.apply(revocations.came_late(self.record, tokens(f"late-{self.number}"), self.now))

    @precondition(lambda self: bool(self.record.doomed))
    @rule()
    def the_provider_is_told(self) -> None:
        self.apply(revocations.told(self.record, self.record.doomed[0]))

    @rule()
    def someone_logs_in(self) -> None:
        self.number += 1
        self.apply(
            records.granted(
                self.record, Tokens(refresh_token=Token(Secret(f"imported-{self.number}"))), self.now, 0.5, ""
            )
        )

    @rule()
    def the_daemon_is_killed_and_started(self) -> None:
        self.apply(records.reopened(self.record, interrupted=None))
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


def test_since_when_it_fails_is_the_first_failure_until_it_works_again() -> None:
    from brokerd.core.record import dated

    well = Record("app")
    first, second = (replace(well, last_error=words) for words in ("503", "timed out"))
    assert dated(well, first, NOW).failing_since == NOW
    failing = dated(well, first, NOW)
    assert dated(failing, replace(second, failing_since=failing.failing_since), NOW.after(60)).failing_since == NOW
    assert dated(failing, replace(failing, last_error=None), NOW.after(90)).failing_since is None
