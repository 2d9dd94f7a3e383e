# Grants at an OAuth 2.0 server, for the tests of the dialect.
from __future__ import annotations

import base64
from urllib.parse import unquote_plus

from brokerd.core.exchange.steps import Request
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.dialect import OAuth2
from tests.unit.dialects.exchange_driver import view

TOKEN_URL, REVOCATION_URL = "https://idp.example/oauth/token", "https://idp.example/oauth/revoke"

IDP = OAuth2(TOKEN_URL, REVOCATION_URL)

PASSWORD = "pä ss&word=+/%41\"'"


def grant(
    grant_type: str = "client_credentials",
    client_auth: str = "client_secret_basic",
    *,
    client_id: str = "client-1",
    secret: str = "secret-of-client-1",
    **settings: object,
) -> GrantView:
    credentials = {"client_id": client_id}
    if client_auth != "none":
        credentials["client_secret"] = secret
    if grant_type == "password":
        credentials |= {"username": "user-1", "password": PASSWORD}
    wanted = {"grant_type": grant_type, "client_auth": client_auth, **settings}
    return view(credentials, wanted, access="access-1", refresh="refresh-1")


GRANT = grant()


def basic(request: Request) -> tuple[str, str]:
    """Id and secret, decoded as RFC 6749 §2.3.1 has it."""
    scheme, _, encoded = dict(request.headers)["Authorization"].partition(" ")
    assert scheme == "Basic"
    name, _, secret = base64.b64decode(encoded, validate=True).decode("ascii").partition(":")
    return unquote_plus(name), unquote_plus(secret)
