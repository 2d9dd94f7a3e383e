# The Kubernetes API's TokenRequest, from the reference pages "TokenRequest" (authentication.k8s.io/v1) and "Status"
# (kubernetes.io/docs/reference/kubernetes-api).
from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar

from tests.servers import body
from tests.servers.gallery.credentials import KUBE_TOKEN
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Handler, Provider, Refusal, Settings, echo, whole

ACCOUNT = "/api/v1/namespaces/ci/serviceaccounts/deployer/token"
FORBIDDEN = "/api/v1/namespaces/kube-system/serviceaccounts/admin/token"
SHORTEST = 600  # seconds
REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid"}


class Kubernetes(Provider[Settings]):
    """Operations: issue, for one account; issue_other, for one that nobody may have a token of."""

    name = "kubernetes"
    prefix = "/k8s"
    paths: ClassVar[Mapping[str, Mapping[str, str]]] = {
        ACCOUNT: {"POST": "issue"},
        FORBIDDEN: {"POST": "issue_other"},
    }

    def __init__(self) -> None:
        super().__init__(Settings())

    def handlers(self) -> Mapping[str, Handler]:
        return {"issue": self._issue, "issue_other": self._issue_other}

    def render(self, refusal: Refusal, request: Request | None) -> Response:
        words = {"message": refusal.reason + echo(request), "reason": REASONS.get(refusal.status, "")}
        about = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        return json_response(refusal.status, {**about, **words, "code": refusal.status}, refusal.headers)

    def _issue(self, request: Request) -> Response:
        self._authenticate(request)
        given = body.json_object(request)
        spec = given.get("spec")
        if (given.get("apiVersion"), given.get("kind")) != ("authentication.k8s.io/v1", "TokenRequest"):
            raise Refusal(400, f"TokenRequest: no kind {given.get('kind')!r} is registered")
        if not isinstance(spec, dict) or not isinstance(spec.get("audiences"), list):
            raise Refusal(422, "TokenRequest is invalid: spec.audiences: Required value")
        seconds = spec.get("expirationSeconds", whole(self.settings.access_lifetime))
        if not isinstance(seconds, int) or seconds < SHORTEST:
            raise Refusal(
                422, f"TokenRequest is invalid: spec.expirationSeconds: {seconds}: must be at least 10 minutes"
            )
        expires_at = whole(self.settings.now() + seconds)
        audience = tuple(map(str, spec["audiences"]))
        token = self.issue_access(self.ledger.family(), "deployer", expires_at=expires_at, audience=audience)
        self.counts.issued += 1
        stated = datetime.fromtimestamp(expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return json_response(201, {**given, "status": {"token": token.value, "expirationTimestamp": stated}})

    def _issue_other(self, request: Request) -> Response:
        self._authenticate(request)
        raise Refusal(403, 'serviceaccounts "admin" is forbidden: cannot create resource "serviceaccounts/token"')

    def _authenticate(self, request: Request) -> None:
        if body.bearer(request) != KUBE_TOKEN:
            self.wrong_credentials()
            raise Refusal(401, "Unauthorized")
