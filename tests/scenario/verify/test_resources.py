# What is believed of a resource's metadata (RFC 9728), of its server's, and of the answer to a registration (RFC 7591):
# an outsider's text must lead nowhere else, and break nothing where it is written down.
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import tomli

from brokerd.config.load import load
from brokerd.config.settings import Configuration
from brokerd.core.exchange.server_metadata import Metadata
from brokerd.core.exchange.steps import Request, Response
from brokerd.core.ports import AddressRefused
from brokerd.core.secret import Secret
from brokerd.core.timing.moment import Moment
from brokerd.dialects.oauth2.registration import Client
from brokerd.setup.new_grant import CannotAdd, TokenSource, at_server, look, name_for, register

NOW = Moment(1_700_000_000.0, 100.0, "boot")
API, IDP = "https://api.test/mcp", "https://idp.test"
KNOWN = "https://api.test/.well-known/oauth-protected-resource"
SERVER = "https://idp.test/.well-known/oauth-authorization-server"
ABOUT = {"resource": API, "authorization_servers": [IDP], "scopes_supported": ["read"]}
METADATA = {
    "issuer": IDP,
    "token_endpoint": f"{IDP}/token",
    "device_authorization_endpoint": f"{IDP}/device",
    "authorization_endpoint": f"{IDP}/authorize",
    "registration_endpoint": f"{IDP}/register",
    "token_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
}
Answers = Mapping[str, "tuple[int, object] | tuple[int, object, str]"]


class Web:
    """An Http port: what stands at each URL; anything else is 404. `public`: all of it is at public addresses."""

    def __init__(self, answers: Answers, *, public: bool = False, private: str = "") -> None:
        self.answers = answers
        self.asked: list[Request] = []
        self.public = public
        self.private = private  # a URL that is at an address that is not public

    async def send(self, request: Request) -> Response:
        self.asked.append(request)
        if request.guarded and request.url == self.private:
            raise AddressRefused("idp.test:443: it is at an address that is not public", sent=False)
        status, body, *challenge = self.answers.get(request.url, (404, b""))
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = (("www-authenticate", "Basic"), ("www-authenticate", str(challenge[0]))) if challenge else ()
        return Response(status, headers, content, NOW, NOW, self.public and request.url != self.private)

    def sweep(self) -> None: ...

    async def aclose(self) -> None: ...


async def found(answers: Answers, url: str = API, issuer: str | None = None) -> TokenSource:
    return await look(Web({SERVER: (200, METADATA), **answers}), url, issuer)


async def refusal(answers: Answers, url: str = API, issuer: str | None = None) -> str:
    with pytest.raises(CannotAdd) as caught:
        await found(answers, url, issuer)
    assert str(caught.value).isprintable()
    return str(caught.value)


# -- the resource


async def test_the_document_lies_between_host_and_path() -> None:
    web = Web({f"{KNOWN}/mcp": (200, ABOUT), SERVER: (200, METADATA)})
    place = await look(web, API, None)
    assert [each.url for each in web.asked] == [f"{KNOWN}/mcp", SERVER]
    assert place.resource is not None
    assert (place.resource.identifier, place.resource.scopes) == (API, ("read",))


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer resource_metadata="https://api.test/doc"',
        "bearer error=invalid_token, RESOURCE_METADATA = https://api.test/doc",
        'DPoP algs="ES256", Bearer realm="x, resource_metadata=\\"https://evil.test/\\"", resource_metadata="https://api.test/doc"',
    ],
)
async def test_else_where_the_challenge_says(challenge: str) -> None:
    answers = {API: (401, b"", challenge), "https://api.test/doc": (200, ABOUT)}
    place = await found(answers)
    assert place.resource is not None


async def test_else_that_of_the_whole_origin() -> None:
    place = await found({KNOWN: (200, {**ABOUT, "resource": "https://api.test/"})})
    assert place.resource is not None
    assert place.resource.identifier == "https://api.test/"  # as the server spells it


@pytest.mark.parametrize("answer", [(404, b""), (403, b""), (200, b"<html>a page for any path</html>"), (200, [])])
async def test_without_metadata_an_issuer_has_to_be_named(answer: tuple[int, object]) -> None:
    said = await refusal({f"{KNOWN}/mcp": answer, API: (200, b"<html>"), KNOWN: answer})
    assert said == f"resource: {API} has no metadata (RFC 9728); name its authorization server: --issuer URL"


