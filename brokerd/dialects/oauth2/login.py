# What every login by a person has in common: what it needs of the server, and how it ends; and the shortest of them,
# the password that is asked for (RFC 6749 §4.3). The device's and the browser's way lie beside.
from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Protocol

from brokerd.core.exchange import Answer, Exchange, Step, Unanswered, asked
from brokerd.core.metadata import Metadata
from brokerd.core.outcome import Cause, Issued, Misconfigured, Outcome, Rejected, RetryLater
from brokerd.core.secret import Secret
from brokerd.dialects import body
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2 import added, id_token
from brokerd.dialects.oauth2.answers import LOGIN_ERRORS, Heard, tokens


class Server(Protocol):
    """An authorization server with the client's authentication at it."""

    @property
    def issuer(self) -> str | None: ...

    def post(
        self,
        endpoint: str,
        view: GrantView,
        fields: Mapping[str, str],
        *,
        secrets: tuple[Secret, ...] = (),
        spends: bool = False,
        patient: bool = False,
    ) -> Generator[Step, Answer, Heard | Misconfigured]: ...

    def authorization_endpoint(self, view: GrantView) -> Generator[Step, Answer, str | Misconfigured]: ...

    def metadata(self) -> Generator[Step, Answer, Metadata | None]: ...


def password(server: Server, view: GrantView, wanted: Mapping[str, str]) -> Exchange:
    """Asked for, sent once, and gone (RFC 6749 §4.3.2)."""
    username = view.credentials["username"].reveal()
    secret = (yield from asked("password", {"username": username})).get("password", Secret(""))
    if not secret:
        return Rejected("login: no password was given")
    fields = {"grant_type": "password", "username": username, "password": secret.reveal(), **wanted}
    fields = added.fields(view, "issue") | fields
    heard = yield from server.post("token_endpoint", view, fields, secrets=(secret,), spends=True)
    return finished(server, view, heard, "password")


def finished(
    server: Server, view: GrantView, heard: Heard | Misconfigured, what: str, nonce: str | None = None
) -> Outcome:
    """What the token endpoint's answer means, and who it was that logged in."""
    if isinstance(heard, Misconfigured):
        return heard
    if isinstance(heard.response, Unanswered):
        return RetryLater(f"{what}: {heard.response.reason}", Cause.UNANSWERED)
    response = heard.response
    found = tokens(response, what, LOGIN_ERRORS, heard.request)
    if not isinstance(found, Issued):
        return found
    client_id = view.credentials["client_id"].reveal() if "client_id" in view.credentials else ""
    try:
        who = id_token.subject(
            (body.plain(response) or body.wrapped(response) or {}).get("id_token"),
            issuer=server.issuer,
            client_id=client_id,
            nonce=nonce,
            now=response.at.wall,
        )
    except id_token.NotOurs as error:
        return Rejected(f"{what}: the id_token is not for this login: {error}; nothing has changed")
    return Issued(replace(found.tokens, subject=who))
