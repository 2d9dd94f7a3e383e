# Recipe files: every kind of mistake is found when the file is read, and the error names the key and what would be
# right. And the engine's small promises, each with a recipe of a few lines.
from __future__ import annotations

import base64
from typing import Any

import pytest
import tomli
from hypothesis import example, given
from hypothesis import strategies as st

from brokerd.core.exchange import Request
from brokerd.core.outcome import Issued, RetryLater, Tokens
from brokerd.core.record import Doomed
from brokerd.core.secret import Secret
from brokerd.core.typed import ConfigError
from brokerd.dialects import template
from brokerd.dialects.recipe import RecipeDialect
from brokerd.dialects.recipe_file import Recipe, read_recipe
from tests.dialects.answers import BASE, NOW, answer, begin, meaning, outcome, sent, view, words

GOOD = """
credentials = ["user", "password"]
settings    = ["ttl", "tenant"]

[[issue]]
request = "POST /token"
form    = { user = "{user}", password = "{password}" }

[answer]
access_token = "token"
"""


def read(text: str) -> Recipe:
    return read_recipe("mine", tomli.loads(text))


def dialect(text: str, **settings: object) -> RecipeDialect:
    return RecipeDialect(read(text), BASE.rstrip("/"), settings)


def error_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def with_issue(*lines: str, answer_: str = 'access_token = "token"') -> str:
    body = "\n".join(lines)
    return f'credentials = ["user"]\n[[issue]]\n{body}\n[answer]\n{answer_}\n'


