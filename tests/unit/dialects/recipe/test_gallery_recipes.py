# The built-in recipes for directus, elasticsearch, github, gitlab, kubernetes, matrix, registries and vault, exchange
# by exchange at strict servers and without a network: what each operation brings, and what each of the vendor's errors
# means. tests/scenario/daemon/test_recipe_lifecycle.py runs a whole brokerd at the same servers.
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from brokerd.core.exchange.outcomes import Done, Issued, IssuedToken, Outcome, RetryLater, Tokens
from brokerd.core.exchange.steps import Exchange, Request, Response
from brokerd.core.grant import attempts, issuance
from brokerd.core.grant.record import PendingRevocation, Record
from brokerd.core.grant.renewal import Operation, Pace, next_by_itself
from brokerd.core.grant.tokens import alive
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.dialects.dialect import GrantView
from tests.servers.gallery import (
    GALLERY,
    AwsSts,
    Directus,
    Elasticsearch,
    GitHub,
    GitLab,
    Kubernetes,
    Matrix,
    Registry,
    Vault,
    VaultDatabase,
)
from tests.servers.gallery.credentials import (
    CLIENT_ID,
    EMAIL,
    KUBE_TOKEN,
    PASSWORD,
    ROLE_ARN,
    ROLE_ID,
    SECRET_ID,
    USER,
    app_key_pem,
    web_identity,
)
from tests.servers.http import json_response
from tests.servers.provider import Provider, Refusal
from tests.unit.dialects.exchange_driver import NOW, Sent, meaning, recipe, view, words

ORIGIN = "https://api.example"
LOGIN = {"username": USER, "password": PASSWORD}
APP = {"client_id": CLIENT_ID, "private_key": app_key_pem()}
ACCOUNT = {"namespace": "ci", "service_account": "deployer"}
REGISTRY = {"endpoint": "auth", "service": "container_registry"}


