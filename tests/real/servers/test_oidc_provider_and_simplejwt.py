"""npm's oidc-provider and Django's simplejwt start, give the answers that brokerd's dialects rely on, and end. The
requests are made with http.client; no code of brokerd runs."""

import os
import select
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.real.servers import DEVICE_CODE, Answer, OidcProvider, SimpleJwt, approve, device_login, introspect

ROOT = Path(__file__).parents[3]
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


# oidc-provider: the grants of this stage


def token(server: OidcProvider, client: str, form: Mapping[str, str], **extra: Any) -> Answer:
    """Asks the token endpoint in the way that this client has to."""
    it = server.clients[client]
    if it.auth == "client_secret_basic":
        return server.send("POST", "/token", form=form, basic=(it.id, it.secret or ""), **extra)
    secret = {} if it.secret is None else {"client_secret": it.secret}
    return server.send("POST", "/token", form={**form, "client_id": it.id, **secret}, **extra)


def issue(server: OidcProvider, client: str, **extra: Any) -> Answer:
    return token(server, client, {"grant_type": "client_credentials"}, **extra)


def refresh(server: OidcProvider, client: str, refresh_token: str) -> Answer:
    return token(server, client, {"grant_type": "refresh_token", "refresh_token": refresh_token})


def revoke(server: OidcProvider, client: str, value: str) -> Answer:
    it = server.clients[client]
    return server.send("POST", "/token/revocation", form={"token": value}, basic=(it.id, it.secret or ""))


def assert_refused(answer: Answer, status: int, error: str) -> None:
    assert (answer.status, answer.json()["error"]) == (status, error), answer


@pytest.mark.real
@pytest.mark.parametrize("client", ["cc-basic", "cc-post", "cc-odd-id", "odd-basic", "odd-post"])
def test_client_credentials_give_an_access_token_and_no_refresh_token(real_oidc: OidcProvider, client: str) -> None:
    answer = token(real_oidc, client, {"grant_type": "client_credentials", "scope": "api:read"})
    assert answer.status == 200, answer
    issued = answer.json()
    assert set(issued) == {"access_token", "expires_in", "token_type", "scope"}
    assert (issued["expires_in"], issued["token_type"], issued["scope"]) == (60, "Bearer", "api:read")
    assert introspect(real_oidc, issued["access_token"])["active"] is True


@pytest.mark.real
def test_the_odd_clients_are_odd_in_every_way_that_basic_can_break(real_oidc: OidcProvider) -> None:
    for name in ("odd-basic", "odd-post"):
        client = real_oidc.clients[name]
        assert client.secret is not None
        assert all(c in client.id and c in client.secret for c in ":%+/& ")


@pytest.mark.real
def test_basic_credentials_that_were_not_form_encoded_are_refused(real_oidc: OidcProvider) -> None:
    client = real_oidc.clients["odd-basic"]
    raw = b64encode(f"{client.id}:{client.secret}".encode()).decode()
    form = {"grant_type": "client_credentials"}
    answer = real_oidc.send("POST", "/token", form=form, headers={"Authorization": f"Basic {raw}"})
    assert_refused(answer, 400, "invalid_request")


@pytest.mark.real
def test_a_wrong_secret_is_401_invalid_client(real_oidc: OidcProvider) -> None:
    form = {"grant_type": "client_credentials"}
    by_basic = real_oidc.send("POST", "/token", form=form, basic=("cc-basic", "wrong"))
    assert_refused(by_basic, 401, "invalid_client")
    assert by_basic.headers["www-authenticate"].startswith("Basic ")
    by_post = {**form, "client_id": "cc-post", "client_secret": "wrong"}
    assert_refused(real_oidc.send("POST", "/token", form=by_post), 401, "invalid_client")


@pytest.mark.real
def test_a_scope_that_the_client_may_not_have_is_400_invalid_scope(real_oidc: OidcProvider) -> None:
    form = {"grant_type": "client_credentials", "scope": "api:write"}
    assert_refused(token(real_oidc, "cc-odd-id", form), 400, "invalid_scope")