ISSUE = 'request = "POST /token"'
REQUEST_FORM = 'expected a method and a path with one leading slash, such as "POST /token"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "issue: a recipe needs an [[issue]] or a [renew]: without one no token can be got"),
        ('credentials = "user"', "credentials: expected an array, found text"),
        ("credentials = [5]", "credentials[0]: expected text, found a number"),
        ('credentails = ["user"]', "credentails: unknown key; did you mean credentials?"),
        (
            'credentials = ["access_token"]\n[[issue]]\nrequest = "POST /t"\n[answer]\naccess_token = "t"',
            "credentials: access_token is brokerd's own name and cannot be a credential or setting",
        ),
        (
            'credentials = ["key"]\nsettings = ["key"]\n[[issue]]\nrequest = "POST /t"\n[answer]\naccess_token = "t"',
            "credentials: key is a setting too, and settings are not kept as secrets; rename one of them",
        ),
        ('[issue]\nrequest = "POST /token"', "issue: expected an array, found a table"),
        ("[[issue]]\nform = {}", "issue[0].request: this key is required and missing"),
        (with_issue('request = "/token"'), f'issue[0].request: {REQUEST_FORM}, found "/token"'),
        (with_issue('request = "FETCH /token"'), f'issue[0].request: {REQUEST_FORM}, found "FETCH /token"'),
        (with_issue('request = "POST token"'), f'issue[0].request: {REQUEST_FORM}, found "POST token"'),
        (
            with_issue('request = "POST //evil.example/x"'),
            f'issue[0].request: {REQUEST_FORM}, found "POST //evil.example/x"',
        ),
        (
            with_issue('request = "POST https://evil.example"'),
            f'issue[0].request: {REQUEST_FORM}, found "POST https://evil.example"',
        ),
        (with_issue('request = "POST /token?a=b"'), f'issue[0].request: {REQUEST_FORM}, found "POST /token?a=b"'),
        (with_issue('request = "POST /token#a"'), f'issue[0].request: {REQUEST_FORM}, found "POST /token#a"'),
        (with_issue('request = "POST /a b"'), f'issue[0].request: {REQUEST_FORM}, found "POST /a b"'),
        (with_issue('request = "POST /a\\\\b"'), f'issue[0].request: {REQUEST_FORM}, found "POST /a\\b"'),
        (with_issue('request = "post /token"'), f'issue[0].request: {REQUEST_FORM}, found "post /token"'),
        (with_issue(ISSUE, "headers = { X = 5 }"), "issue[0].headers.X: expected text, found 5"),
        (
            with_issue(ISSUE, 'headers = { Host = "evil" }'),
            "issue[0].headers.Host: this header cannot be set by a recipe",
        ),
        (
            with_issue(ISSUE, 'headers = { content-length = "5" }'),
            "issue[0].headers.content-length: this header cannot be set by a recipe",
        ),
        (
            with_issue(ISSUE, 'headers = { "X: y" = "z" }'),
            "issue[0].headers.X: y: this header cannot be set by a recipe",
        ),
        (with_issue(ISSUE, "query = { a = 5 }"), "issue[0].query.a: expected text, found 5"),
        (with_issue(ISSUE, "form = { a = 5 }"), "issue[0].form.a: expected text, found 5"),
        (
            with_issue(ISSUE, 'form = { a = "b" }', 'json = { a = "b" }'),
            "issue[0]: at most one of json, form and multipart; found json and form",
        ),
        (
            with_issue(ISSUE, 'basic = ["{user}"]'),
            "issue[0].basic: expected an array of two: user name and password, found an array",
        ),
        (with_issue(ISSUE, 'form = { a = "{usr}" }'), "issue[0].form: {usr} is declared nowhere; known: "),
        (with_issue(ISSUE, 'json = { a = { b = ["{usr}"] } }'), "issue[0].json: {usr} is declared nowhere; known: "),
        (with_issue(ISSUE, 'headers = { X = "{usr}" }'), "issue[0].headers: {usr} is declared nowhere; known: "),
        (with_issue('request = "POST /{usr}"'), "issue[0].request: {usr} is declared nowhere; known: "),
        (
            with_issue(ISSUE, 'form = { a = "{User}" }'),
            'issue[0].form: "{User}": braces that are no placeholder; write {name} or {name?}',
        ),
        (
            with_issue(ISSUE, 'form = { a = "{user" }'),
            'issue[0].form: "{user": braces that are no placeholder; write {name} or {name?}',
        ),
        (
            with_issue(ISSUE, 'form = { a = "{{user}}" }'),
            'issue[0].form: "{{user}}": braces that are no placeholder; write {name} or {name?}',
        ),
        (with_issue('request = "POST /{user?}"'), "issue[0].request: {user?} cannot be left out here"),
        (with_issue(ISSUE, 'basic = ["{user}", "{user?}"]'), "issue[0].basic: {user?} cannot be left out here"),
        (
            with_issue(ISSUE, 'errors = { 400 = "fatal" }'),
            'issue[0].errors.400: expected one of misconfigured, rejected, retry, done, found "fatal"',
        ),
        (
            with_issue(ISSUE, 'errors = { 404 = { "No such token" = "fatal" } }') + '\n[errors]\nreason = "message"',
            'issue[0].errors.404: expected one of misconfigured, rejected, retry, done, found "fatal"',
        ),
        (
            with_issue(ISSUE, 'errors = { 404 = { "No such token" = "rejected" } }'),
            "issue[0].errors.404: meanings by reason need an [errors] reason: where an answer has its text",
        ),
        (
            with_issue(ISSUE, 'errors = { 500 = "rejected" }'),
            'issue[0].errors: expected a status from 400 to 499 that does not mean "later" anyway, found "500"',
        ),
        (
            with_issue(ISSUE, 'errors = { 429 = "rejected" }'),
            'issue[0].errors: expected a status from 400 to 499 that does not mean "later" anyway, found "429"',
        ),
        (
            with_issue(ISSUE, 'errors = { 200 = "rejected" }'),
            'issue[0].errors: expected a status from 400 to 499 that does not mean "later" anyway, found "200"',
        ),
        (
            with_issue(ISSUE, 'errors = { "4xx" = "rejected" }'),
            'issue[0].errors: expected a status from 400 to 499 that does not mean "later" anyway, found "4xx"',
        ),
        (with_issue(ISSUE, answer_=""), 'issue[0].answer: say where the token is: access_token = "…"'),
        (with_issue(ISSUE, answer_="access_token = 5"), "answer.access_token: expected text or a table"),
        (
            with_issue(ISSUE, answer_='access_tokens = "t"'),
            "answer.access_tokens: unknown key; did you mean access_token?",
        ),
        (
            with_issue(ISSUE, answer_='access_token = { att = "t" }'),
            "answer.access_token.att: unknown key; did you mean at?",
        ),
        (
            with_issue(ISSUE, answer_='access_token = { id = "t" }'),
            "answer.access_token.at: this key is required and missing",
        ),
        (
            GOOD + '[renew]\nrequest = "POST /r"\nanswer = {}',
            'renew.answer: say where the token is: access_token = "…"',
        ),
        (GOOD + '[revoke]\ntoken = "x"', "revoke.token: unknown key; known here: access_token, refresh_token"),
        (
            GOOD + '[revoke.access_token]\nrequest = "POST /r/{token}"',
            "revoke.access_token.request: {token} is declared nowhere; known: ",
        ),
        (GOOD + "[errors]\nreasons = 5", "errors.reasons: unknown key; did you mean reason?"),
        (
            'present = "Authorization"\n' + GOOD,
            'present: expected a header line such as "Authorization: Bearer {access_token}", found "Authorization"',
        ),
        (
            'present = "X-Auth: {token}"\n' + GOOD,
            'present: expected a header line such as "Authorization: Bearer {access_token}", found "X-Auth: {token}"',
        ),
    ],
)
def test_a_mistake_in_a_recipe_is_found_when_it_is_read(text: str, message: str) -> None:
    assert error_of(text).startswith(message)


