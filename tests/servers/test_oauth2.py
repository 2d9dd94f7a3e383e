# Our OAuth 2.0 server: each operation and each error of RFC 6749 and RFC 7009, and the variations of real servers.
from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from urllib.parse import quote_plus, urlencode

import pytest

from tests.servers import (
    OAUTH2_CLIENT,
    OAUTH2_ODD_CLIENT,
    OAUTH2_ODD_SECRET,
    OAUTH2_PASSWORD,
    OAUTH2_POST_CLIENT,
    OAUTH2_POST_SECRET,
    OAUTH2_PUBLIC_CLIENT,
    OAUTH2_SECRET,
    OAUTH2_USER,
    Client,
    OAuth2,
    oauth2,
    serve,
)
from tests.servers.plain_client import FORM, Answer, Headers, bearer, me, post_form, post_json, send


def basic(name: str, secret: str) -> dict[str, str]:
    pair = f"{quote_plus(name)}:{quote_plus(secret)}"
    return {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


async def oauth2_token(provider: OAuth2, headers: Headers | None = None, **fields: str) -> Answer:
    return await post_form(provider.token_url, fields, headers)


OAUTH2_BASIC = basic(OAUTH2_CLIENT, OAUTH2_SECRET)

PASSWORD = {"grant_type": "password", "username": OAUTH2_USER, "password": OAUTH2_PASSWORD}


async def test_oauth2_gives_client_credentials_no_refresh_token() -> None:
    async with serve(provider := OAuth2(oauth2.Settings(access_lifetime=5.5))):
        answer = await oauth2_token(provider, OAUTH2_BASIC, grant_type="client_credentials", scope="read")
        assert answer.status == 200
        assert answer.headers["cache-control"] == "no-store"
        token = answer.json.pop("access_token")
        assert {**answer.json, "access_token": ""} == {
            "access_token": "",
            "token_type": "Bearer",
            "expires_in": 6,
            "scope": "read",
        }
        assert token is not None
        provider.settings.refresh_for_client_credentials = True
        answer = await oauth2_token(provider, OAUTH2_BASIC, grant_type="client_credentials")
        refreshed = await oauth2_token(
            provider, OAUTH2_BASIC, grant_type="refresh_token", refresh_token=answer.json["refresh_token"]
        )
        assert refreshed.status == 200


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        (OAUTH2_BASIC, {}),
        (OAUTH2_BASIC, {"client_id": OAUTH2_CLIENT}),
        ({}, {"client_id": OAUTH2_CLIENT, "client_secret": OAUTH2_SECRET}),
        (basic(OAUTH2_ODD_CLIENT, OAUTH2_ODD_SECRET), {}),
        ({}, {"client_id": OAUTH2_POST_CLIENT, "client_secret": OAUTH2_POST_SECRET}),
        ({}, {"client_id": OAUTH2_PUBLIC_CLIENT}),
    ],
)
async def test_oauth2_authenticates_clients(headers: Headers, fields: Mapping[str, str]) -> None:
    async with serve(provider := OAuth2()):
        answer = await oauth2_token(provider, headers, **PASSWORD, **fields)
        assert answer.status == 200
        assert await me(provider, answer.json["access_token"]) == 200