@pytest.mark.real
def test_a_scope_that_the_server_does_not_know_is_left_out_of_a_200(real_oidc: OidcProvider) -> None:
    answer = token(real_oidc, "cc-basic", {"grant_type": "client_credentials", "scope": "api:read nope"})
    assert (answer.status, answer.json()["scope"]) == (200, "api:read")


@pytest.mark.real
@pytest.mark.parametrize("client", ["dev-basic", "dev-post", "dev-public"])
def test_six_refreshes_rotate_six_times_and_reuse_kills_the_login(real_oidc: OidcProvider, client: str) -> None:
    chain = [device_login(real_oidc, client)]
    access_token = ""
    for _ in range(6):
        answer = refresh(real_oidc, client, chain[-1])
        assert answer.status == 200, answer
        chain.append(answer.json()["refresh_token"])
        access_token = answer.json()["access_token"]
    assert len(set(chain)) == 7
    assert_refused(refresh(real_oidc, client, chain[-2]), 400, "invalid_grant")
    assert_refused(refresh(real_oidc, client, chain[-1]), 400, "invalid_grant")
    assert introspect(real_oidc, access_token) == {"active": False}


@pytest.mark.real
def test_a_client_without_rotation_is_given_its_refresh_token_again(real_oidc: OidcProvider) -> None:
    refresh_token = device_login(real_oidc, "dev-norotate")
    for _ in range(2):
        assert refresh(real_oidc, "dev-norotate", refresh_token).json()["refresh_token"] == refresh_token


@pytest.mark.real
def test_an_unknown_refresh_token_and_another_clients_are_400_invalid_grant(real_oidc: OidcProvider) -> None:
    assert_refused(refresh(real_oidc, "dev-basic", "x" * 43), 400, "invalid_grant")
    assert_refused(refresh(real_oidc, "dev-basic", device_login(real_oidc, "dev-post")), 400, "invalid_grant")


@pytest.mark.real
def test_revocation_ends_an_access_token(real_oidc: OidcProvider) -> None:
    access_token = issue(real_oidc, "cc-basic").json()["access_token"]
    answer = revoke(real_oidc, "cc-basic", access_token)
    assert (answer.status, answer.text) == (200, "")
    assert introspect(real_oidc, access_token) == {"active": False}


@pytest.mark.real
def test_revocation_of_a_refresh_token_ends_its_login(real_oidc: OidcProvider) -> None:
    issued = refresh(real_oidc, "dev-basic", device_login(real_oidc)).json()
    answer = revoke(real_oidc, "dev-basic", issued["refresh_token"])
    assert (answer.status, answer.text) == (200, "")
    assert_refused(refresh(real_oidc, "dev-basic", issued["refresh_token"]), 400, "invalid_grant")
    assert introspect(real_oidc, issued["access_token"]) == {"active": False}


@pytest.mark.real
def test_revocation_of_a_logins_access_token_ends_the_login_too(real_oidc: OidcProvider) -> None:
    issued = refresh(real_oidc, "dev-basic", device_login(real_oidc)).json()
    assert revoke(real_oidc, "dev-basic", issued["access_token"]).status == 200
    assert_refused(refresh(real_oidc, "dev-basic", issued["refresh_token"]), 400, "invalid_grant")


@pytest.mark.real
def test_revocation_by_another_client_is_200_and_does_nothing(real_oidc: OidcProvider) -> None:
    issued = refresh(real_oidc, "dev-basic", device_login(real_oidc)).json()
    for value in (issued["access_token"], issued["refresh_token"]):
        assert revoke(real_oidc, "cc-basic", value).status == 200
        assert introspect(real_oidc, value)["active"] is True


@pytest.mark.real
def test_revocation_of_a_jwt_is_400_unsupported_token_type(real_oidc: OidcProvider) -> None:
    form = {"grant_type": "client_credentials", "resource": "https://api.test/jwt"}
    access_token = token(real_oidc, "cc-basic", form).json()["access_token"]
    assert_refused(revoke(real_oidc, "cc-basic", access_token), 400, "unsupported_token_type")