def test_an_undeclared_placeholder_is_told_what_is_declared() -> None:
    message = error_of(with_issue(ISSUE, 'form = { a = "{usr}" }'))
    known = "access_token, access_token.id, audience, refresh_token, refresh_token.id, resource, scope, user"
    assert message == f"issue[0].form: {{usr}} is declared nowhere; known: {known}"


TWO_EXPIRIES = '{ at = "t", expires_in = "e", expires_at = "f" }'

# What could be known when the file is read must not wait for the first renewal (DESIGN.md 4).


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (with_issue(ISSUE, 'headers = { X = "a\\r\\nY: b" }'), "issue[0].headers.X"),
        (with_issue('request = "POST /tökén"'), "issue[0].request"),
        (with_issue('request = "POST /a\\u0000b"'), "issue[0].request"),
        (with_issue('request = "POST /../admin"'), "issue[0].request"),
        (with_issue(ISSUE, answer_='access_token = ""'), "answer.access_token"),
        (with_issue(ISSUE, answer_="access_token = []"), "answer.access_token"),
        (with_issue(ISSUE, answer_='access_token = { at = "a..b" }'), "answer.access_token"),
        (with_issue(ISSUE, answer_='access_token = { at = "t", id = "header:" }'), "answer.access_token"),
        (with_issue(ISSUE, answer_=f"access_token = {TWO_EXPIRIES}"), "answer.access_token"),
        (GOOD + '[errors]\nreason = ""', "errors.reason"),
        # No answer ever names an id, so this revocation could never be sent.
        (GOOD + '[revoke.access_token]\nrequest = "POST /r/{access_token.id}"', "revoke.access_token.request"),
        (with_issue(ISSUE, 'basic = ["{user}", "x"]', 'headers = { authorization = "y" }'), "issue[0]"),
        ('present = "X Y: {access_token}"\n' + GOOD, "present"),
        ('present = "X: {access_token} {user}"\n' + GOOD, "present"),
    ],
    ids=[
        "a header with a line break", "a path that is not ASCII", "a path with a zero byte", "a path upwards",
        "an empty path", "no path", "a path with a hole", "no header name", "two expiries", "an empty reason",
        "an id that nobody gives", "two ways to authenticate", "a header name with a space", "a placeholder in present",
    ],
)  # fmt: skip
def test_a_mistake_that_could_be_found_early_is_not_left_to_the_first_renewal(text: str, key: str) -> None:
    assert error_of(text).startswith(key)


# What a grant may say


def test_a_credential_or_setting_that_the_recipe_does_not_know_is_refused() -> None:
    mine = dialect(GOOD)
    with pytest.raises(ConfigError, match=r"^credentials.usr: mine knows no such credential; known: user, password$"):
        mine.check(frozenset({"usr"}), {})
    with pytest.raises(ConfigError, match=r"^settings.tll: mine knows no such setting; known: ttl, tenant$"):
        mine.check(frozenset({"user", "password"}), {"tll": 5})
    mine.check(frozenset({"user", "password"}), {"ttl": 5, "scope": ["a"], "audience": "b", "resource": "c"})


def test_a_grant_that_could_never_get_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^credentials: mine cannot issue a token without password$"):
        dialect(GOOD).check(frozenset({"user"}), {})


# What the engine promises

RENEWABLE = (
    GOOD
    + """
[renew]
request = "POST /renew"
json    = { token = "{refresh_token}" }
"""
)


