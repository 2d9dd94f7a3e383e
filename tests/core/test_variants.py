# A grant's variants in its record: each event, and when they are renewed. Pure.
from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from brokerd.core import variants
from brokerd.core.grant import State
from brokerd.core.moment import Moment
from brokerd.core.outcome import Tokens
from brokerd.core.record import VARIANTS_MOST, Doomed, Record, granted, issued
from brokerd.core.renewal import Pace, variants_due
from brokerd.core.revocation import revoked
from brokerd.core.secret import Secret
from brokerd.core.wanted import Wanted
from brokerd.variety import BURST, DECLINED_FOR, DECLINED_MOST, Variety
from tests.core.values import HOUR, NOW, access, record, refresh, tokens

READ, WRITE, OWN = Wanted(("read",)), Wanted(("write",)), Wanted(("read", "write"))
numbers = count()


def held(**fields: object) -> Record:
    """A grant whose exchange is under way."""
    return record(
        state=State.RENEWING, generation=4, access_token=access(), refresh_token=refresh(), asked="all", **fields
    )


def with_variant(
    kept: Record, wanted: Wanted, at: Moment = NOW, *, asked: str = "all", renewed: bool = True, **brought: object
) -> Record:
    found: Tokens = tokens(f"variant-{next(numbers)}", **brought)  # type: ignore[arg-type]
    begun = replace(kept, state=State.RENEWING)
    return variants.issued(begun, wanted, found, at, 0.5, asked, OWN, renewed=renewed)


def due(kept: Record, now: Moment, **pace: object) -> dict[Wanted, float]:
    return {wanted: round(delay) for wanted, delay in variants_due(kept, "all", Pace(**pace), now)}  # type: ignore[arg-type]


def test_a_variant_is_beside_the_grants_own_token() -> None:
    before = held()
    after = with_variant(before, READ)
    assert after.access_token is before.access_token
    assert after.generation == before.generation + 1
    assert after.state is State.READY
    assert variants.served(after, READ, "all", NOW) is after.variants[0].access_token
    assert variants.served(after, WRITE, "all", NOW) is None


def test_a_replaced_refresh_token_is_the_grants_and_another_one_is_not_kept() -> None:
    assert with_variant(held(), READ, refresh_value="refresh-2").refresh_token.value == Secret("refresh-2")  # type: ignore[union-attr]
    issued_anew = with_variant(held(), READ, refresh_value="refresh-2", renewed=False)
    assert issued_anew.refresh_token == held().refresh_token


def test_what_a_variant_named_the_next_own_token_names_again_and_then_no_more() -> None:
    after = with_variant(with_variant(held(), READ), Wanted(resource="urn:r"))
    assert after.refresh_token is not None
    assert after.refresh_token.restore == Wanted(scope=OWN.scope), "the grant has no resource of its own"
    for brought in (tokens("own-2"), tokens("own-2", "refresh-2")):
        renewed = issued(replace(after, state=State.RENEWING), brought, NOW, 0.5, "all")
        assert renewed.refresh_token is not None
        assert renewed.refresh_token.restore is None
        assert renewed.variants == after.variants


def test_a_variant_is_served_for_its_life_and_never_of_a_revoked_grant() -> None:
    after = with_variant(held(), READ)
    assert variants.served(after, READ, "all", NOW.after(HOUR - 1)) is not None
    assert variants.served(after, READ, "all", NOW.after(HOUR - 1), min_ttl=2) is None
    assert variants.served(after, READ, "all", NOW.after(HOUR)) is None
    assert variants.served(replace(after, state=State.REVOKED), READ, "all", NOW) is None
    assert variants.served(after, READ, "less", NOW) is None, "the configuration asks for something else"


def test_the_least_recently_used_goes_and_is_remembered_for_a_revocation() -> None:
    many = [Wanted((f"s{number}",)) for number in range(VARIANTS_MOST)]
    kept = held()
    for each in many:
        kept = with_variant(kept, each)
    kept = variants.used(kept, many[0], NOW.after(5))
    gone = kept.variants[0]
    kept = with_variant(kept, READ)
    assert [each.wanted for each in kept.variants] == [*many[2:], many[0], READ]
    assert kept.outlived[-1] is gone.access_token


def test_a_renewal_ahead_is_no_use() -> None:
    kept = with_variant(with_variant(held(), READ), WRITE)
    kept = with_variant(kept, READ, NOW.after(HOUR / 2))
    assert [(each.wanted, each.used) for each in kept.variants] == [(READ, NOW), (WRITE, NOW)]