def unencoded(name: str, secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()}


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({}, {}),
        (basic(OAUTH2_CLIENT, "no"), {}),
        (basic("no", OAUTH2_SECRET), {}),
        ({"authorization": "Basic !!!"}, {}),
        ({"authorization": "Bearer x"}, {}),
        (unencoded(OAUTH2_ODD_CLIENT, OAUTH2_ODD_SECRET), {}),  # RFC 6749 §2.3.1 encodes them first
        ({}, {"client_id": OAUTH2_ODD_CLIENT, "client_secret": OAUTH2_ODD_SECRET}),  # basic only
        (basic(OAUTH2_POST_CLIENT, OAUTH2_POST_SECRET), {}),  # post only
        ({}, {"client_id": OAUTH2_CLIENT}),  # not a public client
        ({}, {"client_id": OAUTH2_PUBLIC_CLIENT, "client_secret": "x"}),
    ],
)
async def test_oauth2_refuses_clients_that_do_not_prove_themselves(headers: Headers, fields: Mapping[str, str]) -> None:
    async with serve(provider := OAuth2()):
        answer = await oauth2_token(provider, headers, **PASSWORD, **fields)
        assert (answer.status, answer.json["error"]) == (401, "invalid_client")
        assert ("www-authenticate" in answer.headers) is ("authorization" in headers)
        assert provider.counts.wrong_credentials == 1
        assert not provider.ledger.tokens


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "invalid_request"),
        ("grant_type=", "invalid_request"),
        ("grant_type=magic", "unsupported_grant_type"),
        ("grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
        ("grant_type=client_credentials&client_secret=x", "invalid_request"),  # two ways at once
        ("grant_type=client_credentials&client_id=other", "invalid_request"),
        ("grant_type=client_credentials&scope=everything", "invalid_scope"),
        ("grant_type=client_credentials&scope=read++write", "invalid_scope"),
        ("grant_type=client_credentials&resource=relative", "invalid_target"),
        ("grant_type=client_credentials&scope=%zz", "invalid_request"),
        ("grant_type=password&username=x", "invalid_request"),
        ("grant_type=password&username=x&password=y", "invalid_grant"),
        ("grant_type=refresh_token", "invalid_request"),
        ("grant_type=refresh_token&refresh_token=unknown", "invalid_grant"),
    ],
)
async def test_oauth2_says_its_errors_as_rfc_6749_does(content: str, error: str) -> None:
    async with serve(provider := OAuth2()):
        headers = {**OAUTH2_BASIC, "content-type": FORM}
        answer = await send("POST", provider.token_url, headers, content.encode())
        assert (answer.status, answer.json["error"]) == (400, error)
        assert set(answer.json) == {"error", "error_description"}
        provider.settings.errors_as_200 = True
        provider.settings.error_uri = "https://idp.example/errors"
        answer = await send("POST", provider.token_url, headers, content.encode())
        assert (answer.status, answer.json["error"]) == (200, error)
        assert answer.json["error_uri"] == "https://idp.example/errors"
        assert not provider.ledger.tokens


async def test_oauth2_takes_forms_by_post_and_nothing_else() -> None:
    async with serve(provider := OAuth2()):
        fields = {"grant_type": "client_credentials"}
        answer = await post_json(provider.token_url, fields, OAUTH2_BASIC)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")
        answer = await post_form(provider.token_url + "?scope=read", fields, OAUTH2_BASIC)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")
        assert (await send("GET", provider.token_url)).status == 405
        assert (await send("POST", provider.base_url + "/elsewhere")).status == 404


async def test_oauth2_ignores_unknown_and_empty_parameters() -> None:
    async with serve(provider := OAuth2()):
        fields = {"grant_type": "client_credentials", "colour": "red", "scope": ""}
        answer = await oauth2_token(provider, OAUTH2_BASIC, **fields)
        assert (answer.status, answer.json["scope"]) == (200, "read write admin")


async def test_oauth2_unauthorized_clients_are_told_so() -> None:
    async with serve(provider := OAuth2()):
        grants = frozenset({"client_credentials"})
        provider.settings.clients[OAUTH2_CLIENT] = Client(OAUTH2_CLIENT, OAUTH2_SECRET, grants=grants)
        public = {"grant_type": "client_credentials", "client_id": OAUTH2_PUBLIC_CLIENT}
        for answer in (
            await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD),
            await post_form(provider.token_url, public),
        ):
            assert (answer.status, answer.json["error"]) == (400, "unauthorized_client")


async def test_oauth2_reads_basic_credentials_as_a_form_and_strictly() -> None:
    async with serve(provider := OAuth2()):
        provider.settings.clients["100%"] = Client("100%", "test-only-secret")
        for headers, status in (
            (basic("100%", "test-only-secret"), 200),
            (unencoded("100%", "test-only-secret"), 401),
        ):
            answer = await oauth2_token(provider, headers, grant_type="client_credentials")
            assert answer.status == status


async def test_oauth2_rotates_refresh_tokens_and_reuse_kills_the_family() -> None:
    async with serve(provider := OAuth2()):
        first = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        refresh = partial(oauth2_token, provider, OAUTH2_BASIC, grant_type="refresh_token")
        second = (await refresh(refresh_token=first["refresh_token"])).json
        assert second["refresh_token"] != first["refresh_token"]
        stranger = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        answer = await refresh(refresh_token=first["refresh_token"])
        assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
        assert await me(provider, second["access_token"]) == 401
        assert (await refresh(refresh_token=second["refresh_token"])).status == 400
        assert await me(provider, stranger["access_token"]) == 200
        assert provider.counts.families_killed == 1


@pytest.mark.parametrize("omit", [False, True])
async def test_oauth2_without_rotation_keeps_the_refresh_token(omit: bool) -> None:
    async with serve(provider := OAuth2(oauth2.Settings(rotation=False, omit_refresh_token=omit))):
        first = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        for _ in range(2):
            answer = await oauth2_token(
                provider, OAUTH2_BASIC, grant_type="refresh_token", refresh_token=first["refresh_token"]
            )
            assert answer.json.get("refresh_token") == (None if omit else first["refresh_token"])


