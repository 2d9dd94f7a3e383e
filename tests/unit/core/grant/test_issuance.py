# What tokens that a provider issued do to a record, from an exchange, a login or an import.
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.exchange.outcomes import IssuedToken, Tokens
from brokerd.core.grant import issuance
from brokerd.core.grant import revocation as revocations
from brokerd.core.grant.record import SUPERSEDED_MOST, newest
from brokerd.core.grant.state import State
from brokerd.core.secret import Secret
from tests.unit.core.values import DAY, LATER, NOW, access, record, refresh, renewing, tokens


def test_issued_tokens_replace_the_old_ones_as_one_new_generation() -> None:
    before = renewing(interrupted=NOW, retry=NOW, rotation_retry=NOW, rotation_failures=2, refused=b"x", failures=3)
    before = replace(before, last_error="the network was away", renewals=7)
    brought = tokens("access-2", "refresh-2", lifetime=600, refresh_lifetime=DAY)
    after = issuance.issued(before, brought, LATER, 0.25, "requested")
    assert after == record(
        generation=5,
        access_token=access(600, at=LATER, jitter=0.25, value="access-2"),
        refresh_token=refresh(DAY, at=LATER, jitter=0.25, value="refresh-2"),
        superseded=(before.access_token,),
        requested="requested",
        renewals=8,
        changed=LATER,
    )


def test_an_answer_without_a_refresh_token_keeps_the_old_one() -> None:
    after = issuance.issued(renewing(), tokens("access-2"), LATER, 0.25, "")
    assert after.refresh_token == refresh(kept=True)  # and it is known from then on that renewals leave it as it is
    assert after.access_token is not None
    assert after.access_token.value == Secret("access-2")


def test_an_answer_without_an_access_token_keeps_the_old_one() -> None:
    after = issuance.issued(renewing(), tokens(None, "refresh-2"), LATER, 0.25, "")
    assert after.access_token == access()
    assert after.refresh_token is not None
    assert after.refresh_token.value == Secret("refresh-2")


def test_a_token_keeps_the_id_and_the_scope_that_the_provider_gave_it() -> None:
    brought = replace(
        tokens(None), access_token=IssuedToken(Secret("a"), 60.0, "id-1"), token_type="DPoP", scope=("read",)
    )
    after = issuance.issued(renewing(), brought, LATER, 0.0, "")
    assert after.access_token is not None
    assert (after.access_token.id, after.access_token.token_type, after.access_token.scope) == (
        "id-1",
        "DPoP",
        ("read",),
    )


def test_a_token_that_came_dead_counts_as_a_failure_and_holds_the_next_try_back() -> None:
    issued = issuance.issued(renewing(failures=2), tokens(lifetime=0.0), NOW, 0.0, "")
    after = issuance.issued_expired(issued, 3, NOW, 4.0)
    assert (after.state, after.retry, after.failures) == (State.RETRYING, NOW.after(4.0), 3)
    assert after.generation == issued.generation
    assert after.last_error == "the provider issued a token that had already expired"
    odd = "the provider says that the token lives 0 s; if that is wrong, write lifetime on the grant"
    assert issuance.issued_expired(issued, 3, NOW, 4.0, odd).last_error == f"{after.last_error}: {odd}"


def test_an_answer_without_an_access_token_outlives_none() -> None:
    after = issuance.issued(renewing(), tokens(None, "refresh-2"), LATER, 0.5, "")
    assert after.superseded == ()


def test_a_record_does_not_grow_with_tokens_that_never_end() -> None:
    held = renewing()
    for number in range(500):
        held = issuance.issued(replace(held, state=State.RENEWING), tokens(f"a-{number}", lifetime=None), NOW, 0.5, "")
    assert 1 <= len(held.superseded) <= 100
    assert held.superseded[-1].value == Secret("a-498")


@pytest.mark.parametrize("state", list(State))
def test_a_login_or_import_is_a_new_life_in_every_state(state: State) -> None:
    before = record(state=state, generation=4, refresh_token=refresh(), interrupted=NOW, retry=NOW)
    before = replace(before, rotation_retry=NOW, refused=b"x", failures=3, last_error="rejected")
    after = issuance.granted(before, Tokens(refresh_token=IssuedToken(Secret("imported"))), LATER, 0.125, "")
    assert after == record(
        generation=5, refresh_token=refresh(None, at=LATER, jitter=0.125, value="imported"), changed=LATER
    )


def test_a_new_life_does_not_stop_the_provider_from_being_told_of_the_old_one() -> None:
    revoked = revocations.revoked(renewing(), NOW)
    assert (
        issuance.granted(
            revoked, Tokens(refresh_token=IssuedToken(Secret("imported"))), LATER, 0.0, ""
        ).pending_revocations
        == revoked.pending_revocations
    )


def test_replaced_tokens_are_remembered_up_to_two_mebibytes_the_newest_first() -> None:
    long = [access(value=f"{number}".ljust(256 * 1024, "x")) for number in range(12)]
    assert newest(long) == tuple(long[-8:])
    short = [access(value=f"{number}") for number in range(SUPERSEDED_MOST + 2)]
    assert newest(short) == tuple(short[2:])


def test_fields_come_and_go_with_their_token() -> None:
    brought = replace(tokens("access-2"), fields={"id": Secret("of access-2")})
    first = issuance.issued(renewing(), brought, LATER, 0.5, "")
    assert first.access_token is not None
    assert first.access_token.fields == {"id": Secret("of access-2")}
    second = issuance.issued(replace(first, state=State.RENEWING), tokens("access-3"), LATER, 0.5, "")
    assert second.access_token is not None
    assert second.access_token.fields == {}
    assert [each.value.reveal() for each in second.superseded] == ["access-1", "access-2"]
    assert not any(each.fields for each in second.superseded)
