# ix-api, occam, treezor and click2mail: what must not be shown, what each grant can do, and what its record is bound
# to (laws 11 and 15).
from __future__ import annotations

from collections.abc import Callable

import pytest

from brokerd.core.exchange.steps import Exchange, Response
from brokerd.core.grant.renewal import Ability
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.recipe.dialect import RecipeDialect
from tests.unit.dialects.exchange_driver import answer, drive, meaning, outcome, recipe, sent, view, words
from tests.unit.dialects.recipe.built_in_grants import (
    BY_KEY,
    BY_PASSWORD,
    CLICK2MAIL,
    CLIENT,
    IX,
    IX_GRANT,
    LONG_AND_SHORT,
    LONG_ONLY,
    OCCAM,
    PASSWORD,
    TREEZOR,
    TREEZOR_CLIENT,
    TREEZOR_USER,
    auth_error,
    detail,
    problem,
)


@pytest.mark.parametrize(
    ("start", "echo", "secret"),
    [
        (lambda: OCCAM.issue(BY_PASSWORD), lambda text: detail(400, f"wrong (input was: {text})"), PASSWORD),
        (lambda: OCCAM.issue(BY_KEY), lambda text: detail(400, f"wrong (input was: {text})"), "key-1/+=&"),
        (
            lambda: OCCAM.renew(BY_PASSWORD),
            lambda text: detail(422, [{"loc": ["body"], "msg": f"bad: {text}"}]),
            "refresh-1",
        ),
        (lambda: OCCAM.renew(BY_PASSWORD), lambda text: detail(422, {"input": {"refresh_token": text}}), "refresh-1"),
        (lambda: IX.issue(IX_GRANT), lambda text: problem(401, f"bad {text}"), "secret-1"),
        (lambda: TREEZOR.issue(TREEZOR_USER), lambda text: answer(400, {"errors": [{"message": text}]}), PASSWORD),
        (lambda: CLICK2MAIL.renew(LONG_ONLY), lambda text: auth_error(401, f"bad {text}"), "long-1"),
    ],
)
def test_an_echoed_request_of_a_recipe_shows_no_secret(
    start: Callable[[], Exchange], echo: Callable[[str], Response], secret: str
) -> None:
    request = sent(start()).request
    query = request.url.partition("?")[2]
    for echoed in (secret, request.body.decode(), query, repr(dict(request.headers))):
        found = words(outcome(start(), echo(echoed)))
        assert secret not in found
        assert "refresh-1" not in found
        assert "Bearer long-1" not in found


@pytest.mark.parametrize("secret", ["key-1/+=&", "key-1%2F%2B%3D%26"])
def test_the_key_in_the_query_is_in_no_repr(secret: str) -> None:
    assert secret not in repr(sent(OCCAM.issue(BY_KEY)).request)


# What spends, and what can be done
@pytest.mark.parametrize(
    ("dialect", "seen", "ability"),
    [
        (IX, IX_GRANT, Ability(issue=True, renew=True, renew_sends_stored=True)),
        (IX, view({}), Ability(issue=False, renew=True, renew_sends_stored=True)),
        (IX, view({"api_key": "k"}), Ability(issue=False, renew=True, renew_sends_stored=True)),
        (OCCAM, BY_PASSWORD, Ability(issue=True, renew=True, renew_sends_stored=True)),
        (OCCAM, BY_KEY, Ability(issue=True, renew=True, renew_sends_stored=True)),
        (TREEZOR, TREEZOR_CLIENT, Ability(issue=True, renew=True, renew_sends_stored=True)),
        (CLICK2MAIL, view(CLIENT), Ability(issue=True, renew=True)),
        (CLICK2MAIL, LONG_ONLY, Ability(issue=True, renew=True)),
        (CLICK2MAIL, LONG_AND_SHORT, Ability(issue=True, renew=True, issue_sends_stored=True)),
        (CLICK2MAIL, view({"client_id": "c"}, refresh="long-1"), Ability(issue=False, renew=True)),
        (
            CLICK2MAIL,
            view({"client_id": "c"}, access="short-1", refresh="long-1"),
            Ability(issue=True, renew=True, issue_sends_stored=True),
        ),
    ],
)
def test_an_ability_says_what_can_be_done_and_what_it_may_cost(
    dialect: RecipeDialect, seen: GrantView, ability: Ability
) -> None:
    assert dialect.ability(seen) == ability
    if ability.issue:
        assert sent(dialect.issue(seen)).request.sends_stored is ability.issue_sends_stored
    if seen.refresh_token is not None:
        assert sent(dialect.renew(seen)).request.sends_stored is ability.renew_sends_stored


@pytest.mark.parametrize("dialect", [IX, OCCAM, TREEZOR, CLICK2MAIL])
def test_without_credentials_an_issue_ends_before_it_asks(dialect: RecipeDialect) -> None:
    requests, found = drive(dialect.issue(view({})))
    assert requests == []
    assert meaning(found) == "misconfigured"


# What a record is bound to (law 15)
IDENTITIES = [
    (IX, IX_GRANT),
    (OCCAM, BY_PASSWORD),
    (TREEZOR, TREEZOR_USER),
    (CLICK2MAIL, LONG_ONLY),
]


@pytest.mark.parametrize(("dialect", "seen"), IDENTITIES)
@pytest.mark.parametrize("base", ["https://api.other", "https://api.example:8443", "http://api.example"])
def test_a_recipe_at_another_origin_is_another_identity(dialect: RecipeDialect, seen: GrantView, base: str) -> None:
    moved = recipe(dialect.recipe.name, base)
    assert moved.identity(seen) != dialect.identity(seen)


def test_another_recipe_is_another_identity() -> None:
    assert TREEZOR.identity(view(CLIENT)) != CLICK2MAIL.identity(view(CLIENT))


@pytest.mark.parametrize(
    ("dialect", "name"),
    [
        (IX, "api_key"),
        (OCCAM, "username"),
        (OCCAM, "client_id"),
        (TREEZOR, "client_id"),
        (TREEZOR, "username"),
        (CLICK2MAIL, "client_id"),
    ],
)
def test_another_client_or_user_is_another_identity(dialect: RecipeDialect, name: str) -> None:
    one = {"api_key": "a", "username": "b", "client_id": "c"}
    assert dialect.identity(view(one)) != dialect.identity(view({**one, name: "other"}))


@pytest.mark.parametrize(
    ("dialect", "name"),
    [(IX, "api_secret"), (OCCAM, "password"), (OCCAM, "key"), (TREEZOR, "client_secret"), (CLICK2MAIL, "assertion")],
)
def test_another_secret_is_the_same_identity_and_is_not_in_it(dialect: RecipeDialect, name: str) -> None:
    one, other = view({"client_id": "c", name: "hunter2"}), view({"client_id": "c", name: "hunter3"})
    assert dialect.identity(one) == dialect.identity(other)
    assert "hunter" not in repr(dialect.identity(one))


def test_another_scope_is_the_same_identity() -> None:
    assert TREEZOR.identity(view(CLIENT, {"scope": ["a"]})) == TREEZOR.identity(view(CLIENT, {"scope": ["b"]}))
