# An npm registry with one package: what `npm view` and `npm install` ask for.
from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from typing import Any

from tests.servers.guarded.guard import Guarded, Shown
from tests.servers.http import Request, Response, json_response
from tests.servers.provider import Provider

NAME, VERSION = "tiny", "1.2.3"


class NpmRegistry(Guarded):
    def __init__(self, provider: Provider[Any]) -> None:
        super().__init__(provider, "Bearer")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, text in {
                "package.json": json.dumps({"name": NAME, "version": VERSION}),
                "index.js": "//\n",
            }.items():
                entry = tarfile.TarInfo(f"package/{name}")
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text.encode()))
        self._package = gzip.compress(packed.getvalue())

    async def serve(self, request: Request, shown: Shown) -> Response:
        if request.path == f"/{NAME}":
            return json_response(200, self._described())
        if request.path == f"/{NAME}/-/{NAME}-{VERSION}.tgz":
            return Response(200, (("content-type", "application/octet-stream"),), self._package)
        return json_response(404, {"error": "not found"})

    def _described(self) -> dict[str, Any]:
        integrity = base64.b64encode(hashlib.sha512(self._package).digest()).decode()
        dist = {"tarball": f"{self.url}/{NAME}/-/{NAME}-{VERSION}.tgz", "integrity": f"sha512-{integrity}"}
        versions = {VERSION: {"name": NAME, "version": VERSION, "dist": dist}}
        return {"name": NAME, "dist-tags": {"latest": VERSION}, "versions": versions}
