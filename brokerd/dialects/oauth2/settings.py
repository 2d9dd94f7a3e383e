# What a configuration file says of an oauth2 grant beyond its credentials, as the values that the dialect works with.
# Whether they fit together is the dialect's own check.
from __future__ import annotations

from typing import Any

import msgspec

from brokerd.core.duration import Duration
from brokerd.core.signing import ALGORITHMS
from brokerd.core.typed import expected
from brokerd.dialects.oauth2.client_auth import ClientAssertion
from brokerd.dialects.oauth2.grant_types import TOKEN_TYPE, Assertion, Subject, Variants

TOKEN_TYPES = ("access_token", "refresh_token", "id_token", "saml1", "saml2", "jwt")  # RFC 8693 §3


class AssertionFile(msgspec.Struct, forbid_unknown_fields=True):
    issuer: str
    audience: str
    subject: str | None = None
    algorithm: str | None = None
    key_id: str | None = None
    lifetime: Duration = Duration(300.0)
    claims: dict[str, Any] = {}


class ClientAssertionFile(msgspec.Struct, forbid_unknown_fields=True):
    audience: str = ""
    algorithm: str | None = None
    key_id: str | None = None


class SubjectFile(msgspec.Struct, forbid_unknown_fields=True):
    grant: str | None = None
    token_type: str | None = None
    actor_token_type: str = "jwt"  # noqa: S105 - RFC 8693 §3, a name
    requested_token_type: str | None = None


class VariantsFile(msgspec.Struct, forbid_unknown_fields=True):
    exchange: bool = False
    audience: list[str] = []
    resource: list[str] = []


def assertion(table: AssertionFile) -> Assertion:
    _check_algorithm(table.algorithm, "assertion.algorithm")
    if not 1 <= table.lifetime <= 3_600:
        raise expected("a duration from a second to an hour", float(table.lifetime), key="assertion.lifetime")
    return Assertion(
        table.issuer,
        table.audience,
        table.subject,
        table.algorithm,
        table.key_id,
        float(table.lifetime),
        table.claims,
    )


def client_assertion(table: ClientAssertionFile) -> ClientAssertion:
    _check_algorithm(table.algorithm, "client_assertion.algorithm")
    return ClientAssertion(table.audience, table.algorithm, table.key_id)


def variants(table: VariantsFile) -> Variants:
    return Variants(table.exchange, tuple(table.audience), tuple(table.resource))


def subject(table: SubjectFile) -> Subject:
    given = table.token_type or ("access_token" if table.grant else "jwt")
    wanted = table.requested_token_type
    return Subject(
        table.grant,
        _token_type(given, "subject.token_type"),
        _token_type(table.actor_token_type, "subject.actor_token_type"),
        _token_type(wanted, "subject.requested_token_type") if wanted else None,
    )


def _token_type(name: str, key: str) -> str:
    if ":" in name:  # a URI of the server's own
        return name
    if name not in TOKEN_TYPES:
        raise expected(f"one of {', '.join(TOKEN_TYPES)}, or a URI", name, key=key)
    return TOKEN_TYPE + name


def _check_algorithm(name: str | None, key: str) -> None:
    if name is not None and name not in ALGORITHMS:
        raise expected(f"one of {', '.join(ALGORITHMS)}", name, key=key)
