# A grant's variants in its record: each event, and when they are renewed. Pure.
from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from brokerd.core.exchange.outcomes import Tokens
from brokerd.core.grant import downscoped
from brokerd.core.grant.issuance import granted, issued
from brokerd.core.grant.record import DOWNSCOPED_MOST, PendingRevocation, Record
from brokerd.core.grant.renewal import Pace, downscoped_due
from brokerd.core.grant.revocation import revoked
from brokerd.core.grant.state import State
from brokerd.core.grant.target import Target
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from tests.unit.core.values import HOUR, NOW, access, record, refresh, tokens

READ, WRITE, OWN = Target(("read",)), Target(("write",)), Target(("read", "write"))
numbers = count()


def held(**fields: object) -> Record:
    """A grant whose exchange is under way."""
    return record(
        state=State.RENEWING, generation=4, access_token=access(), refresh_token=refresh(), requested="all", **fields
    )


def with_variant(
    kept: Record, wanted: Target, at: Moment = NOW, *, asked: str = "all", renewed: bool = True, **brought: object
) -> Record:
    found: Tokens = tokens(f"variant-{next(numbers)}", **brought)  # type: ignore[arg-type]
    begun = replace(kept, state=State.RENEWING)
    return downscoped.issued(begun, wanted, found, at, 0.5, asked, OWN, renewed=renewed)


def due(kept: Record, now: Moment, **pace: object) -> dict[Target, float]:
    return {wanted: round(delay) for wanted, delay in downscoped_due(kept, "all", Pace(**pace), now)}  # type: ignore[arg-type]


def test_a_variant_is_beside_the_grants_own_token() -> None:
    before = held()
    after = with_variant(before, READ)
    assert after.access_token is before.access_token
    assert after.generation == before.generation + 1
    assert after.state is State.READY
    assert downscoped.served(after, READ, "all", NOW) is after.downscoped[0].access_token
    assert downscoped.served(after, WRITE, "all", NOW) is None


def test_a_replaced_refresh_token_is_the_grants_and_another_one_is_not_kept() -> None:
    assert with_variant(held(), READ, refresh_value="refresh-2").refresh_token.value == Secret("refresh-2")  # type: ignore[union-attr]
    issued_anew = with_variant(held(), READ, refresh_value="refresh-2", renewed=False)
    assert issued_anew.refresh_token == held().refresh_token


def test_what_a_variant_named_the_next_own_token_names_again_and_then_no_more() -> None:
    after = with_variant(with_variant(held(), READ), Target(resource="urn:r"))
    assert after.refresh_token is not None
    assert after.refresh_token.restore == Target(scope=OWN.scope), "the grant has no resource of its own"
    for brought in (tokens("own-2"), tokens("own-2", "refresh-2")):
        renewed = issued(replace(after, state=State.RENEWING), brought, NOW, 0.5, "all")
        assert renewed.refresh_token is not None
        assert renewed.refresh_token.restore is None
        assert renewed.downscoped == after.downscoped


def test_a_variant_is_served_for_its_life_and_never_of_a_revoked_grant() -> None:
    after = with_variant(held(), READ)
    assert downscoped.served(after, READ, "all", NOW.after(HOUR - 1)) is not None
    assert downscoped.served(after, READ, "all", NOW.after(HOUR - 1), min_ttl=2) is None
    assert downscoped.served(after, READ, "all", NOW.after(HOUR)) is None
    assert downscoped.served(replace(after, state=State.REVOKED), READ, "all", NOW) is None
    assert downscoped.served(after, READ, "less", NOW) is None, "the configuration asks for something else"


def test_the_least_recently_used_goes_and_is_remembered_for_a_revocation() -> None:
    many = [Target((f"s{number}",)) for number in range(DOWNSCOPED_MOST)]
    kept = held()
    for each in many:
        kept = with_variant(kept, each)
    kept = downscoped.used(kept, many[0], NOW.after(5))
    gone = kept.downscoped[0]
    kept = with_variant(kept, READ)
    assert [each.target for each in kept.downscoped] == [*many[2:], many[0], READ]
    assert kept.superseded[-1] is gone.access_token


