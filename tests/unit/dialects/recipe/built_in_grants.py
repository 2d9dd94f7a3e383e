# Grants of ix-api, occam, treezor and click2mail, for the tests of these recipes.
from __future__ import annotations

from brokerd.core.exchange.outcomes import Issued, Tokens
from brokerd.core.exchange.steps import Exchange, Response
from brokerd.core.grant.record import PendingRevocation
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.recipe.dialect import RecipeDialect
from tests.unit.dialects.exchange_driver import answer, outcome, recipe, view

IX, OCCAM, TREEZOR, CLICK2MAIL = map(recipe, ("ix-api", "occam", "treezor", "click2mail"))

PASSWORD = "pä ss&word=+/%41\"'"

TWO = {"access": "access-1", "refresh": "refresh-1"}

IX_GRANT = view({"api_key": "key-1", "api_secret": "secret-1"}, **TWO)

BY_PASSWORD = view({"username": "me@occam.example", "password": PASSWORD}, **TWO)

BY_KEY = view({"key": "key-1/+=&"})

CLIENT = {"client_id": "client-1", "client_secret": "secret-1"}

TREEZOR_CLIENT = view(CLIENT, **TWO)

TREEZOR_USER = view({**CLIENT, "username": "user-1", "password": PASSWORD}, {"scope": ["read", "write"]}, **TWO)

LONG_ONLY = view(CLIENT, refresh="long-1", refresh_id="tok_2")

LONG_AND_SHORT = view(CLIENT, access="short-1", refresh="long-1", access_id="tok_1", refresh_id="tok_2")


def tokens_of(exchange: Exchange, heard: Response) -> Tokens:
    found = outcome(exchange, heard)
    assert isinstance(found, Issued), found
    return found.tokens


def revoking(dialect: RecipeDialect, seen: GrantView, kind: str) -> Exchange:
    doomed = (
        PendingRevocation(access_token=seen.access_token)
        if kind == "access"
        else PendingRevocation(refresh_token=seen.refresh_token)
    )
    exchange = dialect.revoke(seen, doomed)
    assert exchange is not None
    return exchange


# What comes, row by row
def problem(status: int, title: str = "Some fields have validation errors.") -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": "it says why", "instance": "/"}
    return answer(status, body, {"content-type": "application/problem+json"})


def detail(status: int, text: object) -> Response:
    return answer(status, {"detail": text})


def auth_error(status: int, message: str = "it says why") -> Response:
    return answer(status, {"code": "invalid_token", "message": message})
