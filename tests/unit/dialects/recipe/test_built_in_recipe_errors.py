# ix-api, occam, treezor and click2mail: what each error of their documents means, row by row.
from __future__ import annotations

from collections.abc import Callable

import pytest

from brokerd.core.exchange.outcomes import RetryLater
from brokerd.core.exchange.steps import Exchange, Request, Response
from tests.unit.dialects.exchange_driver import answer, begin, meaning, outcome, view, words
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
    TREEZOR,
    TREEZOR_CLIENT,
    TREEZOR_USER,
    auth_error,
    detail,
    problem,
    revoking,
)


def errors(status: int, code: str = "invalid_grant") -> Response:
    return answer(status, {"errors": [{"type": "t", "code": code, "message": "it says why", "docUrl": "https://x"}]})


VALIDATION = [{"loc": ["body", "password"], "msg": "it says why", "type": "value_error"}]

ROWS: dict[str, tuple[Callable[[], Exchange], Response, str]] = {
    "ix-api issue 400": (lambda: IX.issue(IX_GRANT), problem(400), "misconfigured"),
    "ix-api issue 401": (lambda: IX.issue(IX_GRANT), problem(401, "Authentication"), "misconfigured"),
    "ix-api issue 403": (lambda: IX.issue(IX_GRANT), problem(403), "misconfigured"),
    "ix-api issue 404": (lambda: IX.issue(IX_GRANT), problem(404), "strange"),
    "ix-api refresh 400": (lambda: IX.renew(IX_GRANT), problem(400), "rejected"),
    "ix-api refresh 401": (lambda: IX.renew(IX_GRANT), problem(401, "Authentication"), "rejected"),
    "ix-api refresh 403": (lambda: IX.renew(IX_GRANT), problem(403), "misconfigured"),
    "ix-api refresh 404": (lambda: IX.renew(IX_GRANT), problem(404), "strange"),
    "occam password 400": (lambda: OCCAM.issue(BY_PASSWORD), detail(400, "Invalid email or password"), "misconfigured"),
    "occam password 422": (lambda: OCCAM.issue(BY_PASSWORD), detail(422, VALIDATION), "misconfigured"),
    "occam key 400": (lambda: OCCAM.issue(BY_KEY), detail(400, "Invalid key"), "misconfigured"),
    "occam key 422": (lambda: OCCAM.issue(BY_KEY), detail(422, VALIDATION), "misconfigured"),
    "occam refresh 400": (
        lambda: OCCAM.renew(BY_PASSWORD),
        detail(400, "Refresh token expired or is already used"),
        "rejected",
    ),
    "occam refresh 404": (lambda: OCCAM.renew(BY_PASSWORD), detail(404, "Refresh token does not exist"), "rejected"),
    "occam refresh 404 of a wrong base_url": (
        lambda: OCCAM.renew(BY_PASSWORD),
        detail(404, "Not Found"),
        "strange",
    ),
    "occam refresh 422": (lambda: OCCAM.renew(BY_PASSWORD), detail(422, VALIDATION), "misconfigured"),
    "treezor issue 400": (lambda: TREEZOR.issue(TREEZOR_USER), errors(400), "misconfigured"),
    "treezor issue 401": (lambda: TREEZOR.issue(TREEZOR_USER), errors(401, "invalid_client"), "misconfigured"),
    "treezor issue 403": (lambda: TREEZOR.issue(TREEZOR_CLIENT), errors(403), "misconfigured"),
    "treezor refresh 400": (lambda: TREEZOR.renew(TREEZOR_USER), errors(400), "rejected"),
    "treezor refresh 401": (lambda: TREEZOR.renew(TREEZOR_USER), errors(401, "invalid_client"), "misconfigured"),
    "treezor errors with a 200": (lambda: TREEZOR.renew(TREEZOR_USER), errors(200), "unreadable"),
    "treezor errors with a 500": (lambda: TREEZOR.renew(TREEZOR_USER), errors(500), "failed"),
    "click2mail long 400": (lambda: CLICK2MAIL.issue(view(CLIENT)), auth_error(400), "misconfigured"),
    "click2mail long 401": (lambda: CLICK2MAIL.issue(view(CLIENT)), auth_error(401), "misconfigured"),
    "click2mail long 403": (lambda: CLICK2MAIL.issue(view(CLIENT)), auth_error(403), "misconfigured"),
    "click2mail long 429": (lambda: CLICK2MAIL.issue(view(CLIENT)), auth_error(429), "limited"),
    "click2mail rotation 401": (lambda: CLICK2MAIL.issue(LONG_AND_SHORT), auth_error(401), "misconfigured"),
    "click2mail rotation 403": (lambda: CLICK2MAIL.issue(LONG_AND_SHORT), auth_error(403), "misconfigured"),
    "click2mail short 400": (lambda: CLICK2MAIL.renew(LONG_ONLY), auth_error(400), "misconfigured"),
    "click2mail short 401": (lambda: CLICK2MAIL.renew(LONG_ONLY), auth_error(401), "rejected"),
    "click2mail short 429": (lambda: CLICK2MAIL.renew(LONG_ONLY), auth_error(429), "limited"),
    "click2mail revoke 204": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "access"), answer(204), "done"),
    "click2mail revoke 200": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "access"), answer(200, {}), "done"),
    "click2mail revoke 404": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "access"), auth_error(404), "done"),
    "click2mail revoke 401": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "access"), auth_error(401), "misconfigured"),
    "click2mail revoke 429": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "access"), auth_error(429), "limited"),
    "click2mail revoke long 204": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "refresh"), answer(204), "done"),
    "click2mail revoke long 404": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "refresh"), auth_error(404), "done"),
    # The long token cannot revoke itself any more: it is dead, which is what was wanted.
    "click2mail revoke long 401": (lambda: revoking(CLICK2MAIL, LONG_AND_SHORT, "refresh"), auth_error(401), "done"),
    # Statuses that no document names, in the provider's own form: nobody knows, so nothing dies.
    "a teapot": (lambda: OCCAM.renew(BY_PASSWORD), detail(418, "I am a teapot"), "strange"),
    "payment required": (lambda: CLICK2MAIL.renew(LONG_ONLY), auth_error(402), "strange"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_document_means(row: str) -> None:
    start, heard, means = ROWS[row]
    found = outcome(start(), heard)
    assert meaning(found) == means
    if means in ("rejected", "misconfigured"):
        assert str(heard.status) in words(found)
        assert any(
            said in words(found)
            for said in ("says why", "password", "key", "token", "validation", "Authent", "Not Found")
        )


@pytest.mark.parametrize("row", [row for row, (_, _, means) in ROWS.items() if means in ("rejected", "misconfigured")])
def test_a_row_without_the_words_of_the_provider_is_not_the_providers(row: str) -> None:
    start, heard, _ = ROWS[row]
    assert meaning(outcome(start(), answer(heard.status, b""))) == "silent"
    first = begin(start())
    assert isinstance(first, Request)
    for body in (b"{}", b"[]", b'"no"', b"<html>"):
        means = "silent" if first.password else "strange"  # it may be the password that is refused (law 7)
        assert meaning(outcome(start(), answer(heard.status, body))) == means


def test_a_429_says_how_long_it_takes() -> None:
    found = outcome(CLICK2MAIL.renew(LONG_ONLY), answer(429, {"code": "x", "message": "y"}, {"retry-after": "7"}))
    assert isinstance(found, RetryLater)
    assert found.after == 7.0