@pytest.mark.parametrize("other", ["https://api.test/mcp/", "https://evil.test/mcp", "https://api.test", 5, None])
async def test_a_document_about_another_resource_is_not_believed(other: object) -> None:
    said = await refusal({f"{KNOWN}/mcp": (200, {**ABOUT, "resource": other})})
    assert f'expected "{API}" (RFC 9728 §3.3)' in said


@pytest.mark.parametrize(
    "place",
    ["https://evil.test/doc", "http://api.test/doc", "https://api.test@evil.test/doc", "https://api.test:8443/doc"],
)
async def test_a_challenge_that_leads_elsewhere_is_not_followed(place: str) -> None:
    answers = {API: (401, b"", f'Bearer resource_metadata="{place}"'), place: (200, ABOUT)}
    assert "which is on another origin" in await refusal(answers)


@pytest.mark.parametrize(
    "server",
    ["http://idp.test", "https://user@idp.test", "https://idp.test/#x", "https://idp.test?a=b", "file:///etc/passwd"],
)
async def test_a_server_that_is_less_safe_than_the_resource_is_not_asked(server: str) -> None:
    said = await refusal({f"{KNOWN}/mcp": (200, {**ABOUT, "authorization_servers": [server]})})
    assert "expected the https:// URL of an issuer" in said


async def test_of_several_servers_one_has_to_be_chosen_and_of_its_own() -> None:
    answers = {f"{KNOWN}/mcp": (200, {**ABOUT, "authorization_servers": ["https://other.test", IDP]})}
    said = await refusal(answers)
    assert (
        said == f"the resource names several authorization servers; choose one: --issuer URL: https://other.test, {IDP}"
    )
    assert (await found(answers, issuer=IDP)).metadata.issuer == IDP
    assert "none of the resource's own" in await refusal(answers, issuer="https://third.test")
    assert "names no authorization server" in await refusal({f"{KNOWN}/mcp": (200, {"resource": API})})


async def test_a_server_that_says_to_be_another_is_not_believed() -> None:
    said = await refusal({f"{KNOWN}/mcp": (200, ABOUT), SERVER: (200, {**METADATA, "issuer": "https://evil.test"})})
    assert 'names the issuer "https://evil.test"' in said


async def test_what_a_public_resource_names_must_be_public() -> None:
    answers = {f"{KNOWN}/mcp": (200, ABOUT), SERVER: (200, METADATA)}
    with pytest.raises(CannotAdd, match="an address that is not public"):
        await look(Web(answers, public=True, private=SERVER), API, None)
    place = await look(Web(answers, public=True), API, None)
    with pytest.raises(CannotAdd, match="an address that is not public"):
        await register(Web({}, public=True, private=f"{IDP}/register"), place, "brokerd", ())
    assert await look(Web(answers, private=SERVER), API, None)  # a private one may name another


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_is_away_is_said_to_be(status: int) -> None:
    assert f"the provider answered {status}" in await refusal({f"{KNOWN}/mcp": (status, b"")})


async def test_text_from_outside_steers_no_terminal() -> None:
    said = await refusal({f"{KNOWN}/mcp": (200, {**ABOUT, "resource": "https://x/\x1b[2J\nroot:"})})
    assert "\x1b" not in said


# -- the registration


def place(**changed: object) -> TokenSource:
    endpoints = {name: str(value) for name, value in {**METADATA, **changed}.items() if name.endswith("endpoint")}
    return TokenSource(Metadata(IDP, NOW, endpoints, auth_methods=("client_secret_post", "none")), None)


async def registered(status: int, body: object, where: TokenSource | None = None) -> tuple[Client, dict[str, object]]:
    web = Web({f"{IDP}/register": (status, body)})
    client = await register(web, where or place(), "brokerd on here", ["read", "write"])
    sent: dict[str, object] = json.loads(web.asked[0].body)
    return client, sent