@dataclass
class Life:
    """A recipe at its server: the tokens in hand go from one exchange to the next."""

    provider: Provider[Any]
    credentials: dict[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    access: str | None = None
    refresh: str | None = None
    access_id: str | None = None
    requests: list[Request] = field(default_factory=list)
    now: Moment = NOW
    fields: Mapping[str, Secret] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.provider.settings.now = lambda: self.now.wall
        self.dialect = recipe(self.provider.name, ORIGIN + self.provider.prefix)

    @property
    def view(self) -> GrantView:
        tokens = {"access": self.access, "refresh": self.refresh, "access_id": self.access_id}
        return replace(view(self.credentials, self.settings, **tokens), fields=self.fields)

    def issue(self) -> Outcome:
        return self._run(self.dialect.issue(self.view))

    def renew(self) -> Outcome:
        return self._run(self.dialect.renew(self.view))

    def revoke(self, kind: str) -> Outcome:
        seen = self.view
        doomed = (
            PendingRevocation(access_token=seen.access_token)
            if kind == "access"
            else PendingRevocation(None, seen.refresh_token)
        )
        exchange = self.dialect.revoke(seen, doomed)
        assert exchange is not None, "it has no such revocation"
        return self._run(exchange)

    def _run(self, exchange: Exchange) -> Outcome:
        try:
            step = next(exchange)
        except StopIteration as stop:
            ended: Outcome = stop.value
            return ended
        assert isinstance(step, Request)
        self.requests.append(step)
        try:
            exchange.send(self._answer(step))
        except StopIteration as stop:
            outcome: Outcome = stop.value
            if isinstance(outcome, Issued):
                self._take(outcome.tokens)
            return outcome
        raise AssertionError("it asked twice")

    def _answer(self, request: Request) -> Response:
        served = Sent(request).served
        served = replace(served, path=served.path.removeprefix(self.provider.prefix))
        answer = self.provider.process(self.provider.operation_of(served), served)
        return Response(answer.status, answer.headers, answer.body, self.now, self.now.after(0.1))

    def _take(self, tokens: Tokens) -> None:
        if tokens.access_token:
            self.access, self.access_id = tokens.access_token.value.reveal(), tokens.access_token.id
            self.fields = tokens.fields
        self.refresh = tokens.refresh_token.value.reveal() if tokens.refresh_token else self.refresh


def life(name: str, **settings: object) -> Life:
    """A recipe with what its server lets in."""
    match name:
        case "aws-sts":
            role = {"role_arn": ROLE_ARN, "role_session_name": "portal", **settings}
            return Life(AwsSts(), {"web_identity_token": web_identity(NOW.wall)}, role)
        case "vault-database":
            database = VaultDatabase()
            made = Life(database, settings={"role": "readonly", **settings})
            made.credentials["token"] = database.periodic()
            return made
        case "directus":
            return Life(Directus(), {"email": EMAIL, "password": PASSWORD}, settings)
        case "elasticsearch":
            return Life(Elasticsearch(), dict(LOGIN), settings)
        case "github-app":
            return Life(GitHub(), dict(APP), {"installation_id": 4711, **settings})
        case "gitlab":
            server = GitLab()
            made = Life(server)
            made.refresh = server.new_refresh_token("bot").value
            return made
        case "kubernetes":
            return Life(Kubernetes(), {"token": KUBE_TOKEN}, {**ACCOUNT, **settings})
        case "matrix":
            return Life(Matrix(), {"user": USER, "password": PASSWORD}, settings)
        case "docker-registry":
            return Life(Registry(), dict(LOGIN), {**REGISTRY, **settings})
        case "vault-approle":
            return Life(Vault(), {"role_id": ROLE_ID, "secret_id": SECRET_ID}, settings)
    raise AssertionError(name)


def tokens(outcome: Outcome) -> tuple[IssuedToken, IssuedToken | None]:
    """The access token and the refresh token."""
    assert isinstance(outcome, Issued), outcome
    assert outcome.tokens.access_token is not None
    return outcome.tokens.access_token, outcome.tokens.refresh_token


HOUR, DAY = 3_600.0, 86_400.0
ISSUES = [name for name in sorted(GALLERY) if name != "gitlab"]
RENEWS = ["directus", "elasticsearch", "gitlab", "matrix", "vault-approle", "vault-database"]
EXTENDS = ("vault-approle", "vault-database")  # a renewal leaves the token as it is


# What comes


def test_each_has_a_server() -> None:
    assert {life(name).provider.name for name in GALLERY} == set(GALLERY)


@pytest.mark.parametrize("name", ISSUES)
def test_credentials_bring_a_token_that_lives_as_long_as_the_server_says(name: str) -> None:
    at = life(name)
    access, refresh = tokens(at.issue())
    assert access.lifetime == pytest.approx(HOUR, abs=1)
    assert at.provider.ledger.find(access.value.reveal(), "access") is not None
    assert (refresh is not None) == (name in RENEWS)
    assert at.provider.counts.issued == 1


@pytest.mark.parametrize("name", RENEWS)
def test_a_renewal_brings_a_token_and_says_whether_the_refresh_token_is_another(name: str) -> None:
    at = life(name)
    if name != "gitlab":
        at.issue()
    before, held = at.refresh, at.access
    access, refresh = tokens(at.renew())
    assert access.lifetime is not None
    if name in EXTENDS:
        assert (access.value.reveal(), refresh) == (held, None)
    else:
        assert refresh is not None
        assert refresh.value.reveal() != before
    assert at.requests[-1].sends_stored == (name not in EXTENDS)
    assert at.provider.counts.renewed == 1
    assert at.provider.counts.reused == 0


@pytest.mark.parametrize("name", [name for name in RENEWS if name not in EXTENDS])
def test_a_refresh_token_that_was_used_up_is_rejected(name: str) -> None:
    at = life(name)
    if name != "gitlab":
        at.issue()
    used = at.refresh
    at.renew()
    at.refresh = used
    assert meaning(at.renew()) == "rejected"
    at.refresh = "test-only-never-issued"
    assert meaning(at.renew()) == "rejected"


REVOCATIONS = [
    ("directus", "refresh"),
    ("elasticsearch", "access"),
    ("elasticsearch", "refresh"),
    ("github-app", "access"),
    ("gitlab", "refresh"),
    ("matrix", "access"),
    ("vault-approle", "refresh"),
    ("vault-database", "access"),
]


@pytest.mark.parametrize(("name", "kind"), REVOCATIONS)
def test_a_token_is_revoked_and_being_dead_already_is_as_good(name: str, kind: str) -> None:
    at = life(name)
    if name != "gitlab":
        at.issue()
    assert isinstance(at.revoke(kind), Done)
    assert at.provider.counts.revoked == 1
    value = at.access if kind == "access" else at.refresh
    token = at.provider.ledger.find(value)
    assert token is not None
    assert token.revoked
    assert isinstance(at.revoke(kind), Done)
    assert at.provider.counts.revoked == 1


# What each error means


def wrong(name: str, **credentials: str) -> Callable[[], Outcome]:
    def run() -> Outcome:
        at = life(name)
        at.credentials.update(credentials)
        return at.issue()

    return run


def with_setting(name: str, **settings: object) -> Callable[[], Outcome]:
    return lambda: life(name, **settings).issue()


def with_server(name: str, then: str = "issue", **settings: object) -> Callable[[], Outcome]:
    def run() -> Outcome:
        at = life(name)
        if then == "renew" and name != "gitlab":
            at.issue()
        for key, value in settings.items():
            setattr(at.provider.settings, key, value)
        outcome: Outcome = getattr(at, then)()
        return outcome

    return run


def vault_renewal(token: str) -> Callable[[], Outcome]:
    def run() -> Outcome:
        at = life("vault-approle")
        at.refresh = token
        return at.renew()

    return run


ERRORS: dict[str, tuple[Callable[[], Outcome], str, str]] = {
    "directus: wrong password": (wrong("directus", password="test-only-x"), "misconfigured", "401: Invalid user cred"),
    "elasticsearch: wrong password": (wrong("elasticsearch", password="test-only-x"), "misconfigured", "401: unable"),
    "github-app: wrong client id": (wrong("github-app", client_id="other"), "misconfigured", "404: Integration"),
    "github-app: another app's key": (
        wrong("github-app", private_key="-----BEGIN"),
        "misconfigured",
        "issue[0]: expected a private key in PEM",
    ),
    "github-app: no such installation": (with_setting("github-app", installation_id=1), "misconfigured", "404: Not"),
    "github-app: wrong permissions": (with_setting("github-app", permissions="all"), "misconfigured", "422: Valid"),
    "gitlab: no scope for it": (with_server("gitlab", "renew", may_rotate=False), "misconfigured", "403: The request"),
    "kubernetes: wrong token": (wrong("kubernetes", token="test-only-x"), "misconfigured", "401: Unauthorized"),
    "kubernetes: forbidden": (
        with_setting("kubernetes", namespace="kube-system", service_account="admin"),
        "misconfigured",
        "403: serviceaccounts",
    ),
    "kubernetes: no such account": (with_setting("kubernetes", service_account="x"), "misconfigured", "404: Not"),
    "kubernetes: too short": (with_setting("kubernetes", expiration_seconds=5), "misconfigured", "422: TokenRequest"),
    "matrix: wrong password": (wrong("matrix", password="test-only-x"), "misconfigured", "403: Invalid username"),
    "registry: wrong password": (wrong("docker-registry", password="x"), "misconfigured", "401: authentication"),
    "registry: as Docker Hub says it": (
        lambda: hub().issue(),
        "misconfigured",
        "401: authentication",
    ),
    "registry: unknown service": (with_setting("docker-registry", service="x"), "misconfigured", "400: unknown"),
    "aws: no jwt": (
        wrong("aws-sts", web_identity_token="test-only-x"),
        "misconfigured",
        "400: InvalidIdentityToken: The",
    ),
    "aws: another audience": (
        wrong("aws-sts", web_identity_token=web_identity(NOW.wall, aud="sts.example")),
        "misconfigured",
        "400: InvalidIdentityToken: Incorrect token audience",
    ),
    "aws: expired": (
        wrong("aws-sts", web_identity_token=web_identity(NOW.wall - 7_200)),
        "misconfigured",
        "400: ExpiredTokenException: Token expired: current date/time",
    ),
    "aws: another role": (
        with_setting("aws-sts", role_arn="arn:aws:iam::000000000000:role/other"),
        "misconfigured",
        "403: AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity",
    ),
    "aws: too short": (with_setting("aws-sts", duration_seconds=60), "misconfigured", "400: ValidationError: 1 valid"),
    "aws: no policy": (with_setting("aws-sts", policy="x"), "misconfigured", "400: MalformedPolicyDocument: The"),
    "vault-database: another token": (wrong("vault-database", token="test-only-x"), "misconfigured", "403: permission"),
    "vault-database: no such role": (
        with_setting("vault-database", role="unknown"),
        "misconfigured",
        "400: unknown role",
    ),
    "vault-database: no such mount": (with_setting("vault-database", mount="x"), "misconfigured", "404: Not Found"),
    "vault-database: not renewable": (
        with_server("vault-database", "renew", renewable=False),
        "rejected",
        "400: lease is not",
    ),
    "vault: wrong secret id": (wrong("vault-approle", secret_id="x"), "misconfigured", "400: invalid role or sec"),
    "vault: no such mount": (with_setting("vault-approle", mount="x"), "strange", "404 with application/json"),
    "vault: not renewable": (with_server("vault-approle", "renew", renewable=False), "rejected", "400: lease is not"),
    "vault: a dead token": (vault_renewal("test-only-dead"), "rejected", "403: permission denied"),
}


def hub() -> Life:
    at = life("docker-registry")
    at.credentials["password"] = "test-only-x"
    at.provider.settings.details = True
    return at


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_means(error: str) -> None:
    run, means, said = ERRORS[error]
    outcome = run()
    assert (meaning(outcome), said in words(outcome)) == (means, True), words(outcome)
    assert PASSWORD not in words(outcome)


@pytest.mark.parametrize(
    ("name", "operation", "status"),
    [
        ("github-app", "issue", 403),
        ("vault-approle", "issue", 412),
        ("vault-database", "issue", 412),
        ("kubernetes", "issue", 409),
    ],
)
def test_an_error_that_passes_is_tried_again(name: str, operation: str, status: int) -> None:
    at = life(name)
    reply = at.provider.render

    def refuse(_: Request) -> Any:
        return replace(reply(Refusal(status, "not now"), None), status=status)

    at.provider.handlers = lambda: dict.fromkeys(("issue", "login", "creds"), refuse)  # type: ignore[method-assign, arg-type]
    outcome = getattr(at, operation)()
    assert isinstance(outcome, RetryLater)
    assert "not now" in outcome.reason


# What is particular about each


def test_github_takes_an_assertion_though_its_clock_is_behind_ours() -> None:
    at = life("github-app")
    at.provider.settings.now = lambda: NOW.wall - 45
    access, _ = tokens(at.issue())
    assert access.lifetime == pytest.approx(HOUR, abs=46)
    header = dict(at.requests[0].headers)["Authorization"]
    assert Secret(header.removeprefix("Bearer ")) in at.requests[0].secrets


def test_github_narrows_a_token_to_repositories_and_permissions() -> None:
    at = life("github-app", repositories=["hello"], permissions={"contents": "read"})
    at.issue()
    assert at.requests[0].body == b'{"repositories": ["hello"], "permissions": {"contents": "read"}}'


@pytest.mark.parametrize("settings", [{}, {"mount": "machines"}])
def test_vaults_approle_may_be_mounted_elsewhere(settings: dict[str, object]) -> None:
    at = life("vault-approle", namespace="team", **settings)
    assert isinstance(at.issue(), Issued)
    assert at.requests[0].url.endswith(f"/auth/{settings.get('mount', 'approle')}/login")
    assert ("X-Vault-Namespace", "team") in at.requests[0].headers


def test_a_vault_token_lives_on_by_renewals_and_is_replaced_ahead_of_its_max_ttl() -> None:
    at = life("vault-approle")
    at.provider.settings.token_max_ttl = DAY
    held, attempted = Record("app"), None
    while at.now.wall < NOW.wall + 10 * DAY:
        plan = next_by_itself(held, at.dialect.ability(at.view), Pace(), at.now, attempted)
        assert plan is not None
        at.now = attempted = at.now.after(plan.delay)
        assert held.generation == 0 or alive(held.access_token, at.now, min_ttl=60)
        outcome = at.issue() if plan.operation is Operation.ISSUE else at.renew()
        assert isinstance(outcome, Issued)
        held = issuance.issued(attempts.begun(held), outcome.tokens, at.now, 0.5, "")
        assert living_in(at, held)
    assert at.provider.counts.issued == pytest.approx(10, abs=1)
    assert at.provider.counts.renewed <= 10 * (DAY / HOUR) * 1.6


def living_in(at: Life, held: Record) -> bool:
    token = at.provider.ledger.find(held.access_token.value.reveal()) if held.access_token else None
    return token is not None and token.alive(at.now.wall)


@pytest.mark.parametrize(("field_", "states"), [("token", True), ("access_token", True), ("token", False)])
def test_a_registry_that_names_no_lifetime_means_a_minute(field_: str, states: bool) -> None:
    at = life("docker-registry")
    at.provider.settings.field, at.provider.settings.states_expiry = field_, states
    access, _ = tokens(at.issue())
    assert access.lifetime == (HOUR if states else 60)


def test_a_registry_lets_anybody_in_who_names_no_password() -> None:
    at = life("docker-registry", scope=["repository:library/alpine:pull"])
    at.credentials.clear()
    access, _ = tokens(at.issue())
    token = at.provider.ledger.find(access.value.reveal())
    assert token is not None
    assert (token.who, token.scopes) == ("anonymous", ("repository:library/alpine:pull",))


def test_gitlabs_token_ends_with_the_night_before_its_date() -> None:
    access, refresh = tokens(life("gitlab").renew())
    assert refresh is not None
    assert access.lifetime == refresh.lifetime
    assert access.lifetime is not None
    assert (NOW.wall + access.lifetime) % DAY == pytest.approx(0, abs=0.5)
    assert 6 * DAY < access.lifetime <= 7 * DAY


@pytest.mark.parametrize("audience", [None, "https://vault.example"])
def test_kubernetes_is_asked_for_an_audience_and_a_lifetime_where_they_are_given(audience: str | None) -> None:
    at = life("kubernetes", expiration_seconds=1200, **({"audience": audience} if audience else {}))
    access, _ = tokens(at.issue())
    token = at.provider.ledger.find(access.value.reveal())
    assert token is not None
    assert token.audience == ((audience,) if audience else ())
    assert access.lifetime == pytest.approx(1200, abs=1)


def test_a_matrix_server_without_refresh_tokens_gives_a_token_without_an_end() -> None:
    at = life("matrix", device_id="BOT")
    at.provider.settings.knows_refresh = False
    access, refresh = tokens(at.issue())
    assert (access.lifetime, refresh) == (None, None)


def test_a_recipe_binds_tokens_to_client_and_origin() -> None:
    for name, credential in {"vault-approle": "role_id", "github-app": "client_id", "matrix": "user"}.items():
        at = life(name)
        before = at.dialect.identity(at.view)
        at.credentials[credential] = "somebody-else"
        assert at.dialect.identity(at.view) != before


# Amazon's, as botocore writes them; a code that the recipe does not know says nothing.
@pytest.mark.parametrize(
    ("status", "code", "means"),
    [
        (400, "Throttling", "limited"),
        (400, "IDPCommunicationError", "limited"),
        (400, "ExpiredToken", "misconfigured"),
        (400, "PackedPolicyTooLarge", "misconfigured"),
        (403, "IDPRejectedClaim", "misconfigured"),
        (403, "RegionDisabledException", "misconfigured"),
        (400, "SomethingNew", "strange"),
        (403, "RequestBlocked", "strange"),
        (500, "InternalFailure", "failed"),
        (503, "ServiceUnavailable", "unavailable"),
    ],
)
def test_an_error_of_aws_is_a_refusal_or_an_outage(status: int, code: str, means: str) -> None:
    at = life("aws-sts")

    def refuse(_: Request) -> Any:
        raise Refusal(status, "words", code)

    at.provider.handlers = lambda: {"issue": refuse}  # type: ignore[method-assign]
    assert meaning(at.issue()) == means


def test_aws_brings_all_three_values_of_one_session() -> None:
    at = life("aws-sts", duration_seconds=7_200, policy='{"Version": "2012-10-17"}')
    outcome = at.issue()
    access, refresh = tokens(outcome)
    assert isinstance(outcome, Issued)
    token = at.provider.ledger.find(access.value.reveal())
    assert token is not None
    assert {name: value.reveal() for name, value in outcome.tokens.fields.items()} == {
        "access_key_id": AwsSts.key_id(token),
        "secret_access_key": AwsSts.secret_key(token),
    }
    assert (access.lifetime, refresh) == (pytest.approx(7_200, abs=1), None)


def test_a_lease_keeps_user_and_password_until_its_max_ttl_and_the_next_lease_has_others() -> None:
    at = life("vault-database")
    server = at.provider
    assert isinstance(server, VaultDatabase)
    server.settings.access_lifetime = 1e9  # of Vault's own token
    at.credentials["token"] = server.periodic()
    held, attempted, pairs = Record("app"), None, set[tuple[str, str]]()
    while at.now.wall < NOW.wall + 5 * DAY:
        plan = next_by_itself(held, at.dialect.ability(at.view), Pace(), at.now, attempted)
        assert plan is not None
        at.now = attempted = at.now.after(plan.delay)
        assert held.generation == 0 or alive(held.access_token, at.now, min_ttl=60)
        outcome = at.issue() if plan.operation is Operation.ISSUE else at.renew()
        assert isinstance(outcome, Issued)
        held = issuance.issued(attempts.begun(held), outcome.tokens, at.now, 0.5, "")
        token = held.access_token
        assert token is not None
        user = token.fields["username"].reveal()
        assert server.user_of(token.value.reveal()) == user
        assert token.id == held.refresh_token.value.reveal() if held.refresh_token else False
        pairs.add((user, token.value.reveal()))
    assert len(pairs) == server.counts.issued == pytest.approx(6, abs=1)
    assert len({user for user, _ in pairs}) == len(pairs)
    assert server.counts.renewed >= 24


def test_a_lease_whose_life_nobody_states_is_not_extended() -> None:
    at = life("vault-database")
    at.issue()
    at.provider.handlers = lambda: {  # type: ignore[method-assign]
        "extend": lambda _: json_response(200, {"lease_id": "x", "renewable": True, "data": None})
    }
    assert meaning(at.renew()) == "unreadable"


@pytest.mark.parametrize("settings", [{}, {"mount": "postgres"}])
def test_the_database_engine_may_be_mounted_elsewhere(settings: dict[str, object]) -> None:
    at = life("vault-database", namespace="team", **settings)
    assert isinstance(at.issue(), Issued)
    assert at.requests[0].url.endswith(f"/v1/{settings.get('mount', 'database')}/creds/readonly")
    assert ("X-Vault-Namespace", "team") in at.requests[0].headers


def test_a_lease_is_not_renewed_after_its_end() -> None:
    at = life("vault-database")
    assert at.dialect.ability(at.view).renew is False
    at.issue()
    assert at.dialect.ability(at.view).renew is True