def test_a_renewal_ahead_is_no_use() -> None:
    kept = with_variant(with_variant(held(), READ), WRITE)
    kept = with_variant(kept, READ, NOW.after(HOUR / 2))
    assert [(each.target, each.used) for each in kept.downscoped] == [(READ, NOW), (WRITE, NOW)]


def test_a_use_is_noted_once_a_second_and_for_the_order_at_once() -> None:
    kept = with_variant(with_variant(held(), READ), WRITE)
    assert [each.target for each in downscoped.used(kept, READ, NOW).downscoped] == [WRITE, READ]
    assert downscoped.used(kept, WRITE, NOW.after(0.5)) is kept
    assert downscoped.used(kept, WRITE, NOW.after(1.5)).downscoped[-1].used == NOW.after(1.5)
    assert downscoped.used(kept, OWN, NOW) is kept


def test_variants_that_were_got_for_another_configuration_go_with_the_next_one() -> None:
    kept = with_variant(held(), READ, asked="more")
    old = kept.downscoped[0].access_token
    kept = with_variant(kept, WRITE)
    assert [each.target for each in kept.downscoped] == [WRITE]
    assert old in kept.superseded


def test_a_dead_variant_is_not_kept_but_what_came_with_it_is() -> None:
    kept = with_variant(held(), READ, refresh_value="refresh-2", lifetime=0.0)
    assert not kept.downscoped
    assert kept.refresh_token is not None
    assert kept.refresh_token.value == Secret("refresh-2")


def test_a_revocation_dooms_every_variant_and_a_login_forgets_them() -> None:
    kept = with_variant(with_variant(held(), READ), WRITE)
    values = [each.access_token for each in kept.downscoped]
    gone = revoked(kept, NOW)
    assert not gone.downscoped
    assert all(PendingRevocation(each) in gone.pending_revocations for each in values)
    again = granted(kept, tokens("own-2", "refresh-2"), NOW, 0.5, "all")
    assert not again.downscoped
    assert all(each in again.superseded for each in values)


@pytest.mark.parametrize("spent", [True, False])
def test_a_refused_variant_leaves_the_grant_well_but_for_what_it_may_have_used_up(spent: bool) -> None:
    before = held(failures=2, last_error="down")
    after = downscoped.declined(before, NOW, sent_stored=spent)
    assert (after.state, after.generation) == (State.READY, before.generation)
    assert after.refresh_token is before.refresh_token
    assert after.interrupted == (NOW if spent else None)


def test_a_variant_is_renewed_at_two_thirds_while_somebody_uses_it() -> None:
    kept = with_variant(with_variant(held(), READ), WRITE)
    assert due(kept, NOW) == {READ: round(HOUR * (2 / 3 + 0.04)), WRITE: round(HOUR * (2 / 3 + 0.04))}
    kept = with_variant(kept, READ, NOW.after(HOUR * 0.7))
    kept = downscoped.used(kept, WRITE, NOW.after(HOUR * 0.7))
    assert due(kept, NOW.after(HOUR * 0.9)).keys() == {READ, WRITE}
    assert due(kept, NOW.after(HOUR * 1.1)).keys() == {WRITE}
    assert due(kept, NOW.after(HOUR * 1.8)) == {}
    assert due(kept, NOW, on_demand=True) == {}


# -- what is remembered beside the record


def test_the_order_of_asking_makes_no_other_variant_and_a_part_lies_within() -> None:
    assert Target(("read",)).within(["write", "read"])
    assert not Target(("admin", "read")).within(("read",))
    assert Target(("admin",)).within(None)
    assert str(Target(("a", "b"), "c", "urn:d")) == "scope a b, audience c, resource urn:d"
