# Our treezor: each operation and each error that its document describes.
from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.servers import TREEZOR_CLIENT, TREEZOR_PASSWORD, TREEZOR_SECRET, TREEZOR_USER, Treezor, serve, treezor
from tests.servers.plain_client import Answer, bearer, me, post_form, post_json, send

BOUNDARY = "test-only-boundary"

MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


async def post_multipart(url: str, fields: Mapping[str, str]) -> Answer:
    return await send("POST", url, {"content-type": MULTIPART}, multipart(fields))


def multipart(fields: Mapping[str, str]) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return ("".join(parts) + f"--{BOUNDARY}--\r\n").encode()


TREEZOR_APP = {"client_id": TREEZOR_CLIENT, "client_secret": TREEZOR_SECRET}

TREEZOR_LOGIN = {
    **TREEZOR_APP,
    "grant_type": "password",
    "username": TREEZOR_USER,
    "password": TREEZOR_PASSWORD,
}


async def test_treezor_gives_client_credentials_an_access_token_alone() -> None:
    async with serve(provider := Treezor()):
        fields = {**TREEZOR_APP, "grant_type": "client_credentials", "scope": "read_only admin"}
        answer = await post_multipart(provider.base_url + "/oauth/token", fields)
        assert answer.status == 200
        assert set(answer.json) == {"token_type", "expires_in", "access_token"}
        assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 3600)
        about = (await send("GET", provider.base_url + "/me", bearer(answer.json["access_token"]))).json
        assert about["scopes"] == ["read_only", "admin"]


@pytest.mark.parametrize("grant_type", [{"grant_type": "refresh_token"}, {}])
async def test_treezor_refreshes_where_grant_type_says_so_or_is_missing(grant_type: dict[str, str]) -> None:
    async with serve(provider := Treezor()):
        url = provider.base_url + "/oauth/token"
        first = (await post_multipart(url, TREEZOR_LOGIN)).json
        fields = {**TREEZOR_APP, **grant_type, "refresh_token": first["refresh_token"]}
        second = (await post_multipart(url, fields)).json
        assert set(second) == set(first) == {"token_type", "expires_in", "access_token", "refresh_token"}
        assert second["refresh_token"] != first["refresh_token"]
        assert provider.by_operation == {"issue": 1, "refresh": 1}
        answer = await post_multipart(url, fields)
        assert answer.json["errors"][0]["code"] == "invalid_grant"
        assert await me(provider, second["access_token"]) == 401


