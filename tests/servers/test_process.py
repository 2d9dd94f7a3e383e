# All our providers on one port, and as a process: `python -m tests.servers`.
from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import trustme

from tests import servers
from tests.servers import Clock, serve_all
from tests.servers.plain_client import (
    FORM,
    GOOD_OCCAM,
    JSON,
    NOON,
    TIMEOUT,
    Answer,
    _send,
    bearer,
    c2m_long,
    c2m_short,
    ix_pair,
    ix_refresh,
    me,
    occam_login,
    post_json,
)


async def test_all_providers_share_one_port() -> None:
    async with serve_all(lifetime=6, now=Clock(NOON)) as fleet:
        assert len({urlsplit(provider.base_url).port for provider in fleet.by_name.values()}) == 1
        assert list(fleet.by_name) == ["ix-api", "occam", "treezor", "click2mail", "oauth2"]
        for provider in fleet.by_name.values():
            assert await me(provider, "never-issued") == 401
            assert provider.settings.access_lifetime == 6
        await ix_pair(fleet.ix_api)
        await occam_login(fleet.occam)
        await c2m_short(fleet.click2mail, (await c2m_long(fleet.click2mail))["access_token"])


async def test_every_refresh_token_can_be_handed_out_for_an_import() -> None:
    async with serve_all() as fleet:
        token = fleet.ix_api.new_refresh_token("test-only-person").value
        assert (await ix_refresh(fleet.ix_api, token)).status == 201
        token = fleet.occam.new_refresh_token("test-only-person").value
        answer = await post_json(fleet.occam.base_url + "/auth/refresh-token", {"refresh_token": token})
        assert answer.status == 200


class Process:
    """`python -m tests.servers`, started and waited for in threads."""

    def __init__(self, *arguments: str) -> None:
        root = Path(servers.__file__).parents[2]
        command = [sys.executable, "-m", "tests.servers", *arguments]
        self.popen = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.popen.stdout
        self.ready = json.loads(self.popen.stdout.readline())
        self.url: str = self.ready["url"]

    def close(self) -> int:
        assert self.popen.stdin
        assert self.popen.stdout
        self.popen.stdin.close()
        status = self.popen.wait(TIMEOUT)
        self.popen.stdout.close()
        return status

    def fault(self, **orders: object) -> Answer:
        content = json.dumps(orders).encode()
        return _send("POST", self.url + "/_faults", {"content-type": JSON}, content, None)

    def counts(self) -> Any:
        return _send("GET", self.url + "/_counts", {}, None, None).json


def test_the_process_serves_counts_takes_faults_and_ends_with_its_parent() -> None:
    process = Process("--lifetime", "6")
    try:
        assert process.url == f"http://127.0.0.1:{process.ready['port']}"
        occam = process.ready["providers"]["occam"]
        assert occam == process.url + "/occam"
        answer = _send(
            "POST", occam + "/auth/access-token", {"content-type": FORM}, urlencode(GOOD_OCCAM).encode(), None
        )
        assert answer.status == 200
        assert process.counts()["occam"]["issued"] == 1
        assert process.counts()["ix-api"]["requests"] == 0
        assert process.fault(provider="occam", down=True).status == 200
        with pytest.raises(http.client.RemoteDisconnected):
            _send("GET", occam + "/me", {}, None, None)
        process.fault(provider="all", clear=True)
        process.fault(provider="occam", fail_with={"status": 503, "headers": {"Retry-After": "1"}})
        assert _send("POST", occam + "/auth/refresh-token", {}, b"", None).status == 503
        process.fault(provider="occam", settings={"access_lifetime": 60}, forget_access_tokens=True)
        assert _send("GET", occam + "/me", bearer(answer.json["access_token"]), None, None).status == 401
        assert process.counts()["occam"]["refused"] == 1
        for wrong in ({"provider": "no"}, {"provider": "occam", "no": 1}, {"provider": "occam", "hold": {"no": 1}}):
            assert process.fault(**wrong).status == 400
    finally:
        assert process.close() == 0


def test_the_process_ends_on_sigterm() -> None:
    process = Process()
    process.popen.send_signal(signal.SIGTERM)
    assert process.popen.wait(TIMEOUT) == 0
    process.close()


def test_the_process_can_give_each_provider_a_port_that_refuses_when_down(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(key)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(certificate, append=True)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    process = Process("--separate", "--tls", str(certificate), str(key))
    try:
        occam = process.ready["providers"]["occam"]
        assert occam.startswith("https://")
        assert urlsplit(occam).port != process.ready["port"]
        assert _send("GET", occam + "/me", {}, None, client).status == 401
        order = json.dumps({"provider": "occam", "down": True}).encode()
        assert _send("POST", process.url + "/_faults", {"content-type": JSON}, order, client).status == 200
        with pytest.raises(ConnectionRefusedError):
            _send("GET", occam + "/me", {}, None, client)
    finally:
        assert process.close() == 0
