# Whatever configuration passes its check, and whatever a server answers: every exchange ends in an outcome, never in an
# error of our own (law 12).
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from brokerd.core.exchange.outcomes import (
    Declined,
    Done,
    Issued,
    Misconfigured,
    Outcome,
    Rejected,
    RetryLater,
    Unsupported,
)
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.steps import Answer, Ask, Discover, Exchange, Request, Response
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.client_auth import METHODS, ClientAssertion
from brokerd.dialects.oauth2.dialect import OAuth2
from brokerd.dialects.oauth2.grant_types import GRANT_TYPES, SUBJECT_GRANT, Assertion, Subject, with_uris
from tests.unit.dialects.exchange_driver import NOW, answer, http_date, view
from tests.unit.dialects.oauth2.configured_grants import DOCUMENTS, SERVERS, VALUES

ANSWERS = [
    answer(200, {"access_token": "a", "token_type": "Bearer"}),
    answer(400, {"error": "invalid_dpop_proof"}, {"date": http_date(NOW.wall - 90)}),
    answer(401, {"error": "invalid_client"}),
    answer(200, [None]),
]

OUTCOMES = (Issued, Done, Unsupported, Rejected, Misconfigured, Declined, RetryLater)


def configurations(server: OAuth2) -> Iterator[GrantView]:
    """Every grant of some keys that passes the check."""
    kinds = (
        *("client_id", "client_secret", "private_key", "client_assertion", "username", "password"),
        *("assertion", "subject_token"),
    )
    owned = [frozenset(each) for size in range(5) for each in itertools.combinations(kinds, size)]
    more: dict[str, list[dict[str, object]]] = {
        "jwt_bearer": [{"assertion": Assertion("me", "you")}],
        "token_exchange": [{"subject": with_uris(Subject())}, {"subject": with_uris(Subject("other"))}],
    }
    for name, method, credentials in itertools.product(GRANT_TYPES, ("auto", *METHODS), owned):
        audiences = ("", "issuer", "token_url", "endpoint") if method == "auto" or method.endswith("_jwt") else ("",)
        for extra, audience in itertools.product(more.get(name, [{}]), audiences):
            assertion = ClientAssertion(audience)
            settings = {"grant_type": name, "client_auth": method, "client_assertion": assertion, **extra}
            try:
                server.check(credentials, settings)
            except ConfigError:
                continue
            used = {each: VALUES[each] for each in credentials}
            if (subject := settings.get("subject")) and subject.grant:
                used[SUBJECT_GRANT] = "token-of-another"
            yield view(used, settings, access="access-1", refresh="refresh-1")


def ended(exchange: Exchange, document: Metadata, response: Response) -> Outcome:
    """Answer every question in the same way. The number of steps is bounded: a login asks for a code until it ends."""
    given: Answer = None
    for _ in range(20):
        try:
            step = exchange.send(given)
        except StopIteration as stop:
            found: Outcome = stop.value
            return found
        match step:
            case Request():
                given = response
            case Discover():
                given = document
            case Ask():
                given = {"password": Secret("p"), "port": Secret("5"), "state": Secret("s"), "code": Secret("c")}
            case _:
                given = None
    raise AssertionError("an exchange without an end")


@pytest.mark.parametrize("server", SERVERS[:2], ids=["token_url", "issuer"])
def test_no_configuration_that_passes_its_check_ends_in_an_error_of_ours(server: OAuth2) -> None:
    number = 0
    for grant in configurations(server):
        number += 1
        ability = server.ability(grant)
        told = server.revoke(grant, PendingRevocation(refresh_token=grant.refresh_token)) is not None
        starts: list[Callable[[], Any]] = [partial(server.renew, grant)]
        starts += [partial(server.issue, grant)] * ability.issue + [partial(server.login, grant)] * ability.login
        starts += [partial(server.revoke, grant, PendingRevocation(refresh_token=grant.refresh_token))] * told
        for start, (document, response) in itertools.product(starts, zip(DOCUMENTS, ANSWERS, strict=True)):
            assert isinstance(ended(start(), document, response), OUTCOMES)
    assert number > 50
