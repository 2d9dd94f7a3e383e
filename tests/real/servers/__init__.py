"""The servers that nobody here wrote: starts npm's oidc-provider and Django's simplejwt for a test, and ends them.

Each runs on a free port of loopback, over HTTPS, with a CA of its own, and never outlives the process that started it.
What it is given as `folder` is its state: certificates and log, and for simplejwt the database. Started again in the
same folder (and on the same `port`) it is the same server after a restart; oidc-provider's tokens are gone then.

Tests mostly want the fixtures in fixtures.py, which skip, loudly, where a server cannot run.
"""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.real.servers.browser import approve_device
from tests.real.servers.calls import Answer, send
from tests.real.servers.certificates import make_certificates
from tests.real.servers.child import Child, UnavailableError, start
from tests.real.servers.packages import install, node

__all__ = [
    "Answer",
    "Client",
    "OidcProvider",
    "Server",
    "SimpleJwt",
    "UnavailableError",
    "approve",
    "device_login",
    "introspect",
    "oidc_provider",
    "simplejwt",
]

HERE = Path(__file__).parent
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
LOGIN_SCOPE = "openid offline_access api:read api:write"  # without offline_access there is no refresh token


@dataclass(frozen=True)
class Client:
    """A client that oidc-provider knows. `auth` is its token_endpoint_auth_method."""

    id: str
    secret: str | None
    auth: str
    scope: str


@dataclass(frozen=True)
class Server:
    """A running server. `url` has no slash at its end; `log` is the file with everything it printed."""

    url: str
    port: int
    folder: Path
    child: Child

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        return self.child.pid

    def stop(self) -> None:
        """Ends it before its time: an outage. Doing so twice is fine."""
        self.child.stop()

    def send(
        self,
        method: str,
        path: str,
        *,
        form: Mapping[str, str] | None = None,
        json: object = None,
        headers: Mapping[str, str] | None = None,
        basic: tuple[str, str] | None = None,
        certificate: tuple[Path, Path] | None = None,
    ) -> Answer:
        """One exchange by http.client, on a connection of its own. `basic` is form-encoded first (RFC 6749 2.3.1);
        `certificate` names the files of a client's certificate and key."""
        return send(
            f"{self.url}{path}",
            self.ca_file,
            method,
            form=form,
            json=json,
            headers=headers,
            basic=basic,
            certificate=certificate,
        )


@dataclass(frozen=True)
class OidcProvider(Server):
    """`clients` goes by the names in server.mjs: cc-basic, cc-post, cc-odd-id, odd-basic, odd-post, dev-basic, ….
    In `folder` lie pkjwt.key, pkjwt-rsa.key and pkjwt-ed.key (kid ec1, rsa1 and ed1), and client, wrongclient and
    selfclient (.pem and .key) for mutual TLS."""

    clients: Mapping[str, Client]

    @property
    def issuer(self) -> str:
        return self.url

    @property
    def issued(self) -> list[str]:
        """Every opaque token, authorization code and device code that it ever gave out."""
        return (self.folder / "issued").read_text().split()

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    @property
    def revocation_url(self) -> str:
        return f"{self.url}/token/revocation"

    @property
    def introspection_url(self) -> str:
        return f"{self.url}/token/introspection"

    @property
    def device_authorization_url(self) -> str:
        return f"{self.url}/device/auth"


@dataclass(frozen=True)
class SimpleJwt(Server):
    """`users` maps names to passwords: alice and bob may log in, inactive may not."""

    users: Mapping[str, str]

    @property
    def token_url(self) -> str:
        return f"{self.url}/token/"

    @property
    def refresh_url(self) -> str:
        return f"{self.url}/token/refresh/"

    @property
    def blacklist_url(self) -> str:
        return f"{self.url}/token/blacklist/"

    @property
    def me_url(self) -> str:
        return f"{self.url}/me/"