@pytest.mark.real
def test_revocation_of_an_unknown_token_is_200_and_by_a_wrong_secret_401(real_oidc: OidcProvider) -> None:
    answer = revoke(real_oidc, "cc-basic", "unknown")
    assert (answer.status, answer.text) == (200, "")
    form = {"token": "unknown"}
    refused = real_oidc.send("POST", "/token/revocation", form=form, basic=("cc-basic", "wrong"))
    assert_refused(refused, 401, "invalid_client")


# oidc-provider: what later issues need of it


@pytest.mark.real
def test_a_device_login_is_pending_until_a_person_denies_it(real_oidc: OidcProvider) -> None:
    begun = real_oidc.send("POST", "/device/auth", form={"client_id": "dev-public", "scope": "openid"}).json()
    poll = {"grant_type": DEVICE_CODE, "device_code": begun["device_code"]}
    assert_refused(token(real_oidc, "dev-public", poll), 400, "authorization_pending")
    approve(real_oidc, begun["user_code"], deny=True)
    assert_refused(token(real_oidc, "dev-public", poll), 400, "access_denied")


@pytest.mark.real
@pytest.mark.parametrize(
    ("client", "key", "algorithm", "kid"),
    [
        ("cc-pkjwt", "pkjwt.key", "ES256", "ec1"),
        ("cc-pkjwt", "pkjwt-rsa.key", "RS256", "rsa1"),
        ("cc-secretjwt", None, "HS256", None),
    ],
)
def test_a_client_authenticates_by_a_signed_assertion(
    real_oidc: OidcProvider, client: str, key: str | None, algorithm: str, kid: str | None
) -> None:
    secret = (real_oidc.folder / key).read_text() if key else real_oidc.clients[client].secret
    now = int(time.time())
    claims = {
        "iss": client,
        "sub": client,
        "aud": real_oidc.issuer,
        "iat": now,
        "exp": now + 60,
        "jti": os.urandom(9).hex(),
    }
    assertion = jwt.encode(claims, secret or "", algorithm, {"kid": kid} if kid else None)
    form = {
        "grant_type": "client_credentials",
        "client_id": client,
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    }
    answer = real_oidc.send("POST", "/token", form=form)
    assert answer.status == 200, answer
    assert_refused(real_oidc.send("POST", "/token", form=form), 401, "invalid_client")  # the same jti again


@pytest.mark.real
def test_a_client_authenticates_by_its_certificate(real_oidc: OidcProvider) -> None:
    def certificate(name: str) -> tuple[Path, Path]:
        return real_oidc.folder / f"{name}.pem", real_oidc.folder / f"{name}.key"

    for client, name in (("cc-mtls-ca", "client"), ("cc-mtls-self", "selfclient")):
        answer = issue(real_oidc, client, certificate=certificate(name))
        assert answer.status == 200, answer
        assert "x5t#S256" in introspect(real_oidc, answer.json()["access_token"])["cnf"]
        assert_refused(issue(real_oidc, client, certificate=certificate("wrongclient")), 401, "invalid_client")
        assert_refused(issue(real_oidc, client), 401, "invalid_client")


