# What every login by a person has in common: what it needs from the server, and how it ends. Also the login by password
# (RFC 6749 §4.3). device_login.py and browser_login.py have the others.
from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Protocol

from brokerd.core.exchange.outcomes import Cause, Issued, Misconfigured, Outcome, Rejected, RetryLater
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.steps import Answer, Exchange, Step, Unanswered, asked
from brokerd.core.secret import Secret
from brokerd.dialects import answer_body, answer_fields
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2 import id_token, request_fields
from brokerd.dialects.oauth2.outcomes import LOGIN_ERRORS, Reply, tokens


class AuthorizationServer(Protocol):
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
        sends_stored: bool = False,
        patient: bool = False,
    ) -> Generator[Step, Answer, Reply | Misconfigured]: ...

    def authorization_endpoint(self, view: GrantView) -> Generator[Step, Answer, str | Misconfigured]: ...

    def metadata(self) -> Generator[Step, Answer, Metadata | None]: ...


def with_password(server: AuthorizationServer, view: GrantView, requested: Mapping[str, str]) -> Exchange:
    """The password is sent once and not kept (RFC 6749 §4.3.2)."""
    username = view.credentials["username"].reveal()
    secret = (yield from asked("password", {"username": username})).get("password", Secret(""))
    if not secret:
        return Rejected("login: no password was given; nothing was sent")
    fields = {"grant_type": "password", "username": username, "password": secret.reveal(), **requested}
    fields = request_fields.fields(view, "issue") | fields
    reply = yield from server.post("token_endpoint", view, fields, secrets=(secret,), sends_stored=True)
    return finished(server, view, reply, "password")


def finished(
    server: AuthorizationServer, view: GrantView, reply: Reply | Misconfigured, what: str, nonce: str | None = None
) -> Outcome:
    """What the token endpoint's answer means, and who logged in."""
    if isinstance(reply, Misconfigured):
        return reply
    if isinstance(reply.response, Unanswered):
        return RetryLater(f"{what}: {reply.response.reason}", Cause.UNANSWERED)
    response = reply.response
    wanted = answer_fields.wanted(view, answer_fields.named(view.settings))
    found = tokens(response, what, LOGIN_ERRORS, reply.request, wanted)
    if not isinstance(found, Issued):
        return found
    client_id = view.credentials["client_id"].reveal() if "client_id" in view.credentials else ""
    try:
        who = id_token.subject(
            (answer_body.plain(response) or answer_body.wrapped(response) or {}).get("id_token"),
            issuer=server.issuer,
            client_id=client_id,
            nonce=nonce,
            now=response.at.wall,
        )
    except id_token.NotOurs as error:
        return Rejected(f"{what}: the id_token is not for this login ({error}); nothing has changed; log in again")
    return Issued(replace(found.tokens, subject=who))