@pytest.mark.parametrize("status", [200, 201])
async def test_a_native_client_without_a_secret_is_asked_for(status: int) -> None:
    client, sent = await registered(status, {"client_id": "c-1"})
    assert client == Client("c-1", "none", "device_code")
    assert sent == {
        "client_name": "brokerd on here",
        "application_type": "native",
        "redirect_uris": ["http://127.0.0.1/callback"],
        "grant_types": ["urn:ietf:params:oauth:grant-type:device_code", "authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "scope": "read write",
    }


async def test_what_the_server_registered_instead_counts() -> None:
    body = {
        "client_id": "c-1",
        "client_secret": "test-only-client-secret",
        "client_secret_expires_at": 0,
        "token_endpoint_auth_method": "client_secret_basic",
        "grant_types": ["authorization_code"],
        "registration_access_token": "test-only-registration",
        "registration_client_uri": f"{IDP}/register/c-1",
    }
    client, _ = await registered(201, body)
    assert (client.auth_method, client.grant_type, client.secret_ends) == (
        "client_secret_basic",
        "authorization_code",
        None,
    )
    assert client.secret == Secret("test-only-client-secret")
    assert client.access_token == Secret("test-only-registration")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, {"error": "invalid_redirect_uri", "error_description": "no\x1b[2J"}, "400 invalid_redirect_uri: no"),
        (401, {"error": "invalid_token"}, "format: invalid_token"),
        (403, b"", "not in the provider's format"),
        (200, b"<html>log in to our network</html>", "not in the provider's format"),
        (201, {"client_id": "a\nb"}, "not in the provider's format"),
        (201, {"client_id": ""}, "not in the provider's format"),
        (
            201,
            {"client_id": "c", "token_endpoint_auth_method": "private_key_jwt"},
            "client authentication that needs more",
        ),
        (
            201,
            {"client_id": "c", "token_endpoint_auth_method": "client_secret_basic"},
            "client authentication that needs more",
        ),
        (201, {"client_id": "c", "grant_types": ["client_credentials"]}, "allows the client no login by a person"),
        (503, b"", "answered 503"),
    ],
)
async def test_a_registration_that_is_none_is_said(status: int, body: object, said: str) -> None:
    with pytest.raises(CannotAdd) as caught:
        await registered(status, body)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()


async def test_a_server_that_registers_nobody_by_itself_wants_a_client_by_hand() -> None:
    without = TokenSource(Metadata(IDP, NOW, {"token_endpoint": f"{IDP}/token"}), None)
    with pytest.raises(CannotAdd, match=r"redirect URI http://127\.0\.0\.1/callback, and name it: --client-id ID"):
        await registered(201, {}, without)


# -- what is written


def test_whatever_a_server_says_is_text_in_the_file(tmp_path: Path) -> None:
    odd = 'c"]\\\x7f é 𝄞 \n[daemon]'
    client = Client(
        odd, "client_secret_post", "device_code", Secret("test-only-secret"), None, Secret("test-only-token")
    )
    texts = at_server(place(), client, "odd.name", ['r"', "w"], None).files(tmp_path)
    assert [path.name for path in texts] == ["odd.name.client_secret", "odd.name.registration", "odd.name.toml"]
    drop_in = list(texts)[-1]
    assert "test-only" not in texts[drop_in]
    table = tomli.loads(texts[drop_in])
    assert set(table) == {"providers", "grants"}
    assert table["grants"]["odd.name"]["credentials"]["client_id"] == odd
    assert table["grants"]["odd.name"]["scope"] == ['r"', "w"]
    (tmp_path / "conf.d").mkdir()
    drop_in.write_text(texts[drop_in])
    (tmp_path / "brokerd.toml").touch()
    assert "odd.name" in load(tmp_path / "brokerd.toml").grants


def test_the_name_is_the_hosts_unless_it_is_chosen_and_is_nobody_elses() -> None:
    nothing = Configuration("x")
    assert name_for("https://API.test:8443/mcp", nothing, None) == "api.test"
    assert name_for("https://[::1]:8443/mcp", nothing, None) == "1"
    assert name_for("https://api.test/", nothing, "tools") == "tools"
    with pytest.raises(CannotAdd, match="choose one: --name"):
        name_for("https://api.test/", nothing, "../x")
    with pytest.raises(CannotAdd, match="there already, among the providers"):
        name_for("https://api.test/", Configuration("x", providers={"api.test": None}), None)  # type: ignore[dict-item]
