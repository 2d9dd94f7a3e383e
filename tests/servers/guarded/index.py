# A package index: the simple repository API (packaging.python.org, "Simple repository API"), the file of one project,
# and the upload that twine does. Only for those who show a token as the password of Basic authentication.
from __future__ import annotations

import hashlib
import io
import zipfile
from typing import Any

from tests.servers.guarded.guard import Guarded, Shown
from tests.servers.http import Request, Response
from tests.servers.provider import Provider

WHEEL = "brokerd_probe-1.0-py3-none-any.whl"


def wheel() -> bytes:
    """A wheel with one empty module."""
    info = "brokerd_probe-1.0.dist-info"
    files = {
        "brokerd_probe.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: brokerd-probe\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()


class IndexServer(Guarded):
    """`uploads`: the names of the files that were uploaded."""

    def __init__(self, provider: Provider[Any]) -> None:
        super().__init__(provider, "Basic")
        self.wheel = wheel()
        self.uploads: list[str] = []

    async def serve(self, request: Request, shown: Shown) -> Response:
        if request.path == "/simple/brokerd-probe/":
            digest = hashlib.sha256(self.wheel).hexdigest()
            page = f'<!DOCTYPE html><html><body><a href="/files/{WHEEL}#sha256={digest}">{WHEEL}</a></body></html>'
            return Response(200, (("content-type", "text/html"),), page.encode())
        if request.path == f"/files/{WHEEL}":
            return Response(200, (("content-type", "application/octet-stream"),), self.wheel)
        if request.path == "/legacy/" and request.method == "POST":
            self.uploads += [WHEEL] if WHEEL.encode() in request.body else []
            return Response(200)
        return Response(404)
