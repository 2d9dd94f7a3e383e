# Programs that read a token from a file, with the files of `brokerctl files`: Debian's prometheus, which follows a
# renewal without a restart, and nginx, which on_change reloads.
from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.free_port import free_port
from tests.real.clients.conftest import needs
from tests.scenario.daemon.harness import Brokerd, until
from tests.scenario.files.conftest import brokerd, files, folder, imported, renew, serving
from tests.scenario.files.process import Files
from tests.servers import OAuth2

__all__ = ["brokerd", "files", "folder", "imported", "serving"]
pytestmark = pytest.mark.real
PROMETHEUS = """\
global: { scrape_interval: 200ms, scrape_timeout: 200ms }
scrape_configs:
  - job_name: api
    authorization: { credentials_file: %(token)s }
    static_configs: [{ targets: ["%(api)s"] }]
"""
NGINX = """\
daemon off;
pid %(prefix)s/nginx.pid;
error_log %(prefix)s/error.log;
events {}
http {
    access_log off;
    client_body_temp_path %(prefix)s; proxy_temp_path %(prefix)s; fastcgi_temp_path %(prefix)s;
    uwsgi_temp_path %(prefix)s; scgi_temp_path %(prefix)s;
    server {
        listen 127.0.0.1:%(port)d;
        location / {
            include %(token)s;
            proxy_pass http://%(api)s;
        }
    }
}
"""


class Api(http.server.ThreadingHTTPServer):
    """An API that accepts one token only. `statuses`: what it has answered."""

    def __init__(self) -> None:
        self.token = ""
        self.statuses: list[int] = []
        super().__init__(("127.0.0.1", 0), ApiHandler)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class ApiHandler(http.server.BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        status = 200 if self.headers["Authorization"] == f"Bearer {self.server.token}" else 401
        self.server.statuses.append(status)
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"up 1\n")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@contextlib.asynccontextmanager
async def running(*command: str | Path) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, capture_stderr=True, capture_stdout=True, check=False)
        nursery.start_soon(run)
        yield
        nursery.cancel_scope.cancel()


async def test_prometheus_follows_its_token_without_a_restart(
    brokerd: Brokerd, imported: OAuth2, files: Files, api: Api
) -> None:
    needs("prometheus")
    files.describe({"path": "token"})
    await files.start()
    config = files.etc / "prometheus.yml"
    config.write_text(PROMETHEUS % {"token": files.target / "token", "api": api.address})
    api.token = await brokerd.get("app")
    data, port = f"--storage.tsdb.path={files.folder}/data", f"--web.listen-address=127.0.0.1:{free_port()}"
    async with running("prometheus", f"--config.file={config}", data, port):
        await until(lambda: api.statuses[-3:] == [200] * 3, within=30)
        api.token = await renew(brokerd, imported)
        await files.holds(api.token)
        await until(lambda: api.statuses[-3:] == [200] * 3, within=30)


async def test_nginx_is_reloaded_with_the_new_token(brokerd: Brokerd, imported: OAuth2, files: Files, api: Api) -> None:
    needs("nginx")
    prefix, port = files.folder / "nginx", free_port()
    prefix.mkdir()
    config = prefix / "nginx.conf"
    config.write_text(
        NGINX % {"prefix": prefix, "port": port, "api": api.address, "token": files.target / "token.conf"}
    )
    of_ours = (shutil.which("nginx") or "", "-p", str(prefix), "-c", str(config))
    template = 'proxy_set_header Authorization "Bearer {access_token}";\n'
    reload = {"command": [*of_ours, "-s", "reload"]}
    files.describe({"path": "token.conf", "template": template, "on_change": reload})
    await files.start()  # on_change fails as long as nginx does not run
    api.token = await brokerd.get("app")
    async with running(*of_ours):
        await until(lambda: answers(port) == 200, within=30)
        api.token = await renew(brokerd, imported)
        await files.holds(template.replace("{access_token}", api.token), "token.conf")
        await until(lambda: answers(port) == 200, within=30)
        os.kill(int((prefix / "nginx.pid").read_text()), 15)
        await until(lambda: not (prefix / "nginx.pid").exists())


def answers(port: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0