async def test_oauth2_refresh_tokens_are_bound_to_client_and_scope() -> None:
    async with serve(provider := OAuth2()):
        token = provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read", "write")).value
        odd = basic(OAUTH2_ODD_CLIENT, OAUTH2_ODD_SECRET)
        fields = {"grant_type": "refresh_token", "refresh_token": token}
        assert (await oauth2_token(provider, odd, **fields)).json["error"] == "invalid_grant"
        assert (await oauth2_token(provider, OAUTH2_BASIC, **fields, scope="admin")).json["error"] == "invalid_scope"
        narrow = (await oauth2_token(provider, OAUTH2_BASIC, **fields, scope="read")).json
        assert narrow["scope"] == "read"
        fields["refresh_token"] = narrow["refresh_token"]
        assert (await oauth2_token(provider, OAUTH2_BASIC, **fields)).json["scope"] == "read write"


async def test_oauth2_issues_for_audiences_and_resources() -> None:
    async with serve(provider := OAuth2()):
        fields = [
            ("grant_type", "client_credentials"),
            ("resource", "https://a.example/"),
            ("resource", "https://b.example/"),
            ("audience", "c"),
        ]
        headers = {**OAUTH2_BASIC, "content-type": FORM}
        answer = await send("POST", provider.token_url, headers, urlencode(fields).encode())
        about = await send("GET", provider.base_url + "/me", bearer(answer.json["access_token"]))
        assert about.json["audience"] == ["https://a.example/", "https://b.example/", "c"]


async def test_oauth2_answers_as_real_servers_do() -> None:
    settings = oauth2.Settings(
        access_lifetime=6,
        refresh_lifetime=60,
        expires_in="string",
        token_type="bearer",
        refresh_expires_in=True,
        scope_in_answer=False,
    )
    async with serve(provider := OAuth2(settings)):
        answer = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        assert (answer["expires_in"], answer["token_type"]) == ("6", "bearer")
        assert answer["refresh_expires_in"] in {59, 60}
        assert "scope" not in answer
        settings.expires_in = "absent"
        assert "expires_in" not in (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json


async def test_oauth2_revokes_a_refresh_token_with_its_family() -> None:
    async with serve(provider := OAuth2()):
        tokens = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        for _ in range(2):
            fields = {"token": tokens["refresh_token"], "token_type_hint": "refresh_token"}
            answer = await post_form(provider.revocation_url, fields, OAUTH2_BASIC)
            assert (answer.status, answer.body) == (200, b"")
        assert provider.counts.revoked == 1
        assert await me(provider, tokens["access_token"]) == 401
        answer = await oauth2_token(
            provider, OAUTH2_BASIC, grant_type="refresh_token", refresh_token=tokens["refresh_token"]
        )
        assert answer.json["error"] == "invalid_grant"


async def test_oauth2_revokes_an_access_token_alone() -> None:
    async with serve(provider := OAuth2()):
        tokens = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        answer = await post_form(provider.revocation_url, {"token": tokens["access_token"]}, OAUTH2_BASIC)
        assert answer.status == 200
        assert await me(provider, tokens["access_token"]) == 401
        answer = await oauth2_token(
            provider, OAUTH2_BASIC, grant_type="refresh_token", refresh_token=tokens["refresh_token"]
        )
        assert answer.status == 200


async def test_oauth2_revocation_errors() -> None:
    async with serve(provider := OAuth2()):
        tokens = (await oauth2_token(provider, OAUTH2_BASIC, **PASSWORD)).json
        revoke = partial(post_form, provider.revocation_url)
        assert (await revoke({"token": "unknown"}, OAUTH2_BASIC)).status == 200
        assert (await revoke({"token": tokens["access_token"]})).json["error"] == "invalid_client"
        assert (await revoke({}, OAUTH2_BASIC)).json["error"] == "invalid_request"
        odd = basic(OAUTH2_ODD_CLIENT, OAUTH2_ODD_SECRET)
        assert (await revoke({"token": tokens["access_token"]}, odd)).json["error"] == "invalid_grant"
        provider.settings.revocable = frozenset({"refresh_token"})
        answer = await revoke({"token": tokens["access_token"]}, OAUTH2_BASIC)
        assert (answer.status, answer.json["error"]) == (400, "unsupported_token_type")
        provider.fail_with(503, {"Retry-After": "1"}, operation="revoke")
        assert (await revoke({"token": tokens["access_token"]}, OAUTH2_BASIC)).status == 503
        assert provider.counts.revoked == 0
