# What a recipe's keys do: which request is sent, how its answer is read, and what each status means. Each has a recipe
# of a few lines.
from __future__ import annotations

import base64
from typing import Any

import pytest

from brokerd.core.exchange.outcomes import Issued, RetryLater, Tokens
from brokerd.core.grant.record import PendingRevocation
from tests.unit.dialects.exchange_driver import BASE, NOW, answer, meaning, outcome, sent, view, words
from tests.unit.dialects.recipe.short_recipes import GOOD, ISSUE, dialect, with_issue

RENEWABLE = (
    GOOD
    + """
[renew]
request = "POST /renew"
json    = { token = "{refresh_token}" }
"""
)


def test_basic_authentication_joins_user_and_password() -> None:
    mine = dialect(with_issue(ISSUE, 'basic = ["{user}", "p:{user}"]'))
    header = dict(sent(mine.issue(view({"user": "me"}))).request.headers)["Authorization"]
    assert base64.b64decode(header.removeprefix("Basic ")) == b"me:p:me"


@pytest.mark.parametrize("user", ["a", "ab", "abc"])
def test_an_echoed_basic_header_shows_no_secret(user: str) -> None:
    text = GOOD.replace("form    =", 'basic = ["{user}", "{password}"]\nform    =') + '[errors]\nreason = "message"'
    seen = view({"user": user, "password": "hunter2"})
    header = dict(sent(dialect(text).issue(seen)).request.headers)["Authorization"].removeprefix("Basic ")
    found = outcome(dialect(text).issue(seen), answer(401, {"message": f"bad header {header}"}))
    assert header.rstrip("=") not in found.reason  # type: ignore[union-attr]


def test_a_recipe_can_ask_for_another_form_of_answer() -> None:
    mine = dialect(with_issue(ISSUE, 'headers = { accept = "application/vnd.api+json" }'))
    headers = [(name.lower(), value) for name, value in sent(mine.issue(view({"user": "me"}))).request.headers]
    assert [value for name, value in headers if name == "accept"] == ["application/vnd.api+json"]


def test_the_first_issue_whose_placeholders_can_be_filled_is_used() -> None:
    mine = dialect(
        """
        credentials = ["key", "user"]
        [[issue]]
        request = "POST /by-key"
        query   = { key = "{key}" }
        [[issue]]
        request = "POST /by-user"
        query   = { user = "{user}" }
        [[issue]]
        request = "POST /anonymous"
        [answer]
        access_token = "t"
        """
    )
    paths = [
        sent(mine.issue(view(each))).line.rpartition("/")[2] for each in ({"key": "k", "user": "u"}, {"user": "u"}, {})
    ]
    assert paths == ["by-key", "by-user", "anonymous"]


def tokens_of(text: str, body: object, headers: dict[str, str] | None = None) -> Tokens:
    found = outcome(dialect(text).issue(view({"user": "me", "password": "p"})), answer(200, body, headers))
    assert isinstance(found, Issued), found
    return found.tokens


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ('"token"', {"token": "t-1"}, {}),
        ('"data.token"', {"data": {"token": "t-1"}}, {}),
        ('"data.1.token"', {"data": [{}, {"token": "t-1"}]}, {}),
        ('"header:X-Token"', {}, {"x-token": "t-1"}),
        ('["other", "data.token", "token"]', {"token": "t-1", "data": 5}, {}),
        ('["header:X-Token", "token"]', {"token": "t-1"}, {}),
    ],
)
def test_a_path_is_dotted_or_a_header_or_the_first_found_of_a_list(
    path: str, body: object, headers: dict[str, str]
) -> None:
    found = tokens_of(with_issue(ISSUE, answer_=f"access_token = {{ at = {path} }}"), body, headers)
    assert found.access_token is not None
    assert found.access_token.value.reveal() == "t-1"


@pytest.mark.parametrize(
    ("place", "body", "lifetime"),
    [
        ('expires_in = "e"', {"e": 60}, 60.0),
        ('expires_in_ms = "e"', {"e": 60_000}, 60.0),
        ('expires_at = "e"', {"e": NOW.wall + 60}, 60.0),
        ('expires_in = "header:X-Expires"', {}, None),
    ],
)
def test_a_lifetime_is_read_in_the_unit_that_the_recipe_names(
    place: str, body: dict[str, Any], lifetime: float | None
) -> None:
    found = tokens_of(with_issue(ISSUE, answer_=f'access_token = {{ at = "t", {place} }}'), {"t": "t-1", **body})
    assert found.access_token is not None
    assert found.access_token.lifetime == (None if lifetime is None else pytest.approx(lifetime))


def test_scope_and_token_type_are_read_where_the_recipe_says() -> None:
    text = with_issue(ISSUE, answer_='access_token = "t"\nscope = ["scopes", "scope"]\ntoken_type = "kind"')
    assert tokens_of(text, {"t": "t-1", "scope": "a b", "kind": "MAC"}).scope == ("a", "b")
    assert tokens_of(text, {"t": "t-1", "scopes": ["a", "b"]}).scope == ("a", "b")
    assert tokens_of(text, {"t": "t-1", "scopes": [1]}).scope is None
    assert tokens_of(text, {"t": "t-1", "kind": "MAC"}).token_type == "MAC"