@contextlib.contextmanager
def oidc_provider(
    folder: Path,
    *,
    access_ttl: int = 60,
    refresh_ttl: int = 3600,
    device_ttl: int = 300,
    rotate: bool = True,
    access_format: Literal["opaque", "jwt"] | None = None,
    skew: int = 0,
    port: int = 0,
) -> Iterator[OidcProvider]:
    """oidc-provider, ready to answer. Lifetimes and `skew` (its clock is ahead by so much) are in seconds; without
    `access_format` the resource decides: urn:api:opaque (the default) or https://api.test/jwt.

    Raises UnavailableError where node or npm is missing or npm cannot install."""
    program = node()
    package = install(HERE / "oidc-provider")
    make_certificates(folder)
    env = {
        "PKI": str(folder),
        "PORT": str(port),
        "ACCESS_TTL": str(access_ttl),
        "REFRESH_TTL": str(refresh_ttl),
        "DEVICE_TTL": str(device_ttl),
        "ROTATE": "1" if rotate else "0",
        "FORCE_ACCESS_FORMAT": access_format or "",
        "SKEW": str(skew),
    }
    with start([program, str(package / "server.mjs")], env, folder / "server.log") as (child, ready):
        clients = {name: Client(**client) for name, client in ready["clients"].items()}
        server = OidcProvider(ready["url"], ready["port"], folder, child, clients)
        assert server.send("GET", "/healthz").status == 200
        yield server


@contextlib.contextmanager
def simplejwt(
    folder: Path,
    *,
    access_ttl: int = 60,
    refresh_ttl: int = 3600,
    throttle: str = "5/min",
    append_slash: bool = False,
    skew: int = 0,
    port: int = 0,
) -> Iterator[SimpleJwt]:
    """simplejwt, and knox under /knox, ready to answer. `throttle` limits POST /throttled/token/ alone; with
    `append_slash` a missing slash is answered by a redirect (Django's default) rather than by 404.

    Raises UnavailableError where Django is missing."""
    try:
        import knox  # noqa: F401
        import rest_framework_simplejwt  # noqa: F401
    except ImportError as missing:
        raise UnavailableError(f"simplejwt needs Django and its parts: {missing}") from missing
    make_certificates(folder)
    env = {
        "STATE": str(folder),
        "CERTIFICATE": str(folder / "server.chain.pem"),
        "PORT": str(port),
        "ACCESS_TTL": str(access_ttl),
        "REFRESH_TTL": str(refresh_ttl),
        "THROTTLE": throttle,
        "APPEND_SLASH": "1" if append_slash else "0",
        "SKEW": str(skew),
    }
    program = [sys.executable, str(HERE / "simplejwt" / "app.py")]
    with start(program, env, folder / "server.log") as (child, ready):
        server = SimpleJwt(ready["url"], ready["port"], folder, child, ready["users"])
        assert server.send("GET", "/me/").status == 401
        yield server


def device_login(server: OidcProvider, client: str = "dev-basic", *, user: str = "alice") -> str:
    """A person logs in: the device flow (RFC 8628) from end to end. Returns the refresh token, for `brokerctl import`.

    `client` is dev-public, dev-basic, dev-post or dev-norotate: those that need no key."""
    form, basic = _authentication(server.clients[client])
    begun = server.send("POST", "/device/auth", form={**form, "scope": LOGIN_SCOPE}, basic=basic)
    assert begun.status == 200, begun
    approve(server, begun.json()["user_code"], user=user)
    code = {"grant_type": DEVICE_CODE, "device_code": begun.json()["device_code"]}
    answer = server.send("POST", "/token", form={**form, **code}, basic=basic)
    assert answer.status == 200, answer
    return str(answer.json()["refresh_token"])


def approve(server: OidcProvider, user_code: str, *, user: str = "alice", deny: bool = False) -> None:
    """The person at the browser: opens the page, types the code, logs in as `user` and consents, or aborts."""
    approve_device(server.url, server.ca_file, user_code, user=user, deny=deny)


def introspect(server: OidcProvider, token: str) -> dict[str, Any]:
    """What the server itself says of a token: {"active": False}, or its claims (RFC 7662)."""
    rs = server.clients["rs"]
    answer = server.send("POST", "/token/introspection", form={"token": token}, basic=(rs.id, rs.secret or ""))
    assert answer.status == 200, answer
    claims: dict[str, Any] = answer.json()
    return claims


def _authentication(client: Client) -> tuple[dict[str, str], tuple[str, str] | None]:
    """How a client shows who it is: form fields, and what goes into the Authorization header."""
    if client.auth == "client_secret_basic":
        assert client.secret is not None
        return {"client_id": client.id}, (client.id, client.secret)
    if client.auth == "client_secret_post":
        assert client.secret is not None
        return {"client_id": client.id, "client_secret": client.secret}, None
    assert client.auth == "none", f"{client.id} authenticates by {client.auth}: a key is needed"
    return {"client_id": client.id}, None