@pytest.mark.real
def test_dpop_wants_a_proof_and_then_a_nonce(real_oidc: OidcProvider) -> None:
    key = load_pem_private_key((real_oidc.folder / "pkjwt.key").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    public = jwt.get_algorithm_by_name("ES256").to_jwk(key.public_key(), as_dict=True)

    def proof(**nonce: str) -> dict[str, str]:
        claims = {
            "jti": os.urandom(9).hex(),
            "htm": "POST",
            "htu": real_oidc.token_url,
            "iat": int(time.time()),
            **nonce,
        }
        return {"DPoP": jwt.encode(claims, key, "ES256", {"typ": "dpop+jwt", "jwk": public})}

    assert_refused(issue(real_oidc, "cc-dpop"), 400, "invalid_grant")
    assert issue(real_oidc, "cc-dpop", headers=proof()).json()["token_type"] == "DPoP"
    first = issue(real_oidc, "cc-dpop-nonce", headers=proof())
    assert_refused(first, 400, "use_dpop_nonce")
    second = issue(real_oidc, "cc-dpop-nonce", headers=proof(nonce=first.headers["dpop-nonce"]))
    assert second.status == 200, second


@pytest.mark.real
def test_a_resource_decides_the_form_of_its_tokens(real_oidc: OidcProvider) -> None:
    form = {"grant_type": "client_credentials", "scope": "api:read", "resource": "https://api.test/jwt"}
    access_token = token(real_oidc, "cc-basic", form).json()["access_token"]
    claims = jwt.decode(access_token, options={"verify_signature": False})
    assert (claims["aud"], claims["exp"] - claims["iat"]) == ("https://api.test/jwt", 60)
    assert_refused(token(real_oidc, "cc-basic", {**form, "resource": "urn:nope"}), 400, "invalid_target")


@pytest.mark.real
def test_an_authorization_request_can_be_pushed(real_oidc: OidcProvider) -> None:
    client = real_oidc.clients["code-par"]
    form = {
        "client_id": client.id,
        "response_type": "code",
        "redirect_uri": "https://client.test/cb",
        "scope": "openid",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    answer = real_oidc.send("POST", "/request", form=form, basic=(client.id, client.secret or ""))
    assert answer.status == 201, answer
    assert answer.json()["request_uri"].startswith("urn:")


@pytest.mark.real
def test_lifetimes_and_clock_are_arguments_and_a_restart_forgets_every_token(
    start_oidc: Callable[..., OidcProvider],
) -> None:
    server = start_oidc(access_ttl=2, skew=90, access_format="jwt")
    answer = issue(server, "cc-basic")
    assert answer.json()["expires_in"] == 2
    assert (
        80 < jwt.decode(answer.json()["access_token"], options={"verify_signature": False})["iat"] - time.time() < 100
    )
    assert 80 < parsedate_to_datetime(answer.headers["date"]).timestamp() - time.time() < 100
    refresh_token = device_login(server)

    server.stop()
    with pytest.raises(OSError):
        server.send("GET", "/healthz")
    again = start_oidc(server.folder, port=server.port)
    assert again.url == server.url
    assert_refused(refresh(again, "dev-basic", refresh_token), 400, "invalid_grant")


# simplejwt


def login(server: SimpleJwt) -> dict[str, str]:
    answer = server.send("POST", "/token/", json={"username": "alice", "password": server.users["alice"]})
    assert answer.status == 200, answer
    pair: dict[str, str] = answer.json()
    return pair


def assert_not_valid(answer: Answer) -> None:
    assert (answer.status, answer.json()["code"]) == (401, "token_not_valid"), answer


@pytest.mark.real
def test_simplejwt_gives_a_pair_of_jwts_and_names_no_lifetime(real_simplejwt: SimpleJwt) -> None:
    pair = login(real_simplejwt)
    assert set(pair) == {"access", "refresh"}
    claims = {name: jwt.decode(value, options={"verify_signature": False}) for name, value in pair.items()}
    # exp counts from when the refresh token was made, iat from the access token: a second may have turned in between
    assert claims["access"]["exp"] - claims["access"]["iat"] in {59, 60}
    assert claims["refresh"]["exp"] - claims["refresh"]["iat"] == 3600
    me = real_simplejwt.send("GET", "/me/", headers={"Authorization": f"Bearer {pair['access']}"})
    assert (me.status, me.json()) == (200, {"user": "alice"})


@pytest.mark.real
def test_simplejwt_rotates_refuses_a_used_refresh_token_and_keeps_the_newest(real_simplejwt: SimpleJwt) -> None:
    def refresh(value: str) -> Answer:
        return real_simplejwt.send("POST", "/token/refresh/", json={"refresh": value})

    used = login(real_simplejwt)["refresh"]
    answer = refresh(used)
    assert answer.status == 200, answer
    assert set(answer.json()) == {"access", "refresh"}
    newest = answer.json()["refresh"]
    assert newest != used
    assert_not_valid(refresh(used))
    assert refresh(newest).status == 200  # no family is killed here
    assert_not_valid(refresh("garbage"))


@pytest.mark.real
def test_simplejwt_revokes_a_refresh_token_by_the_blacklist(real_simplejwt: SimpleJwt) -> None:
    pair = login(real_simplejwt)
    blacklisted = real_simplejwt.send("POST", "/token/blacklist/", json={"refresh": pair["refresh"]})
    assert (blacklisted.status, blacklisted.json()) == (200, {})
    assert_not_valid(real_simplejwt.send("POST", "/token/refresh/", json={"refresh": pair["refresh"]}))
    assert_not_valid(real_simplejwt.send("POST", "/token/blacklist/", json={"refresh": pair["refresh"]}))
    me = real_simplejwt.send("GET", "/me/", headers={"Authorization": f"Bearer {pair['access']}"})
    assert me.status == 200  # the access token lives on


@pytest.mark.real
def test_simplejwt_refuses_a_wrong_password_an_inactive_user_and_a_missing_field(real_simplejwt: SimpleJwt) -> None:
    for user, password in (("alice", "wrong"), ("inactive", real_simplejwt.users["inactive"])):
        answer = real_simplejwt.send("POST", "/token/", json={"username": user, "password": password})
        assert answer.status == 401, answer
        assert answer.json() == {"detail": "No active account found with the given credentials"}
    missing = real_simplejwt.send("POST", "/token/", json={"username": "alice"})
    assert (missing.status, missing.json()) == (400, {"password": ["This field is required."]})


@pytest.mark.real
def test_simplejwt_without_the_last_slash_is_a_404_page(real_simplejwt: SimpleJwt) -> None:
    answer = real_simplejwt.send("POST", "/token", json={})
    assert answer.status == 404
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.real
def test_simplejwt_with_djangos_defaults_redirects_limits_and_remembers_after_a_restart(
    start_simplejwt: Callable[..., SimpleJwt],
) -> None:
    server = start_simplejwt(append_slash=True, throttle="1/min", skew=-90, access_ttl=30)
    redirect = server.send("POST", "/token", json={})
    assert (redirect.status, redirect.headers["location"]) == (301, "/token/")
    pair = login(server)
    assert -100 < jwt.decode(pair["access"], options={"verify_signature": False})["iat"] - time.time() < -80
    assert server.send("GET", "/me/", headers={"Authorization": f"Bearer {pair['access']}"}).status == 200

    credentials = {"username": "alice", "password": server.users["alice"]}
    assert server.send("POST", "/throttled/token/", json=credentials).status == 200
    limited = server.send("POST", "/throttled/token/", json=credentials)
    assert limited.status == 429
    assert 0 < int(limited.headers["retry-after"]) <= 60

    server.stop()
    again = start_simplejwt(server.folder, port=server.port)
    assert again.send("POST", "/token/refresh/", json={"refresh": pair["refresh"]}).status == 200


# the harness itself

PARENT = """
import sys
from pathlib import Path
from tests.real.servers import oidc_provider, simplejwt
folder = Path(sys.argv[1])
with oidc_provider(folder / "oidc-provider") as one, simplejwt(folder / "simplejwt") as other:
    print(one.pid, other.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.real
@pytest.mark.usefixtures("real_oidc", "real_simplejwt")  # skips where they cannot run
def test_the_servers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        servers = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        parent.kill()
        ended = [server for server in servers if select.select([server], [], [], 10.0)[0]]
        for server in set(servers) - set(ended):
            signal.pidfd_send_signal(server, signal.SIGKILL)
        for server in servers:
            os.close(server)
    assert len(ended) == 2


@pytest.mark.parametrize(("required", "exit_code"), [("0", 0), ("1", 1)])
def test_a_server_that_cannot_run_is_announced_loudly_and_fails_where_it_is_required(
    required: str, exit_code: int, tmp_path: Path
) -> None:
    one = f"{__file__}::{test_basic_credentials_that_were_not_form_encoded_are_refused.__name__}"
    bare = ["-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(ROOT)]  # without the plugins, to be quick
    no_node = {"PATH": str(tmp_path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "BROKERD_REQUIRE_REAL": required}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *bare, one],
        cwd=ROOT,
        env={**os.environ, **no_node},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == exit_code, run.stdout
    assert "REAL SERVERS DID NOT RUN: oidc-provider needs node" in run.stdout
