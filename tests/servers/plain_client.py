# Sends requests to our own providers with the standard library's HTTP client, in a thread, so that none of our code is
# on both ends.
from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

import trio

from tests.servers import (
    CLICK2MAIL_CLIENT,
    CLICK2MAIL_SECRET,
    IX_API_KEY,
    IX_API_SECRET,
    OCCAM_PASSWORD,
    OCCAM_USER,
    Click2Mail,
    IxApi,
    Occam,
    Provider,
)

NOON = 1_800_000_000.25  # a clock's start that is no whole second

TIMEOUT = 10  # seconds for any one exchange

JSON = "application/json"

FORM = "application/x-www-form-urlencoded"

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] in {JSON, "application/problem+json"}
        return json.loads(self.body)


def _send(method: str, url: str, headers: Headers, content: bytes | None, tls: ssl.SSLContext | None) -> Answer:
    parts = urlsplit(url)
    assert parts.hostname
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=TIMEOUT, context=tls
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT)
    try:
        return _on(connection, method, parts.path + (f"?{parts.query}" if parts.query else ""), headers, content)
    finally:
        connection.close()


def _on(
    connection: http.client.HTTPConnection, method: str, target: str, headers: Headers, content: bytes | None = None
) -> Answer:
    connection.request(method, target, content, dict(headers))
    response = connection.getresponse()
    return Answer(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())


async def send(
    method: str,
    url: str,
    headers: Headers | None = None,
    content: bytes | None = None,
    *,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    return await trio.to_thread.run_sync(
        partial(_send, method, url, headers or {}, content, tls), abandon_on_cancel=True
    )


async def post_json(url: str, content: object, headers: Headers | None = None) -> Answer:
    return await send("POST", url, {"content-type": JSON, **(headers or {})}, json.dumps(content).encode())


async def post_form(url: str, fields: Mapping[str, str], headers: Headers | None = None) -> Answer:
    return await send("POST", url, {"content-type": FORM, **(headers or {})}, urlencode(fields).encode())


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def me(provider: Provider[Any], token: str) -> int:
    return (await send("GET", provider.base_url + "/me", bearer(token))).status


# The server, and the faults that every provider has.
async def ix_pair(ix: IxApi, status: int = 201) -> Any:
    answer = await post_json(ix.base_url + "/auth/token", {"api_key": IX_API_KEY, "api_secret": IX_API_SECRET})
    assert answer.status == status
    return answer.json


async def ix_refresh(ix: IxApi, token: str) -> Answer:
    return await post_json(ix.base_url + "/auth/refresh", {"refresh_token": token})


# occam.
async def occam_login(occam: Occam) -> Any:
    answer = await post_form(
        occam.base_url + "/auth/access-token", {"username": OCCAM_USER, "password": OCCAM_PASSWORD}
    )
    assert answer.status == 200
    return answer.json


GOOD_OCCAM = {"username": OCCAM_USER, "password": OCCAM_PASSWORD}

# click2mail.
C2M_KEY = {"x-client-id": CLICK2MAIL_CLIENT}

C2M_BASE = {"grant_type": "client_credentials", "client_id": CLICK2MAIL_CLIENT}

C2M_LOGIN = {**C2M_BASE, "client_secret": CLICK2MAIL_SECRET}


async def c2m_long(provider: Click2Mail, **more: object) -> Any:
    answer = await post_json(provider.base_url + "/auth/tokens/long", {**C2M_LOGIN, **more}, C2M_KEY)
    assert answer.status == 201
    return answer.json


async def c2m_short(provider: Click2Mail, long: str) -> Any:
    answer = await send("POST", provider.base_url + "/auth/tokens/short", bearer(long))
    assert answer.status == 201
    return answer.json
