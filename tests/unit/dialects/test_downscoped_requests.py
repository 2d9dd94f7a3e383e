# What is sent for a downscoped token, and what its refusal means: at OAuth 2.0 and by recipes.
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.exchange.outcomes import Declined, Misconfigured, Outcome, Rejected, RetryLater
from brokerd.core.exchange.steps import Exchange
from brokerd.core.grant.renewal import Ability
from brokerd.core.grant.target import Target
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.dialects.oauth2.grant_types import TOKEN_EXCHANGE, Downscoping
from tests.unit.dialects.exchange_driver import answer, outcome, recipe, sent, view

IDP = OAuth2("https://idp.example/token")
CLIENT = {"client_id": "client-1", "client_secret": "secret-1"}
READ, OTHER = Target(("read",)), Target(("read",), "audience-1", "urn:r")
OCCAM, TREEZOR, CLICK2MAIL, IX = map(recipe, ("occam", "treezor", "click2mail", "ix-api"))
BY_PASSWORD = {"username": "me", "password": "password-1"}


def grant(wanted: Target | None = READ, *, refresh: str | None = "refresh-1", **settings: object) -> GrantView:
    said = {"grant_type": "client_credentials", "client_auth": "client_secret_basic", **settings}
    return replace(view(CLIENT, said, access="access-1", refresh=refresh), target=wanted)


def form(exchange: Exchange) -> dict[str, str]:
    return dict(sent(exchange).form)


# -- OAuth 2.0


def test_a_renewal_names_what_is_wanted_and_nothing_else() -> None:
    named = {"scope": "read", "audience": "audience-1", "resource": "urn:r"}
    refresh = {"grant_type": "refresh_token", "refresh_token": "refresh-1"}
    assert form(IDP.renew(grant(OTHER, scope=["read", "write"]))) == {**refresh, **named}
    assert form(IDP.renew(grant(READ, resource="urn:own"))) == {**refresh, "scope": "read"}


def test_an_issue_names_what_is_wanted_in_the_place_of_the_grants_own() -> None:
    own = {"scope": ["read", "write"], "audience": "own", "resource": "urn:own"}
    issue = {"grant_type": "client_credentials"}
    assert form(IDP.issue(grant(OTHER, **own))) == {
        **issue,
        "scope": "read",
        "audience": "audience-1",
        "resource": "urn:r",
    }
    assert form(IDP.issue(grant(READ, **own))) == {**issue, "scope": "read", "audience": "own", "resource": "urn:own"}


def test_the_next_renewal_of_the_grant_names_its_own_scope_after_a_downscoped_token() -> None:
    mine = grant(None)
    assert mine.refresh_token is not None
    narrowed = replace(mine, refresh_token=replace(mine.refresh_token, restore=Target(("read", "write"))))
    assert form(IDP.renew(narrowed))["scope"] == "read write"


def test_an_exchange_sends_the_grants_own_living_token_and_spends_nothing() -> None:
    mine = grant(OTHER, variants=Downscoping(exchange=True))
    request = sent(IDP.issue(mine))
    assert (request.form["grant_type"], request.form["subject_token"]) == (TOKEN_EXCHANGE, "access-1")
    assert request.form["audience"] == "audience-1"
    assert not request.request.sends_stored
    assert IDP.ability(mine) == Ability(issue=True, renew=False)
    assert IDP.ability(replace(mine, access_token=None)) == Ability(issue=False, renew=False)
    assert IDP.ability(replace(mine, target=None)).renew


@pytest.mark.parametrize(
    ("error", "downscoped", "own"),
    [
        ("invalid_scope", Declined, Misconfigured),
        ("invalid_target", Declined, Misconfigured),
        ("access_denied", Declined, Misconfigured),
        ("invalid_request", Declined, Misconfigured),
        ("invalid_client", Misconfigured, Misconfigured),
        ("unsupported_grant_type", Misconfigured, Misconfigured),
        ("invalid_grant", Rejected, Rejected),
        ("temporarily_unavailable", RetryLater, RetryLater),
    ],
)
def test_a_refused_target_says_nothing_of_the_grant_but_a_refused_client_does(
    error: str, downscoped: type[Outcome], own: type[Outcome]
) -> None:
    assert type(outcome(IDP.renew(grant()), answer(400, {"error": error}))) is downscoped
    assert type(outcome(IDP.renew(grant(None)), answer(400, {"error": error}))) is own


@pytest.mark.parametrize(
    ("wanted", "settings", "lacks"),
    [
        (READ, {}, True),
        (READ, {"scope": ["read", "write"]}, False),
        (Target(audience="a"), {}, True),
        (Target(audience="a"), {"audience": "a"}, False),
        (Target(audience="a"), {"variants": Downscoping(audience=("a", "b"))}, False),
        (Target(resource="urn:r"), {"variants": Downscoping(audience=("urn:r",))}, True),
        (Target(resource="urn:r"), {"variants": Downscoping(resource=("urn:r",))}, False),
        (OTHER, {"variants": Downscoping(exchange=True)}, False),
    ],
)
def test_a_refresh_token_is_asked_only_for_what_is_configured(
    wanted: Target, settings: dict[str, object], lacks: bool
) -> None:
    assert (IDP.lacks(grant(wanted, **settings)) is not None) is lacks
    assert IDP.lacks(grant(wanted, refresh=None, **settings)) is None, "credentials are not used up"


# -- recipes


def test_a_recipe_names_what_its_requests_have_a_place_for() -> None:
    mine = replace(view(BY_PASSWORD, {"scope": ["read", "write"]}, refresh="refresh-1"), target=READ)
    assert form(OCCAM.issue(mine))["scope"] == "read"
    assert OCCAM.lacks(mine) is None
    assert OCCAM.ability(mine) == Ability(issue=True, renew=False), "its renewal has no place for a scope"
    assert "resource" in (OCCAM.lacks(replace(mine, target=Target(resource="urn:r"))) or "")
    assert IX.lacks(replace(view({"api_key": "k", "api_secret": "s"}), target=READ)) is not None


def test_an_issue_that_brings_no_access_token_brings_no_downscoped_token() -> None:
    mine = replace(view(CLIENT, refresh="long-1", access="short-1"), target=READ)
    assert CLICK2MAIL.lacks(mine) is not None
    assert CLICK2MAIL.ability(mine) == Ability(issue=False, renew=False)


def test_a_refused_target_at_a_recipe_says_nothing_of_the_grant() -> None:
    mine = replace(view(CLIENT), target=READ)
    heard = answer(400, {"errors": [{"type": "invalid_scope", "message": "The scope is invalid"}]})
    assert type(outcome(TREEZOR.issue(mine), heard)) is Declined
    assert type(outcome(TREEZOR.issue(replace(mine, target=None)), heard)) is Misconfigured
