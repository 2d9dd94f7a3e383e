# Client authentication: RFC 6749 §2.3.1, RFC 7523 §2.2 (assertions that brokerd or others signed), RFC 8705 §2 (mutual
# TLS), or none.
from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from urllib.parse import quote_plus, urlencode

import msgspec

from brokerd.core.exchange.algorithms import ALGORITHMS
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.signing import check_key, default_algorithm
from brokerd.core.exchange.steps import Request
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError, check_one_of
from brokerd.dialects import answer_fields
from brokerd.dialects.dialect import GrantView
from brokerd.dialects.oauth2.signed_by_others import signed_by_others

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SPIFFE_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"  # draft-ietf-oauth-spiffe-client-auth
ASSERTED = "client_assertion"  # the credential: an assertion that others signed, such as the kubelet
METHODS: Mapping[str, str | None] = {  # method: the credential that it needs besides the client_id
    "client_secret_basic": "client_secret",
    "client_secret_basic_raw": "client_secret",  # not form-encoded first, for servers that do not decode
    "client_secret_post": "client_secret",
    "client_secret_jwt": "client_secret",
    "private_key_jwt": "private_key",
    "client_assertion": ASSERTED,
    "spiffe_jwt": ASSERTED,
    "tls_client_auth": None,
    "self_signed_tls_client_auth": None,
    "none": None,
}
TYPES = {"client_assertion": ASSERTION_TYPE, "spiffe_jwt": SPIFFE_TYPE}
TLS = ("tls_client_auth", "self_signed_tls_client_auth")
SECRET_METHODS = ("client_secret_basic", "client_secret_post", "client_secret_jwt")  # best first
ENDPOINT = "endpoint"  # as an audience: the URL that the assertion is sent to


class ClientAssertion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the client signs assertions, as configured. `audience` is the configured issuer or token URL, the
    endpoint that the request goes to, or what an operator wrote; never another URL from metadata: a hostile server
    could so get assertions that another server accepts."""

    audience: str = ""
    algorithm: str | None = None
    key_id: str | None = None


def chosen(method: str, credentials: Mapping[str, Secret], metadata: Metadata | None) -> str:
    """The method for `auto`: the best that the credentials allow and the server offers."""
    if method != "auto":
        return method
    if "client_id" not in credentials:  # a private_key then signs the grant's own assertion
        return "none"
    if ASSERTED in credentials:
        return "client_assertion"
    if "private_key" in credentials:
        return "private_key_jwt"
    if "client_secret" not in credentials:
        return "none"
    offered = metadata.auth_methods if metadata else SECRET_METHODS
    return next((each for each in SECRET_METHODS if each in offered), "client_secret_basic")


def second(first: str, credentials: Mapping[str, Secret], named: Sequence[str]) -> str | None:
    """Another method that an endpoint's own metadata names and the credentials allow; None where there is none."""
    if "client_id" not in credentials:
        return None
    usable = (each for each in named if each in METHODS and each not in TLS and each != first)
    return next((each for each in usable if (METHODS[each] or "client_id") in credentials), None)


def check(
    method: str, credentials: frozenset[str], assertion: ClientAssertion, *, has_certificate: bool
) -> frozenset[str]:
    """The credentials that the method uses. Raises ConfigError."""
    check_one_of(assertion.algorithm or ALGORITHMS[0], ALGORITHMS, "client_assertion.algorithm")
    if method == "auto":
        return frozenset({"client_id", *({"client_secret", "private_key", ASSERTED} & credentials)})
    if method in TLS and not has_certificate:
        raise ConfigError(f"{method} needs the provider's cert_file and key_file (RFC 8705 §2)", key="client_auth")
    needed = METHODS[method]
    return frozenset({"client_id", *((needed,) if needed else ())})


def authenticated(
    url: str,
    view: GrantView,
    fields: Mapping[str, str],
    method: str,
    assertion: ClientAssertion,
    *,
    headers: Sequence[tuple[str, str]] = (),
    secrets: Sequence[Secret] = (),
    sends_stored: bool = False,
    guarded: bool = False,
) -> Request:
    """A form with the client's authentication. Raises UnusableKey and UnusableToken."""
    sent = [*(secret for name, secret in view.credentials.items() if name != "client_id"), *secrets]
    sent += [token.value for token in (view.access_token, view.refresh_token) if token]
    head = [("Accept", "application/json"), ("Content-Type", "application/x-www-form-urlencoded"), *headers]
    client_id = view.credentials["client_id"].reveal() if "client_id" in view.credentials else None
    secret = view.credentials.get("client_secret")
    body = dict(fields)
    match method:
        case "client_secret_basic" | "client_secret_basic_raw":
            assert client_id is not None
            assert secret is not None
            # Both are form-encoded first: a colon in an id would otherwise end it.
            quote = quote_plus if method == "client_secret_basic" else str
            encoded = base64.b64encode(f"{quote(client_id)}:{quote(secret.reveal())}".encode()).decode()
            head.append(("Authorization", f"Basic {encoded}"))
            sent.append(Secret(encoded))
        case "client_secret_post":
            assert client_id is not None
            assert secret is not None
            body |= {"client_id": client_id, "client_secret": secret.reveal()}
        case "client_secret_jwt" | "private_key_jwt":
            assert client_id is not None
            signed = _assertion(view, client_id, method, assertion, url)
            body |= {"client_id": client_id, "client_assertion_type": ASSERTION_TYPE}
            body["client_assertion"] = signed.reveal()
            sent.append(signed)
        case "client_assertion" | "spiffe_jwt":
            assert client_id is not None
            body |= {"client_id": client_id, "client_assertion_type": TYPES[method]}
            body["client_assertion"] = signed_by_others(view, ASSERTED, is_jwt=True).reveal()
        case _:
            body |= {"client_id": client_id} if client_id is not None else {}
    password = "password" in fields
    return Request(
        "POST",
        url,
        tuple(head),
        urlencode(body).encode(),
        tuple(sent),
        sends_stored,
        guarded,
        password=password,
        secret_places=frozenset(answer_fields.named(view.settings)),
    )


def _assertion(view: GrantView, client_id: str, method: str, how: ClientAssertion, url: str) -> Secret:
    """RFC 7523 §3: issuer and subject are the client."""
    claims = {"iss": client_id, "sub": client_id, "aud": url if how.audience == ENDPOINT else how.audience}
    key = view.credentials["client_secret" if method == "client_secret_jwt" else "private_key"]
    algorithm = how.algorithm or ("HS256" if method == "client_secret_jwt" else default_algorithm(key))
    check_key(key, algorithm)
    return view.sign.assertion(claims, key, algorithm, key_id=how.key_id)
