# A container registry: the part of the OCI distribution specification that logging in, looking at a manifest, and
# copying an image need. It takes the user's token as a password, or sends clients to the token server beside it.
from __future__ import annotations

import hashlib
import json
from typing import Any

from tests.servers.guarded.guard import Guarded, Shown
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Provider

VERSION = ("docker-distribution-api-version", "registry/2.0")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "config": {}}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class RegistryServer(Guarded):
    """One image, team/app:1, without layers."""

    def __init__(self, provider: Provider[Any]) -> None:
        super().__init__(provider, "Basic")
        config = json.dumps(CONFIG).encode()
        described = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(config),
                "size": len(config),
            },
            "layers": [],
        }
        self.manifest = json.dumps(described).encode()
        self._blobs = {digest(config): config}

    async def serve(self, request: Request, shown: Shown) -> Response:
        match request.path.split("/"):
            case ["", "v2", ""] if request.method in ("GET", "HEAD"):
                return Response(200, (VERSION, ("content-type", "application/json")), b"{}")
            case ["", "v2", "team", "app", "manifests", name] if name in ("1", digest(self.manifest)):
                found = ("docker-content-digest", digest(self.manifest))
                return Response(200, (VERSION, ("content-type", MANIFEST), found), self.manifest)
            case ["", "v2", "team", "app", "blobs", name] if name in self._blobs:
                return Response(200, (VERSION, ("content-type", "application/octet-stream")), self._blobs[name])
            case ["", "v2", "team", "app", "tags", "list"]:
                return json_response(200, {"name": "team/app", "tags": ["1"]})
        return json_response(404, {"errors": [{"code": "NAME_UNKNOWN", "message": request.path}]})

    def refusal(self, request: Request) -> Response:
        errors = {"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}
        basic = ("www-authenticate", 'Basic realm="registry"')
        return json_response(401, errors, (VERSION, basic))
