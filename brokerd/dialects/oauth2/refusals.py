# How real servers write the refusals of RFC 6749 §5.2: where the code stands, how it is spelled, and which words mean
# that a refresh token is dead. Two tables; each row names where the form was seen.
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from brokerd.core.exchange.steps import Response
from brokerd.dialects import answer_body

# The codes of the protocol: RFC 6749 §5.2, and what the IANA registry has for the token endpoint besides.
CODES = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"),
        *("invalid_scope", "access_denied", "server_error", "temporarily_unavailable"),
        *("authorization_pending", "slow_down", "expired_token"),  # RFC 8628 §3.5
        *("unsupported_token_type", "invalid_target", "use_dpop_nonce", "invalid_dpop_proof"),  # RFC 7009, 8707, 9449
        *("invalid_redirect_uri", "invalid_client_metadata", "unapproved_software_statement"),  # RFC 7591 §3.2.2
        *("interaction_required", "login_required", "consent_required"),  # OpenID Connect Core 1.0 §3.1.2.6
        *("invalid_request_object", "request_not_supported", "request_uri_not_supported", "invalid_request_uri"),
    }
)
LONGEST_DESCRIPTION = 2_000  # characters that are looked at: a search takes 400 ms for a megabyte
STATUSES = (400, 401)  # of a refusal (§5.2); and 2xx, with which many servers answer errors

# Where the code stands.
PLACES = (
    ("error",),  # §5.2
    ("error", "code"),  # an issue report, no public source found
    ("error", "type"),  # an issue report, no public source found
    ("errors", 0, "errorType"),  # Fitbit: github.com/aarondcoleman/Fitbit.NET/issues/320
    ("errorCode",),  # Okta: github.com/freizl/hoauth2/issues/215
)

# Where its description stands, in the same servers.
WORDS = (
    *(("error_description",), ("error", "message"), ("errors", 0, "message"), ("message",), ("hint",)),
    ("errorSummary",),
)


@dataclass(frozen=True, slots=True)
class Dead:
    """Words that mean "this refresh token is dead", in answer to one. `status`: only with this; `described`: only where
    the description says so."""

    code: str
    source: str
    status: int | None = None
    described: re.Pattern[str] | None = None


SAYS_DEAD = re.compile(
    r"""(?:invalid|expired|revoked|unknown)\ ["']?refresh[ _]?token\b
    |refresh[ _]?token["']?\ (?:(?:is|was|has|been|not|already|no|longer|or)\ )*
        (?:invalid|expired|revoked|incorrect|unknown|valid|found)\b""",
    re.IGNORECASE | re.VERBOSE,
)
DEAD = (
    Dead("invalid_grant", "RFC 6749 §5.2"),
    Dead("invalid_grant", "Auth0 answers 403: github.com/auth0/Auth0.Android/issues/334", status=403),
    Dead("bad_refresh_token", "GitHub, with 200: github.com/interlink-hq/interLink/pull/262"),
    Dead("invalid_refresh_token", "Slack, with 200: github.com/slackapi/python-slack-sdk/issues/1242"),
    Dead("invalid_token", "Spring Security OAuth, UAA: github.com/spring-attic/spring-security-oauth/issues/1009"),
    Dead("interaction_required", "Entra: github.com/AzureAD/azure-activedirectory-library-for-nodejs/issues/151"),
    Dead("login_required", "OpenID Connect Core 1.0 §3.1.2.6; as interaction_required"),
    Dead("consent_required", "OpenID Connect Core 1.0 §3.1.2.6; as interaction_required"),
    Dead(
        "invalid_request",
        "github.com/authlib/authlib/issues/112, thephpleague/oauth2-server/issues/993",
        None,
        SAYS_DEAD,
    ),
)


@dataclass(frozen=True, slots=True)
class OAuthRefusal:
    """What an answer refuses with. `code` as the protocol writes it, None if the protocol has no such code; `written`
    as the provider wrote it."""

    code: str | None
    written: str
    description: str | None


def read(response: Response, *, refreshing: bool = False, any_status: bool = False) -> OAuthRefusal | None:
    """The refusal in an answer; None if it has no error code. `refreshing`: the request sent a refresh token.
    `any_status`: for logins, which can end no grant; Google's device login answers 403 and 428."""
    found = answer_body.plain(response)
    written = next((code for place in PLACES if (code := _at(found, place))), None) if found else None
    if found is None or written is None:
        return None
    described = _described(found)
    spelled = _spelled(written)
    counts = any_status or response.status in STATUSES or 200 <= response.status < 300
    if refreshing and any(_matches(row, spelled, described, response.status, counts=counts) for row in DEAD):
        return OAuthRefusal("invalid_grant", written, described)
    return OAuthRefusal(spelled if counts and spelled in CODES else None, written, described)


def _spelled(written: str) -> str:
    """A code in capitals (cyberduck/pull/12678), or with its description behind a colon, is that code."""
    return written.partition(":")[0].strip().lower()


def _matches(row: Dead, code: str, described: str | None, status: int, *, counts: bool) -> bool:
    if row.code != code or not (counts if row.status is None else status == row.status):
        return False
    return row.described is None or bool(described and row.described.search(described))


def _at(found: object, place: tuple[str | int, ...]) -> str | None:
    for step in place:
        if isinstance(step, str) and isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(step, int) and isinstance(found, list) and step < len(found):
            found = found[step]
        else:
            return None
    return found if isinstance(found, str) and found else None


def _described(found: Mapping[str, object]) -> str | None:
    said = [text for place in WORDS if (text := _at(found, place))]
    return ": ".join(said)[:LONGEST_DESCRIPTION] or None
