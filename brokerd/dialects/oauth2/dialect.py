# OAuth 2.0 (RFC 6749) as a dialect: which requests an operation makes and in which order. Files beside it say how the
# client authenticates, what a grant type sends, where requests go, how a person logs in, and what answers mean.
from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import msgspec

from brokerd.core.exchange.algorithms import UnusableKey
from brokerd.core.exchange.outcomes import Declined, Misconfigured, Outcome, Unsupported
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.steps import (
    Answer,
    Discovery,
    Exchange,
    Request,
    Response,
    Step,
    Unanswered,
    answered,
    discovered,
)
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.grant.renewal import Ability
from brokerd.core.grant.tokens import AccessToken, RefreshToken
from brokerd.core.secret import Secret
from brokerd.core.validation import ConfigError, expected
from brokerd.dialects import answer_fields, answer_outcomes
from brokerd.dialects.dialect import DEFAULT_PRESENT, Dialect, GrantView, Needs, unsafe
from brokerd.dialects.oauth2 import (
    browser_login,
    client_auth,
    device_login,
    discovery,
    dpop,
    grant_types,
    login,
    request_fields,
)
from brokerd.dialects.oauth2.client_auth import ASSERTED, ClientAssertion
from brokerd.dialects.oauth2.dpop import Proof
from brokerd.dialects.oauth2.grant_types import GRANT_TYPES, Downscoping
from brokerd.dialects.oauth2.outcomes import ISSUE_ERRORS, RENEW_ERRORS, Errors, Reply, active, code, revoked, tokens
from brokerd.dialects.oauth2.signed_by_others import UnusableToken
from brokerd.dialects.refusal_advice import advised

Read = Callable[[Response, Request], Outcome]
DPOP_PRESENT = "Authorization: DPoP {access_token}"


