# Recipe files: every kind of mistake is found when the file is read. The error names the key and what would be right.
from __future__ import annotations

import pytest

from brokerd.core.validation import ConfigError
from tests.unit.dialects.recipe.short_recipes import GOOD, ISSUE, dialect, read, with_issue


def error_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


REQUEST_FORM = 'expected a method and a path with one leading slash, such as "POST /token"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "issue: a recipe needs [[issue]] or [renew] to get a token; add one of them"),
        ('credentials = "user"', "credentials: expected an array, found text"),
        ("credentials = [5]", "credentials[0]: expected text, found a number"),
        ('credentails = ["user"]', "credentails: unknown key; did you mean credentials?"),
        (
            'credentials = ["access_token"]\n[[issue]]\nrequest = "POST /t"\n[answer]\naccess_token = "t"',
            "credentials: access_token is a name that brokerd uses itself; rename this credential or setting",
        ),
        (
            'credentials = ["key"]\nsettings = ["key"]\n[[issue]]\nrequest = "POST /t"\n[answer]\naccess_token = "t"',
            "credentials: key is a setting too, and settings are not secret; rename one of them",
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
            "issue[0].headers.Host: a recipe cannot set this header; remove it",
        ),
        (
            with_issue(ISSUE, 'headers = { content-length = "5" }'),
            "issue[0].headers.content-length: a recipe cannot set this header; remove it",
        ),
        (
            with_issue(ISSUE, 'headers = { "X: y" = "z" }'),
            "issue[0].headers.X: y: a recipe cannot set this header; remove it",
        ),
        (with_issue(ISSUE, "query = { a = 5 }"), "issue[0].query.a: expected text, found 5"),
        (with_issue(ISSUE, "form = { a = 5 }"), "issue[0].form.a: expected text, found 5"),
        (
            with_issue(ISSUE, 'form = { a = "b" }', 'json = { a = "b" }'),
            "issue[0]: expected at most one of json, form and multipart, found json and form",
        ),
        (
            with_issue(ISSUE, 'basic = ["{user}"]'),
            "issue[0].basic: expected an array of two: user name and password, found an array",
        ),
        (
            with_issue(ISSUE, 'form = { a = "{usr}" }'),
            "issue[0].form: {usr} is no credential or setting of this recipe; known: ",
        ),
        (
            with_issue(ISSUE, 'json = { a = { b = ["{usr}"] } }'),
            "issue[0].json: {usr} is no credential or setting of this recipe; known: ",
        ),
        (
            with_issue(ISSUE, 'headers = { X = "{usr}" }'),
            "issue[0].headers: {usr} is no credential or setting of this recipe; known: ",
        ),
        (
            with_issue('request = "POST /{usr}"'),
            "issue[0].request: {usr} is no credential or setting of this recipe; known: ",
        ),
        (
            with_issue(ISSUE, 'form = { a = "{User}" }'),
            'issue[0].form: "{User}": these braces are not a placeholder; write {name} or {name?}',
        ),
        (
            with_issue(ISSUE, 'form = { a = "{user" }'),
            'issue[0].form: "{user": these braces are not a placeholder; write {name} or {name?}',
        ),
        (
            with_issue(ISSUE, 'form = { a = "{{user}}" }'),
            'issue[0].form: "{{user}}": these braces are not a placeholder; write {name} or {name?}',
        ),
        (
            with_issue('request = "POST /{user?}"'),
            "issue[0].request: {user?} may be left out, which is not possible here; write {user}",
        ),
        (
            with_issue(ISSUE, 'basic = ["{user}", "{user?}"]'),
            "issue[0].basic: {user?} may be left out, which is not possible here; write {user}",
        ),
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
            "issue[0].errors.404: a meaning for each reason needs [errors] reason: where an answer has its text",
        ),
        (
            with_issue(ISSUE, 'errors = { 500 = "rejected" }'),
            'issue[0].errors: expected a status from 400 to 499 that does not always mean "later", found "500"',
        ),
        (
            with_issue(ISSUE, 'errors = { 429 = "rejected" }'),
            'issue[0].errors: expected a status from 400 to 499 that does not always mean "later", found "429"',
        ),
        (
            with_issue(ISSUE, 'errors = { 200 = "rejected" }'),
            'issue[0].errors: expected a status from 400 to 499 that does not always mean "later", found "200"',
        ),
        (
            with_issue(ISSUE, 'errors = { "4xx" = "rejected" }'),
            'issue[0].errors: expected a status from 400 to 499 that does not always mean "later", found "4xx"',
        ),
        (with_issue(ISSUE, answer_=""), 'issue[0].answer: write where the token is in the answer: access_token = "…"'),
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
            "answer.access_token: write where the token is in the answer (at), or kept = true if it stays the same; "
            "one of them",
        ),
        (
            GOOD + '[renew]\nrequest = "POST /r"\nanswer = {}',
            'renew.answer: write where the token is in the answer: access_token = "…"',
        ),
        (GOOD + '[revoke]\ntoken = "x"', "revoke.token: unknown key; known here: access_token, refresh_token"),
        (
            GOOD + '[revoke.access_token]\nrequest = "POST /r/{token}"',
            "revoke.access_token.request: {token} is no credential or setting of this recipe; known: ",
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
    assert message == f"issue[0].form: {{usr}} is no credential or setting of this recipe; known: {known}"


TWO_EXPIRIES = '{ at = "t", expires_in = "e", expires_at = "f" }'


# A mistake that can be seen when the file is read must not wait for the first renewal.
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
    with pytest.raises(
        ConfigError, match=r"^credentials.usr: recipe mine has no such credential; it has: user, password$"
    ):
        mine.check(frozenset({"usr"}), {})
    with pytest.raises(ConfigError, match=r"^credentials.ttl: .*; ttl is a setting: write settings.ttl$"):
        mine.check(frozenset({"ttl"}), {})
    with pytest.raises(ConfigError, match=r"^settings.tll: recipe mine has no such setting; it has: ttl, tenant$"):
        mine.check(frozenset({"user", "password"}), {"tll": 5})
    mine.check(frozenset({"user", "password"}), {"ttl": 5, "scope": ["a"], "audience": "b", "resource": "c"})


def test_a_grant_that_could_never_get_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^credentials: recipe mine cannot get a token without password; add it$"):
        dialect(GOOD).check(frozenset({"user"}), {})


def test_a_lacking_setting_is_named_as_one_also_where_renewal_can_only_extend() -> None:
    lease = 'answer.access_token = { kept = true, expires_in = "ttl" }'
    text = f"""credentials = ["token"]
settings = ["role"]
[[issue]]
request = "GET /creds/{{role}}"
headers = {{ X-Token = "{{token}}" }}
[renew]
request = "PUT /renew"
json = {{ lease = "{{refresh_token}}" }}
{lease}
[answer]
access_token = "password"
refresh_token = "lease"
"""
    with pytest.raises(ConfigError, match=r"cannot get a token without settings.role; add it$"):
        dialect(text).check(frozenset({"token"}), {})


@pytest.mark.parametrize(
    ("answer_", "message"),
    [
        ('access_token = "t"\nrefresh_token = "r"\nfields = { x = "r" }', "answer.fields.x: r holds the refresh token"),
        (
            'access_token = "t"\nrefresh_token = "d.r"\nfields = { x = ["a", "d"] }',
            "answer.fields.x: d holds the refresh",
        ),
        (
            'access_token = "t"\nrefresh_token = { at = "d.r" }\nfields = { x = "d" }',
            "answer.fields.x: d holds the refre",
        ),
        ('access_token = "t"\nfields = { refresh_token = "x" }', "answer.fields: refresh_token: remove it"),
        (
            'refresh_token = "t"\nfields = { x = "x" }',
            "answer.fields: fields belong to an access token; write access_to",
        ),
        ('access_token = "t"\nfields = { x = "a..b" }', 'answer.fields.x: expected a path such as "data.token"'),
        ('access_token = "t"\nfields = { "x y" = "a" }', "answer.fields: expected names of letters, digits, dots"),
        ('access_token = "t"\nfields = ["x"]', "answer.fields: expected a table, found an array"),
    ],
)
def test_no_field_hands_out_the_refresh_token(answer_: str, message: str) -> None:
    assert error_of(with_issue(ISSUE, answer_=answer_)).startswith(message)


def test_a_field_beside_the_refresh_token_is_none_of_it() -> None:
    one = 'access_token = { at = "a.t" }\nrefresh_token = "a.t"\nfields = { all = "a" }'  # the token is both
    other = 'access_token = "t"\nrefresh_token = "d.refresh"\nfields = { x = "d.ref", y = "d.refresh_in" }'
    for each in (one, other):
        assert read(with_issue(ISSUE, answer_=each)).issue[0].answer.fields


LEASE = """
credentials = ["token"]
[[issue]]
request = "GET /creds"
headers = { T = "{token}" }
[renew]
request = "PUT /renew"
json = { lease = "{refresh_token}" }
answer.access_token = { kept = true, expires_in = "seconds" }
[answer]
access_token = { at = "password", expires_in = "seconds" }
refresh_token = "lease"
"""
KEPT = '{ kept = true, expires_in = "seconds" }'


def test_a_renewal_may_say_that_the_token_is_kept() -> None:
    renew = read(LEASE).renew
    assert renew is not None
    assert renew.extends
    assert "access_token" in renew.needs
    assert not renew.sends_stored


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (KEPT, '{ expires_in = "seconds" }', "renew.answer.access_token: write where the token is in the answer (at)"),
        (KEPT, '{ kept = true, at = "t", expires_in = "seconds" }', "renew.answer.access_token: write where"),
        (KEPT, "{ kept = true }", "renew.answer.access_token: a token is kept to live on; write where the answer says"),
        (
            'access_token = { at = "password", expires_in = "seconds" }',
            f"access_token = {KEPT}",
            "issue[0].answer.access_token.kept: only the answer to [renew] can keep the token",
        ),
        (
            'refresh_token = "lease"',
            f"refresh_token = {KEPT}",
            "issue[0].answer.refresh_token.kept: an answer without a refresh token keeps the present one anyway",
        ),
    ],
)
def test_what_cannot_be_kept_is_a_mistake(old: str, new: str, message: str) -> None:
    assert old in LEASE
    assert error_of(LEASE.replace(old, new)).startswith(message)