def test_a_use_is_noted_once_a_second_and_for_the_order_at_once() -> None:
    kept = with_variant(with_variant(held(), READ), WRITE)
    assert [each.wanted for each in variants.used(kept, READ, NOW).variants] == [WRITE, READ]
    assert variants.used(kept, WRITE, NOW.after(0.5)) is kept
    assert variants.used(kept, WRITE, NOW.after(1.5)).variants[-1].used == NOW.after(1.5)
    assert variants.used(kept, OWN, NOW) is kept


def test_variants_that_were_got_for_another_configuration_go_with_the_next_one() -> None:
    kept = with_variant(held(), READ, asked="more")
    old = kept.variants[0].access_token
    kept = with_variant(kept, WRITE)
    assert [each.wanted for each in kept.variants] == [WRITE]
    assert old in kept.outlived


def test_a_dead_variant_is_not_kept_but_what_came_with_it_is() -> None:
    kept = with_variant(held(), READ, refresh_value="refresh-2", lifetime=0.0)
    assert not kept.variants
    assert kept.refresh_token is not None
    assert kept.refresh_token.value == Secret("refresh-2")


def test_a_revocation_dooms_every_variant_and_a_login_forgets_them() -> None:
    kept = with_variant(with_variant(held(), READ), WRITE)
    values = {each.access_token for each in kept.variants}
    gone = revoked(kept, NOW)
    assert not gone.variants
    assert {Doomed(each) for each in values} <= set(gone.doomed)
    again = granted(kept, tokens("own-2", "refresh-2"), NOW, 0.5, "all")
    assert not again.variants
    assert values <= set(again.outlived)


@pytest.mark.parametrize("spent", [True, False])
def test_a_refused_variant_leaves_the_grant_well_but_for_what_it_may_have_used_up(spent: bool) -> None:
    before = held(failures=2, last_error="down")
    after = variants.declined(before, NOW, spent=spent)
    assert (after.state, after.generation) == (State.READY, before.generation)
    assert after.refresh_token is before.refresh_token
    assert after.interrupted == (NOW if spent else None)


def test_a_variant_is_renewed_at_two_thirds_while_somebody_uses_it() -> None:
    kept = with_variant(with_variant(held(), READ), WRITE)
    assert due(kept, NOW) == {READ: round(HOUR * (2 / 3 + 0.04)), WRITE: round(HOUR * (2 / 3 + 0.04))}
    kept = with_variant(kept, READ, NOW.after(HOUR * 0.7))
    kept = variants.used(kept, WRITE, NOW.after(HOUR * 0.7))
    assert due(kept, NOW.after(HOUR * 0.9)).keys() == {READ, WRITE}
    assert due(kept, NOW.after(HOUR * 1.1)).keys() == {WRITE}
    assert due(kept, NOW.after(HOUR * 1.8)) == {}
    assert due(kept, NOW, on_demand=True) == {}


# -- what is remembered beside the record


def test_a_refusal_is_remembered_for_a_while() -> None:
    variety = Variety()
    variety.refuse(READ, "invalid_scope", NOW)
    assert variety.wait(READ, NOW.after(10)) == DECLINED_FOR - 10
    assert variety.wait(WRITE, NOW) <= 0
    assert variety.refusal(READ, NOW.after(DECLINED_FOR)) is None
    for number in range(DECLINED_MOST):
        variety.refuse(Wanted((f"s{number}",)), "no", NOW)
    assert variety.refusal(READ, NOW) is None
    variety.forget()
    assert variety.refusal(Wanted(("s9",)), NOW) is None


def test_variants_are_got_at_once_until_they_are_many() -> None:
    variety = Variety()
    for _ in range(BURST):
        assert variety.wait(READ, NOW) <= 0
        variety.begin(NOW)
    variety.begin(NOW)
    assert variety.wait(READ, NOW) == 1.0
    assert variety.wait(READ, NOW.after(1)) <= 0


def test_the_order_of_asking_makes_no_other_variant_and_a_part_lies_within() -> None:
    assert Wanted(("read",)).within(["write", "read"])
    assert not Wanted(("admin", "read")).within(("read",))
    assert Wanted(("admin",)).within(None)
    assert str(Wanted(("a", "b"), "c", "urn:d")) == "scope a b, audience c, resource urn:d"
