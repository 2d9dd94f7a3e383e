# nginx puts a token on the requests that it passes on: auth_request asks brokerd over HTTP.
from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator

import pytest
import trio

from tests.real.clients.conftest import GRANT, Machine, needs
from tests.real.clients.test_http_clients import block
from tests.servers import IX_API_KEY

CONFIG = """
daemon off;
master_process off;
pid FOLDER/nginx.pid;
error_log stderr;
events { }
http {
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
BLOCK
}
"""


@pytest.fixture
async def nginx(machine: Machine) -> AsyncIterator[str]:
    """The socket at which it listens."""
    needs("nginx")
    folder = machine.folder / "nginx"
    folder.mkdir()
    config = folder / "nginx.conf"
    said = block("nginx with auth_request").replace("/run/brokerd/http.sock", str(machine.brokerd.http_socket))
    said = said.replace("reports", GRANT).replace("https://api.example/", f"{machine.provider.base_url}/")
    said = said.replace("server {\n", f"server {{\n    listen unix:{folder}/nginx.sock;\n")
    config.write_text(CONFIG.replace("FOLDER", str(folder)).replace("BLOCK", said))
    command = ["nginx", "-p", str(folder), "-c", str(config)]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    with trio.fail_after(20):
        while not (folder / "nginx.sock").exists():
            await trio.sleep(0.01)
    yield str(folder / "nginx.sock")
    process.terminate()
    await process.wait()


async def test_nginx_puts_the_newest_token_on_each_request(machine: Machine, nginx: str) -> None:
    needs("curl")
    ask = ("curl", "-sSi", "--unix-socket", nginx, "-H", "Origin: https://page.example", "-H", "Authorization: own")
    for again in (True, False):
        done = await machine.run(*ask, "http://nginx/me")
        assert "HTTP/1.1 200 " in done.stdout
        assert IX_API_KEY in done.stdout
        assert machine.token not in done.stdout
        if again:
            await machine.brokerd.call("get", grant=GRANT, refused=machine.token)
    hidden = await machine.run(*ask, "http://nginx/token")
    assert "HTTP/1.1 404 " in hidden.stdout
    asked = machine.provider.count()
    await machine.brokerd.call("revoke", grant=GRANT, local=True)
    done = await machine.run(*ask, "http://nginx/me")
    assert "HTTP/1.1 500 " in done.stdout
    assert machine.provider.count() == asked