def test_a_placeholder_alone_keeps_its_type_and_in_text_it_is_text() -> None:
    mine = dialect(
        with_issue(
            ISSUE,
            'json = { list = "{scope}", text = "of {scope}", deep = { many = ["{user}", "x"] }, on = true, n = 5 }',
        )
    )
    found = sent(mine.issue(view({"user": "me"}, {"scope": ["a", "b"]}))).json
    assert found == {"list": ["a", "b"], "text": "of a b", "deep": {"many": ["me", "x"]}, "on": True, "n": 5}


def test_an_optional_placeholder_leaves_its_field_out_wherever_it_stands() -> None:
    mine = dialect(
        with_issue(
            ISSUE,
            'headers = { X-Scope = "{scope?}", X-User = "{user}" }',
            'query = { scope = "{scope?}" }',
            'json = { scope = "s {scope?}", deep = { scope = "{scope?}" }, list = ["{scope?}", "x"] }',
        )
    )
    request = sent(mine.issue(view({"user": "me"})))
    assert request.headers == {"X-User": "me", "Content-Type": "application/json"}
    assert request.request.url == f"{BASE}/token"
    assert request.json == {"deep": {}, "list": ["x"]}


def test_numbers_and_booleans_are_written_in_forms_as_in_json() -> None:
    text = with_issue(ISSUE, 'form = { ttl = "{ttl}", on = "{on}" }').replace(
        "[[issue]]", 'settings = ["ttl", "on"]\n[[issue]]'
    )
    assert sent(dialect(text, ttl=3_600, on=True).issue(view({"user": "me"}))).form == {"ttl": "3600", "on": "true"}


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
    assert "not in the provider's form: no" in words(found)
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
    assert mine.ability(seen).renew_spends is spends
    assert sent(mine.renew(seen)).request.spends is spends


def test_a_recipe_says_how_its_tokens_are_presented() -> None:
    assert dialect(GOOD).present("Bearer") == "Authorization: Bearer {access_token}"
    assert dialect('present = "X-Api-Key: {access_token}"\n' + GOOD).present("Bearer") == "X-Api-Key: {access_token}"


def test_a_revocation_needs_what_it_sends() -> None:
    text = GOOD + '[revoke.refresh_token]\nrequest = "DELETE /t/{refresh_token}"'
    seen = view({}, refresh="a/b")
    exchange = dialect(text).revoke(seen, Doomed(refresh_token=seen.refresh_token))
    assert exchange is not None
    assert sent(exchange).line == f"DELETE {BASE}/t/a%2Fb"
    assert dialect(text).revoke(view({}), Doomed(refresh_token=seen.refresh_token)) is None
    assert dialect(text).revoke(seen, Doomed(access_token=view({}, access="a").access_token)) is None


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from([".", "..", "/", "%2e", ""])


@given(anything, anything)
@example(".", ".")
def test_no_two_placeholders_of_one_segment_make_a_way_upwards(one: str, other: str) -> None:
    """ "." and "." are harmless alone; together they are a step up."""
    text = GOOD.replace('"POST /token"', '"POST /a/{user}{password}/b"')
    begun = begin(dialect(text).issue(view({"user": one, "password": other})))
    if isinstance(begun, Request):
        segments = begun.url.removeprefix(f"{BASE}/").split("/")
        assert len(segments) == 3
        assert segments[1] not in (".", "..")


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_path_placeholder_is_one_segment(value: str) -> None:
    if value in (".", ".."):
        with pytest.raises(template.MissingValue):
            template.fill_path("/a/{x}/b", {"x": value})
        return
    filled = template.fill_path("/a/{x}/b", {"x": value})
    assert filled.count("/") == 3
    assert not set(filled) & set("?#\\ \r\n")


def test_text_with_a_secret_in_it_is_a_secret_and_other_text_is_not() -> None:
    values = {"password": Secret("hunter2"), "user": "me"}
    assert template.fill("pass {password} of {user}", values) == Secret("pass hunter2 of me")
    assert template.fill("{user} and {user}", values) == "me and me"
    assert "hunter2" not in repr(template.fill({"a": ["x {password}"]}, values))


def test_a_missing_value_says_which() -> None:
    with pytest.raises(template.MissingValue, match="x has no value"):
        template.fill({"a": ["{x}"]}, {})
