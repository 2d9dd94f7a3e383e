# Git over HTTP: git's own `git http-backend` (git-http-backend(1)), a CGI program, behind the guard.
from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import trio

from tests.servers.guarded.guard import Guarded, Shown
from tests.servers.http import Request, Response
from tests.servers.provider import Provider


class GitServer(Guarded):
    """The repositories below `root`."""

    def __init__(self, provider: Provider[Any], root: Path, *schemes: str) -> None:
        super().__init__(provider, *schemes)
        self.root = root

    def make(self, name: str) -> None:
        """An empty repository, which everybody with a token may push to."""
        path = self.root / name
        subprocess.run(["git", "init", "--bare", "--quiet", "--initial-branch=main", path], check=True)
        subprocess.run(["git", "-C", path, "config", "http.receivepack", "true"], check=True)

    async def serve(self, request: Request, shown: Shown) -> Response:
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": shown.user or "bearer",
            "REQUEST_METHOD": request.method,
            "PATH_INFO": unquote(request.path),
            "QUERY_STRING": request.query,
            "CONTENT_TYPE": request.header("content-type") or "",
            "HTTP_CONTENT_ENCODING": request.header("content-encoding") or "",
            "GIT_PROTOCOL": request.header("git-protocol") or "",
        }
        done = await trio.run_process(["git", "http-backend"], env=environment, stdin=request.body, capture_stdout=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = tuple(
            (name.lower(), value.strip())
            for name, _, value in (each.partition(":") for each in head.decode().split("\r\n"))
        )
        status = next((int(value.split()[0]) for name, value in headers if name == "status"), 200)
        return Response(status, tuple(each for each in headers if each[0] != "status"), body)
