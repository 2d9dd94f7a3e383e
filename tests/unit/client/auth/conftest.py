"""The small brokerd of tests/unit/client, and HTTP servers that take one token only."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.unit.client.conftest import daemon

__all__ = ["Api", "api", "brokerd", "daemon"]


class Api:
    """A server on loopback: 200 for `wanted` in `header`, 401 for anything else, and redirects to `target`."""

    def __init__(self, wanted: str = "second", header: str = "Authorization", target: str | None = None) -> None:
        self.seen: list[tuple[str, str | None, bytes]] = []  # path, header, body
        self.idle = threading.Event()  # no client is connected
        self._clients, self._counting = 0, threading.Lock()
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                api._count(1)

            def finish(self) -> None:
                super().finish()
                api._count(-1)

            def do_GET(self) -> None:
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                sent = self.headers.get(header)
                api.seen.append((self.path, sent, body))
                if target is not None:
                    self.send_response(307)
                    self.send_header("Location", target)
                else:
                    self.send_response(200 if sent == wanted else 401)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.01]).start()

    def _count(self, change: int) -> None:
        with self._counting:
            self._clients += change
            (self.idle.set if not self._clients else self.idle.clear)()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def api() -> Iterator[Callable[..., Api]]:
    with ExitStack() as stack:

        def start(*arguments: str, **settings: str) -> Api:
            made = Api(*arguments, **settings)
            stack.callback(made.close)
            return made

        yield start


@pytest.fixture
def brokerd(daemon):  # type: ignore[no-untyped-def]
    """It gives the token "first", and "second" to whoever says that "first" was refused. `present` is how."""
    daemon.present = "Authorization: {access_token}"

    def get(params: dict[str, str]) -> dict[str, object]:
        value = {None: "first", "first": "second", "second": "third"}[params.get("refused")]
        return {**daemon.token(params), "value": value, "present": daemon.present}

    daemon.answers["get"] = get
    return daemon