def test_an_operation_has_an_answer_of_its_own_or_that_of_the_recipe() -> None:
    text = GOOD.replace("form    =", 'answer.access_token = "mine"\nform    =')
    assert tokens_of(text, {"mine": "a", "token": "b"}).access_token.value.reveal() == "a"  # type: ignore[union-attr]
    assert (
        meaning(outcome(dialect(text).issue(view({"user": "u", "password": "p"})), answer(200, {"token": "b"})))
        == "unreadable"
    )


def test_without_a_place_for_reasons_any_json_is_the_providers() -> None:
    text = RENEWABLE.replace('request = "POST /renew"', 'request = "POST /renew"\nerrors = { 401 = "rejected" }')
    seen = view({"user": "u", "password": "p"}, refresh="r")
    assert meaning(outcome(dialect(text).renew(seen), answer(401, {}))) == "rejected"
    assert meaning(outcome(dialect(text).renew(seen), answer(401, b"<html>"))) == "strange"


@pytest.mark.parametrize(
    ("status", "means"),
    [
        (400, "silent"),
        (401, "silent"),
        (403, "silent"),
        (404, "strange"),
        (409, "strange"),
        (422, "silent"),
    ],
)
def test_a_status_that_the_recipe_does_not_mark_is_an_outage_unless_a_password_was_sent(
    status: int, means: str
) -> None:
    text = GOOD + '[errors]\nreason = "message"'
    seen = view({"user": "u", "password": "p"})
    found = outcome(dialect(text).issue(seen), answer(status, {"message": "no"}, {"retry-after": "7"}))
    assert meaning(found) == means
    assert isinstance(found, RetryLater)
    assert found.after == 7.0
    assert "not in the provider's format: no" in words(found)
    secret = text.replace("password", "api_secret")
    found = outcome(dialect(secret).issue(view({"user": "u", "api_secret": "p"})), answer(status, {"message": "no"}))
    assert meaning(found) == "strange"


def test_retry_and_done_mean_what_they_say() -> None:
    text = GOOD.replace("form    =", 'errors = { 409 = "retry" }\nform    =') + '[errors]\nreason = "message"'
    seen = view({"user": "u", "password": "p"})
    assert (
        meaning(outcome(dialect(text).issue(seen), answer(409, {"message": "busy"}, {"retry-after": "5"}))) == "limited"
    )


ROTATES = 'answer.access_token = "a"\nanswer.refresh_token = "r"'

KEEPS = 'answer.access_token = "a"'


@pytest.mark.parametrize(
    ("path", "sends", "brings", "spends"),
    [
        ("/renew", 'json = { token = "{refresh_token}" }', ROTATES, True),
        ("/renew", 'json = { token = "{refresh_token?}" }', ROTATES, True),
        ("/renew", 'headers = { X-Token = "T {refresh_token}" }', ROTATES, True),
        ("/renew/{refresh_token.id}", "", ROTATES.replace('"r"', '{ at = "r", id = "i" }'), True),
        ("/renew", 'json = { token = "{refresh_token}" }', KEEPS, False),
        ("/renew", 'json = { user = "{user}" }', ROTATES, False),
    ],
    ids=["sent and replaced", "sent where there is one", "in a header", "by its id", "sent and kept", "not sent"],
)
def test_an_operation_spends_where_it_sends_what_its_answer_may_replace(
    path: str, sends: str, brings: str, spends: bool
) -> None:
    mine = dialect(f'{GOOD}[renew]\nrequest = "POST {path}"\n{sends}\n{brings}')
    seen = view({"user": "u", "password": "p"}, refresh="r", refresh_id="i")
    assert mine.ability(seen).renew_sends_stored is spends
    assert sent(mine.renew(seen)).request.sends_stored is spends


def test_a_recipe_says_how_its_tokens_are_presented() -> None:
    assert dialect(GOOD).present("Bearer") == "Authorization: Bearer {access_token}"
    assert dialect('present = "X-Api-Key: {access_token}"\n' + GOOD).present("Bearer") == "X-Api-Key: {access_token}"


def test_a_revocation_needs_what_it_sends() -> None:
    text = GOOD + '[revoke.refresh_token]\nrequest = "DELETE /t/{refresh_token}"'
    seen = view({}, refresh="a/b")
    exchange = dialect(text).revoke(seen, PendingRevocation(refresh_token=seen.refresh_token))
    assert exchange is not None
    assert sent(exchange).line == f"DELETE {BASE}/t/a%2Fb"
    assert dialect(text).revoke(view({}), PendingRevocation(refresh_token=seen.refresh_token)) is None
    assert dialect(text).revoke(seen, PendingRevocation(access_token=view({}, access="a").access_token)) is None
