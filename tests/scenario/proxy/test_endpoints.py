# Attacks on the metadata endpoints: other users, pages in browsers, proxies, and what is not there.
from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import run

import pytest
import trio

from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.scenario.proxy.process import Answer, Proxy
from tests.servers import OAuth2
from tests.servers.oauth2 import Settings

ROLE = "/latest/meta-data/iam/security-credentials/reader"
OTHER_USER = """
import os, socket, sys
os.setgroups([]); os.setgid(60_901); os.setuid(60_901)
sock = socket.socket()
sock.connect(("127.0.0.1", int(sys.argv[1])))
sock.sendall(bytes.fromhex(sys.argv[2]))
try:
    while data := sock.recv(65536):
        os.write(1, data)
except ConnectionResetError:
    pass  # the end of a refused connection
"""


class Endpoint(Proxy):
    """One endpoint, `tcp`, of the kind aws-imds."""

    def describe(self, **settings: object) -> None:
        caller = "{ uid = 0 }"
        grant = settings.get("grant", "app")
        self.write(
            f'''
            [metadata.tcp]
            kind = "aws-imds"
            grant = "{grant}"
            role = "reader"
            listen = "127.0.0.1:{self.port}"
            caller = {caller}
            '''
        )

    async def ask(self, path: str, *lines: str, method: str = "GET") -> Answer:
        return await self.get(path, *lines, kind="tcp", method=method)

    async def session(self) -> str:
        ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60"
        return (await self.ask("/latest/api/token", ttl, method="PUT")).body.decode()


@pytest.fixture
async def endpoint(folder: Path, nursery: trio.Nursery, brokerd: Brokerd, serving: Serving) -> Endpoint:
    provider = await serving(OAuth2(Settings(further=("access_key_id", "secret_access_key"))))
    own = {"app": {**FIVE["oauth2"], "fields": ["access_key_id", "secret_access_key"]}, "bare": FIVE["oauth2"]}
    brokerd.configure(own, {"oauth2": at(provider)})
    await brokerd.start()
    made = Endpoint(folder, nursery, brokerd, None)  # type: ignore[arg-type]
    await made.start()
    return made


async def test_the_callers_user_gets_the_keys_and_others_nothing(endpoint: Endpoint, as_root: None) -> None:
    token = await endpoint.session()
    answer = await endpoint.ask(ROLE, f"X-aws-ec2-metadata-token: {token}")
    keys = answer.json
    assert keys["Code"] == "Success"
    assert all(keys[name] for name in ("AccessKeyId", "SecretAccessKey", "Token", "Expiration"))
    head = f"GET {ROLE} HTTP/1.1\r\nHost: 127.0.0.1:{endpoint.port}\r\nX-aws-ec2-metadata-token: {token}\r\n\r\n"
    command = [sys.executable, "-c", OTHER_USER, str(endpoint.port), head.encode().hex()]
    found = await trio.to_thread.run_sync(lambda: run(command, capture_output=True, timeout=60, check=True))
    assert b" 403 " in found.stdout
    assert not [each for each in keys.values() if str(each).encode() in found.stdout]
    await endpoint.close()


async def test_browsers_proxies_and_other_names_get_nothing(endpoint: Endpoint) -> None:
    session = f"X-aws-ec2-metadata-token: {await endpoint.session()}"
    for line in (
        "Origin: http://evil.example",
        "X-Forwarded-For: 10.0.0.1",
        "Via: 1.1 proxy",
        "Sec-Fetch-Site: cross-site",
    ):
        assert (await endpoint.ask(ROLE, session, line)).status == 403
    async with endpoint.link("tcp") as link:
        await link.send(f"GET {ROLE} HTTP/1.1\r\nHost: evil.example\r\n{session}\r\n\r\n".encode())
        assert (await link.answer()).status == 421
    assert (await endpoint.ask(ROLE)).status == 401
    assert (await endpoint.ask("/latest/meta-data/../api/token", session)).status == 404
    await endpoint.close()


async def test_nothing_to_give_is_an_error_and_no_empty_value(endpoint: Endpoint) -> None:
    endpoint.describe(grant="bare")
    await endpoint.reload()
    answer = await endpoint.ask(ROLE, f"X-aws-ec2-metadata-token: {await endpoint.session()}")
    assert answer.status == 500
    assert "the grant bare has no temporary keys" in answer.json["message"]
    endpoint.describe(grant="nothing")
    await endpoint.reload()
    answer = await endpoint.ask(ROLE, f"X-aws-ec2-metadata-token: {await endpoint.session()}")
    assert answer.status == 503
    assert json.loads(answer.body)["error"] == "unknown_grant"
    await endpoint.close()
