# A Kubernetes API server as far as `kubectl get pods` needs it: discovery of the core group, and one list of pods.
from __future__ import annotations

from typing import Any

from tests.servers.guarded.guard import Guarded, Shown
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Provider

PODS = {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}
ANSWERS: dict[str, Any] = {
    "/version": {"major": "1", "minor": "30", "gitVersion": "v1.30.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [PODS]},
    "/api/v1/namespaces/default/pods": {
        "kind": "PodList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "1"},
        "items": [
            {
                "metadata": {"name": "app-1", "namespace": "default"},
                "spec": {"containers": []},
                "status": {"phase": "Running"},
            }
        ],
    },
}


class ClusterServer(Guarded):
    """Takes bearer tokens."""

    def __init__(self, provider: Provider[Any]) -> None:
        super().__init__(provider, "Bearer")

    async def serve(self, request: Request, shown: Shown) -> Response:
        if request.path in ANSWERS:
            return json_response(200, ANSWERS[request.path])
        return json_response(404, status(404, "NotFound"))

    def refusal(self, request: Request) -> Response:
        return json_response(401, status(401, "Unauthorized"))


def status(code: int, reason: str) -> dict[str, object]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": reason,
        "code": code,
    }