@dataclass(frozen=True, slots=True)
class OAuth2(Dialect):
    """An OAuth 2.0 authorization server: its URLs as configured, the others from its issuer's metadata."""

    token_url: str | None = None
    revocation_url: str | None = None
    introspection_url: str | None = None
    device_authorization_url: str | None = None
    authorization_url: str | None = None
    issuer: str | None = None
    has_certificate: bool = False  # of the client, for mutual TLS

    @property
    def endpoints(self) -> Mapping[str, str]:
        return {name: url for name, key in URLS.items() if (url := getattr(self, key)) is not None}

    def present(self, token_type: str) -> str:
        return DPOP_PRESENT if token_type.lower() == "dpop" else DEFAULT_PRESENT  # case counts nothing (RFC 6749 §5.1)

    def presents(self, token_type: str) -> bool:
        return token_type.lower() in ("bearer", "dpop")

    def check(self, credentials: frozenset[str], settings: Mapping[str, object]) -> None:
        name, method = str(settings.get("grant_type")), str(settings.get("client_auth"))
        if name not in GRANT_TYPES:
            raise expected(f"one of {', '.join(GRANT_TYPES)}", settings.get("grant_type"), key="grant_type")
        if method != "auto" and method not in client_auth.METHODS:
            wanted = f"auto, or one of {', '.join(client_auth.METHODS)}"
            raise expected(wanted, settings.get("client_auth"), key="client_auth")
        grant_type = GRANT_TYPES[name]
        said = _client_assertion(settings)
        needed = client_auth.check(method, credentials, said, has_certificate=self.has_certificate)
        nameless = not credentials & ({"client_id", "client_secret", "private_key", ASSERTED} - set(grant_type.takes))
        anonymous = grant_type.anonymous and method in ("none", "auto") and nameless
        needed = (needed - {"client_id"} if anonymous else needed) | set(grant_type.needs)
        if name == "client_credentials" and method in ("none", "auto") and needed == {"client_id"}:
            words = "client_credentials needs a client that authenticates (RFC 6749 §4.4); add its secret or key"
            raise ConfigError(words, key="client_auth")
        for each in sorted(needed - credentials):
            raise ConfigError(f"required for {name} with {method}, and missing", key=f"credentials.{each}")
        used = needed | set(grant_type.takes)
        for each in sorted(credentials - used):
            words = f"remove it: {name} with {method} does not use it; used: {', '.join(sorted(used))}"
            raise ConfigError(words, key=f"credentials.{each}")
        grant_types.check(name, credentials, settings)
        browser_login.check(settings)
        answer_fields.check_names(answer_fields.named(settings), "fields")
        if isinstance(more := settings.get("request"), request_fields.Added):
            by_code = name in ("device_code", "authorization_code")
            request_fields.check(more, name, issues=not by_code and name != "refresh_token", by_code=by_code)
        audience = said.audience
        if audience in ("issuer", "token_url") and getattr(self, audience) is None:
            words = f'the provider has no {audience}; add it there, or choose another audience, such as "endpoint"'
            raise ConfigError(words, key="client_assertion.audience")

    def identity(self, view: GrantView) -> tuple[str, ...]:
        sent_tokens = (self.token_url, self.revocation_url, self.introspection_url)
        explicit = sorted({_origin(url) for url in sent_tokens if url})
        who = tuple(f"{n}={view.credentials[n].reveal()}" for n in ("client_id", "username") if n in view.credentials)
        issuer = (f"issuer={self.issuer}",) if self.issuer else ()
        return ("oauth2", *explicit, *issuer, *who, *_asserted(view), str(view.settings["grant_type"]))

    def ability(self, view: GrantView) -> Ability:
        if _exchanges(view):
            return Ability(issue=view.access_token is not None, renew=False)
        grant_type = GRANT_TYPES[str(view.settings["grant_type"])]
        issues = grant_type.issues and (grant_type.asked is None or grant_type.asked in view.credentials)
        return Ability(issues, renew=True, renew_sends_stored=True, login=grant_type.login and not issues)

    def lacks(self, view: GrantView) -> str | None:
        if view.refresh_token is None or _exchanges(view):
            return None
        configured = _downscoping(view)
        return unsafe(view, {"audience": configured.audience, "resource": configured.resource})

    def needs(self, settings: Mapping[str, object]) -> Needs:
        return Needs(rereads=frozenset(grant_types.VOLATILE), proof_key=settings.get("dpop") is True)

    def takes_import(self, settings: Mapping[str, object]) -> bool:
        return grant_types.GRANT_TYPES[str(settings["grant_type"])].is_of_person

    def fields(self, settings: Mapping[str, object]) -> tuple[str, ...]:
        return answer_fields.named(settings)

    def discover(self, known: Metadata | None) -> Discovery:
        assert self.issuer is not None, "an endpoint that is neither configured nor to be discovered"
        mine = known if known and known.issuer == self.issuer else None
        return discovery.learn(self.issuer, mine, () if self.token_url else discovery.TOKEN_ENDPOINT)

    # -- operations

    def issue(self, view: GrantView) -> Exchange:
        try:
            if _exchanges(view):
                fields, secrets = grant_types.exchange_of_own(view)
            else:
                fields, secrets = grant_types.fields(str(view.settings["grant_type"]), view)
        except UnusableKey as error:
            return Misconfigured(f"private_key: {error}")
        except UnusableToken as error:
            return Misconfigured(str(error))
        asked = request_fields.fields(view, "issue") | fields | requested(view)
        return (yield from self._ask(view, asked, ISSUE_ERRORS, secrets=secrets))

    def login(self, view: GrantView) -> Exchange:
        return LOGINS[str(view.settings["grant_type"])](self, view, requested(view))

    def renew(self, view: GrantView) -> Exchange:
        assert view.refresh_token is not None
        named = view.target or view.refresh_token.restore  # after a downscoped token: the scope of the grant
        fields = (named.named() if named else {}) | request_fields.fields(view, "renew")
        fields |= {"grant_type": "refresh_token", "refresh_token": view.refresh_token.value.reveal()}
        return self._ask(view, fields, RENEW_ERRORS, sends_stored=True)

    def revoke(self, view: GrantView, token: PendingRevocation) -> Exchange | None:
        if self.revocation_url is None and self.issuer is None:
            return None
        revoked_token = token.refresh_token or token.access_token
        assert revoked_token is not None
        hint = "refresh_token" if token.refresh_token else "access_token"
        return self._about(view, revoked_token.value, hint, "revocation", revoked)

    def verify(self, view: GrantView, token: AccessToken | RefreshToken) -> Exchange | None:
        if self.introspection_url is None and self.issuer is None:
            return None
        hint = "refresh_token" if isinstance(token, RefreshToken) else "access_token"
        return self._about(view, token.value, hint, "introspection", active)

    def _about(self, view: GrantView, token: Secret, hint: str, what: str, read: Read) -> Exchange:
        """A request about one token: RFC 7009 §2.1 and RFC 7662 §2.1 send the same fields."""
        endpoint, fields = f"{what}_endpoint", {"token": token.reveal(), "token_type_hint": hint}
        fields = request_fields.fields(view, "revoke") | fields if what == "revocation" else fields
        place = yield from self._place(endpoint, view)
        if isinstance(place, Misconfigured):
            return Unsupported(f"{what}: {place.reason}")
        try:
            request = self._request(place, view, fields)
            response = yield from answered(request)
            if response.status == 401 and (other := (yield from self._second(endpoint, place, view))):
                request = self._request(other, view, fields)
                response = yield from answered(request)
        except UnusableKey as error:
            return Misconfigured(f"client_auth: {error}")
        except UnusableToken as error:
            return Misconfigured(str(error))
        return answer_outcomes.later(response, what, request) or read(response, request)

    def _second(self, endpoint: str, place: _Place, view: GrantView) -> Generator[Step, Answer, _Place | None]:
        """The same endpoint with the client authentication that the metadata names for it (RFC 8414 §2)."""
        metadata = yield from self.metadata()
        named = metadata.endpoint_auth_methods.get(endpoint, ()) if metadata else ()
        method = client_auth.second(place.method, view.credentials, named)
        return replace(place, method=method) if method else None

    def _ask(
        self,
        view: GrantView,
        fields: dict[str, str],
        errors: Errors,
        *,
        secrets: tuple[Secret, ...] = (),
        sends_stored: bool = False,
    ) -> Exchange:
        """Ask the token endpoint."""
        what = fields["grant_type"].rpartition(":")[2]
        reply = yield from self.post("token_endpoint", view, fields, secrets=secrets, sends_stored=sends_stored)
        if not isinstance(reply, Reply):
            return reply
        response = reply.response
        assert isinstance(response, Response)
        wanted = answer_fields.wanted(view, self.fields(view.settings), renews=errors is RENEW_ERRORS)
        outcome = tokens(response, what, errors, reply.request, wanted)
        shown = [name for name in CLIENTS if name in view.credentials]
        outcome = advised(outcome, response, view, shown, reply.method if "client_id" in view.credentials else "")
        if view.target and isinstance(outcome, Misconfigured) and code(response) not in GRANT_REFUSED:
            return Declined(outcome.reason)
        return outcome

    def post(
        self,
        endpoint: str,
        view: GrantView,
        fields: Mapping[str, str],
        *,
        secrets: tuple[Secret, ...] = (),
        sends_stored: bool = False,
        patient: bool = False,
    ) -> Generator[Step, Answer, Reply | Misconfigured]:
        """Sends a form to an endpoint. A server that refuses a DPoP proof for its nonce (RFC 9449 §8) or its time gets
        another proof, once for each."""
        place = yield from self._place(endpoint, view)
        if isinstance(place, Misconfigured):
            return place
        proof = Proof(view.nonce)
        while True:
            try:
                request = self._request(
                    place, view, dict(fields), proof=proof, secrets=secrets, sends_stored=sends_stored
                )
            except UnusableKey as error:
                return Misconfigured(f"client_auth: {error}")
            except UnusableToken as error:
                return Misconfigured(str(error))
            response = yield replace(request, patient=patient)
            assert isinstance(response, Response | Unanswered)
            better = dpop.better(proof, response) if view.proof_key is not None else None
            if better is None:
                break
            proof = better
        return Reply(request, response, place.method)

    def authorization_endpoint(self, view: GrantView) -> Generator[Step, Answer, str | Misconfigured]:
        """Where a person's browser is sent."""
        place = yield from self._place("authorization_endpoint", view)
        return place if isinstance(place, Misconfigured) else place.url

    def metadata(self) -> Generator[Step, Answer, Metadata | None]:
        """What the issuer says of itself, where one is configured."""
        return (yield from discovered()) if self.issuer is not None else None

    # -- requests

    def _place(self, name: str, view: GrantView) -> Generator[Step, Answer, _Place | Misconfigured]:
        """An endpoint as configured, else as in the issuer's metadata."""
        url = getattr(self, URLS[name]) if name in URLS else None
        metadata = None
        if self.issuer is not None and (url is None or view.settings["client_auth"] == "auto"):
            metadata = yield from discovered()
        method = client_auth.chosen(str(view.settings["client_auth"]), view.credentials, metadata)
        if url is not None:
            return _Place(url, method, guarded=False)
        said = None
        if metadata is not None:
            tls = method in client_auth.TLS
            alias, said = metadata.aliases.get(name) if tls else None, metadata.unusable.get(name)  # RFC 8705 §5
            named = alias or (None if tls and said else metadata.endpoints.get(name))
            if named is not None:
                return _Place(named, method, guarded=metadata.guarded)
        words = f"the issuer's metadata {said}" if said else f"the provider has no {name.replace('_', ' ')}"
        return Misconfigured(f"{words}; write {URLS[name]}" if name in URLS else words)

    def _request(
        self,
        place: _Place,
        view: GrantView,
        fields: dict[str, str],
        *,
        proof: Proof | None = None,
        secrets: tuple[Secret, ...] = (),
        sends_stored: bool = False,
    ) -> Request:
        """Raises UnusableKey and UnusableToken."""
        headers = []
        if view.proof_key is not None:
            how = proof or Proof(None)
            signed = view.sign.proof(view.proof_key, "POST", place.url, nonce=how.nonce, at=how.at)
            headers.append(("DPoP", signed.reveal()))
        return client_auth.authenticated(
            place.url,
            view,
            fields,
            place.method,
            self._assertion(view.settings),
            headers=headers,
            secrets=secrets,
            sends_stored=sends_stored,
            guarded=place.guarded,
        )

    def _assertion(self, settings: Mapping[str, object]) -> ClientAssertion:
        """How the client's assertions are made: their audience is by default the issuer, else the token URL."""
        said = _client_assertion(settings)
        named = {"": self.issuer or self.token_url, "issuer": self.issuer, "token_url": self.token_url}
        return msgspec.structs.replace(said, audience=named.get(said.audience) or said.audience)