async def test_treezor_can_leave_the_refresh_token_out_and_keep_the_old_one_good() -> None:
    async with serve(provider := Treezor(treezor.Settings(omit_refresh_token=True))):
        url = provider.base_url + "/oauth/token"
        first = (await post_multipart(url, TREEZOR_LOGIN)).json
        fields = {**TREEZOR_APP, "grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
        for _ in range(2):
            assert set((await post_multipart(url, fields)).json) == {"token_type", "expires_in", "access_token"}


async def test_treezor_without_rotation_repeats_the_refresh_token() -> None:
    async with serve(provider := Treezor(treezor.Settings(rotation=False))):
        url = provider.base_url + "/oauth/token"
        first = (await post_multipart(url, TREEZOR_LOGIN)).json
        fields = {**TREEZOR_APP, "grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
        for _ in range(2):
            assert (await post_multipart(url, fields)).json["refresh_token"] == first["refresh_token"]


async def test_treezor_states_expires_in_as_asked() -> None:
    async with serve(provider := Treezor(treezor.Settings(access_lifetime=5.2))):
        url = provider.base_url + "/oauth/token"
        fields = {**TREEZOR_APP, "grant_type": "client_credentials"}
        assert (await post_multipart(url, fields)).json["expires_in"] == 6
        provider.settings.expires_in = "string"
        assert (await post_multipart(url, fields)).json["expires_in"] == "6"
        provider.settings.expires_in = "absent"
        assert "expires_in" not in (await post_multipart(url, fields)).json


GRANT_TYPE = b'form-data; name="grant_type"'

FILE = multipart(TREEZOR_LOGIN).replace(GRANT_TYPE, GRANT_TYPE + b'; filename="a"')

ENCODED = multipart(TREEZOR_LOGIN).replace(GRANT_TYPE, GRANT_TYPE + b"\r\nContent-Transfer-Encoding: quoted-printable")

UNFINISHED = multipart(TREEZOR_LOGIN).removesuffix(f"--{BOUNDARY}--\r\n".encode())


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (multipart({**TREEZOR_LOGIN, "client_secret": "no"}), "invalid_client"),
        (multipart({**TREEZOR_LOGIN, "client_id": "no"}), "invalid_client"),
        (multipart({**TREEZOR_LOGIN, "password": "no"}), "invalid_grant"),
        (multipart({**TREEZOR_LOGIN, "scope": "everything"}), "invalid_scope"),
        (multipart({**TREEZOR_LOGIN, "grant_type": "magic"}), "unsupported_grant_type"),
        (multipart({**TREEZOR_LOGIN, "colour": "red"}), "invalid_request"),
        (multipart({**TREEZOR_LOGIN, "grant_type": "client_credentials"}), "invalid_request"),
        (multipart(TREEZOR_APP), "invalid_request"),  # grant_type defaults to refresh_token
        (multipart({**TREEZOR_APP, "refresh_token": "unknown"}), "invalid_grant"),
        (multipart({**TREEZOR_LOGIN, "username": ""}), "invalid_request"),
        (UNFINISHED, "invalid_request"),
        (UNFINISHED + f"--{BOUNDARY}\r\n".encode(), "invalid_request"),
        (multipart(TREEZOR_LOGIN).replace(b"client_id", b"client_secret"), "invalid_request"),  # twice
        (multipart(TREEZOR_LOGIN).replace("ä".encode(), b"\xff"), "invalid_request"),
        (FILE, "invalid_request"),
        (ENCODED, "invalid_request"),
        (b"", "invalid_request"),
    ],
)
@pytest.mark.parametrize("status", [400, 401])
async def test_treezor_says_its_errors_in_its_own_form(content: bytes, code: str, status: int) -> None:
    async with serve(provider := Treezor(treezor.Settings(error_status=status))):
        answer = await send("POST", provider.base_url + "/oauth/token", {"content-type": MULTIPART}, content)
        assert answer.status == status
        (error,) = answer.json["errors"]
        assert set(error) == {"type", "code", "message", "docUrl"}
        assert error["code"] == code
        assert not provider.ledger.tokens


async def test_treezor_takes_nothing_but_multipart_and_post() -> None:
    async with serve(provider := Treezor()):
        url = provider.base_url + "/oauth/token"
        for answer in (
            await post_form(url, TREEZOR_LOGIN),
            await post_json(url, TREEZOR_LOGIN),
            await send("POST", url, {"content-type": "multipart/form-data"}, multipart(TREEZOR_LOGIN)),
        ):
            assert (answer.status, answer.json["errors"][0]["code"]) == (400, "invalid_request")
        answer = await send("GET", url)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert (await send("GET", provider.base_url + "/elsewhere")).json["errors"][0]["code"] == "not_found"


@pytest.mark.parametrize("value", ["ä€ %41+&=", " spaces around ", "line\r\nbreaks\nand\r", "--" + BOUNDARY + "x"])
async def test_treezor_reads_multipart_values_byte_by_byte(value: str) -> None:
    async with serve(provider := Treezor()):
        provider.settings.users[TREEZOR_USER] = value
        url = provider.base_url + "/oauth/token"
        assert (await post_multipart(url, {**TREEZOR_LOGIN, "password": value})).status == 200


async def test_treezor_refresh_tokens_are_bound_to_their_client() -> None:
    async with serve(provider := Treezor()):
        provider.settings.clients["test-only-other"] = "test-only-other-secret"
        token = provider.new_refresh_token(TREEZOR_USER, client=TREEZOR_CLIENT).value
        other = {"client_id": "test-only-other", "client_secret": "test-only-other-secret"}
        for app, status in ((other, 400), (TREEZOR_APP, 200)):
            answer = await post_multipart(provider.base_url + "/oauth/token", {**app, "refresh_token": token})
            assert answer.status == status


async def test_treezor_narrows_a_scope_at_refresh_and_never_widens_it() -> None:
    async with serve(provider := Treezor()):
        url = provider.base_url + "/oauth/token"
        first = (await post_multipart(url, {**TREEZOR_LOGIN, "scope": "read_only admin"})).json
        fields = {**TREEZOR_APP, "refresh_token": first["refresh_token"]}
        answer = await post_multipart(url, {**fields, "scope": "read_write"})
        assert answer.json["errors"][0]["code"] == "invalid_scope"
        token = (await post_multipart(url, {**fields, "scope": "admin"})).json["access_token"]
        assert (await send("GET", provider.base_url + "/me", bearer(token))).json["scopes"] == ["admin"]