@dataclass(frozen=True, slots=True)
class _Place:
    """An endpoint and its client authentication."""

    url: str
    method: str
    guarded: bool


def _client_assertion(settings: Mapping[str, object]) -> ClientAssertion:
    said = settings.get("client_assertion")
    return said if isinstance(said, ClientAssertion) else ClientAssertion()


def requested(view: GrantView) -> dict[str, str]:
    """The scope, audience and resource to ask for. A renewal sends none, so that the grant's own scope stays
    (RFC 6749 §6)."""
    scope, found = view.settings.get("scope"), {}
    if isinstance(scope, list | tuple) and scope:
        found["scope"] = " ".join(str(each) for each in scope)
    for name in ("audience", "resource"):
        if value := view.settings.get(name):
            found[name] = str(value)
    return found | view.target.named() if view.target else found


def _exchanges(view: GrantView) -> bool:
    """Whether a downscoped token is got by exchanging the grant's own token (RFC 8693)."""
    return view.target is not None and _downscoping(view).exchange


def _downscoping(view: GrantView) -> Downscoping:
    found = view.settings.get("variants")
    return found if isinstance(found, Downscoping) else Downscoping()


def _asserted(view: GrantView) -> tuple[str, ...]:
    """Who a grant without a user name is for: the subject of its assertion, or the grant whose token it uses."""
    said = view.settings.get("assertion")
    who = [f"subject={said.subject or said.issuer}"] if isinstance(said, grant_types.Assertion) else []
    named = {
        grant_types.SUBJECT_GRANT: "subject_grant",
        "subject_token": "subject_grant",
        "assertion": "assertion_grant",
    }
    sources = ((said, view.sources.get(name)) for name, said in named.items())
    return (*who, *(f"{said}={source.grant}" for said, source in sources if source is not None and source.grant))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


CLIENTS = (  # who asks
    *("client_id", "client_secret", "private_key", ASSERTED, "assertion"),
    *("subject_token", grant_types.SUBJECT_GRANT, "actor_token"),
)
# Refusals of the grant itself, for any target (RFC 6749 §5.2).
GRANT_REFUSED = ("invalid_client", "invalid_grant", "unsupported_grant_type")
URLS = {
    "token_endpoint": "token_url",
    "revocation_endpoint": "revocation_url",
    "introspection_endpoint": "introspection_url",
    "device_authorization_endpoint": "device_authorization_url",
    "authorization_endpoint": "authorization_url",
}
LOGINS: Mapping[str, Callable[[login.AuthorizationServer, GrantView, Mapping[str, str]], Exchange]] = {
    "password": login.with_password,
    "device_code": device_login.log_in,
    "authorization_code": browser_login.log_in,
}
