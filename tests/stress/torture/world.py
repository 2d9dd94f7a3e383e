# The providers of the torture and the grants at them: single-use refresh tokens everywhere, and each way to come back
# from a lost answer: a person, credentials, a grace of the provider's.
from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

import trio

from tests.real.servers import OidcProvider, SimpleJwt, device_login, introspect
from tests.scenario.daemon.harness import CLIENT, FIVE, IMPORTED, Table
from tests.scenario.daemon.test_real_servers import SIMPLEJWT
from tests.servers import OAUTH2_CLIENT, OAUTH2_PASSWORD, OAUTH2_SECRET, OAUTH2_USER, OAuth2, Server, oauth2
from tests.stress.torture.relay import Relay

LIFETIME = 2  # seconds of every access token: what may be used up is sent again soon
REFRESH_LIFETIME = 86_400  # seconds; none ends by itself
GRACE = 60.0  # seconds, of the provider that has one


class Mends(StrEnum):
    """What helps a grant whose new refresh token was lost with its answer."""

    PERSON = "a person"
    CREDENTIALS = "its credentials"
    GRACE = "the provider's grace"


@dataclass(frozen=True)
class Grant:
    """A grant under torture. `login`: a person logs in, and has a refresh token to import; `is_alive`: what its
    provider says of an access token. Both block."""

    name: str
    table: Table
    relay: Relay
    mends: Mends
    login: Callable[[], str]
    is_alive: Callable[[str], bool]


@dataclass
class World:
    """Everything that stands outside of brokerd."""

    providers: dict[str, Table] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    recipes: dict[str, str] = field(default_factory=dict)
    relays: list[Relay] = field(default_factory=list)
    passwords: set[str] = field(default_factory=set)

    def add(self, name: str, table: Table, relay: Relay, mends: Mends, login: Any, is_alive: Any) -> None:
        self.grants[name] = Grant(name, table, relay, mends, login, is_alive)

    @property
    def secrets(self) -> set[str]:
        """Every value that nothing of brokerd's may say."""
        return self.passwords.union(*(relay.secrets for relay in self.relays))


async def world(nursery: trio.Nursery, oidc: OidcProvider, jwt: SimpleJwt) -> World:
    """The real servers, whose tokens live for LIFETIME and REFRESH_LIFETIME, and two of our own, each behind a relay
    that runs in `nursery`."""
    made = World()
    await _oidc(made, nursery, oidc)
    await _simplejwt(made, nursery, jwt)
    await _strict(made, nursery, "strict", Mends.PERSON)
    await _strict(made, nursery, "graceful", Mends.GRACE)
    return made


async def _before(made: World, nursery: trio.Nursery, server: OidcProvider | SimpleJwt, issues_to: str = "") -> Relay:
    """A relay with the server's own certificate."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(server.folder / "server.pem", server.folder / "server.key")
    relay = Relay(server.url, server.ca_file, issues_to)
    await nursery.start(Server({"": relay}, tls).run)
    made.relays.append(relay)
    return relay


async def _oidc(made: World, nursery: trio.Nursery, server: OidcProvider) -> None:
    relay = await _before(made, nursery, server)
    made.providers["op"] = {"dialect": "oauth2", "token_url": f"{relay.url}/token", "ca_file": server.ca_file}
    for name in ("dev-basic", "dev-post", "dev-public"):
        client = server.clients[name]
        credentials = {"client_id": client.id} | ({} if client.secret is None else {"client_secret": client.secret})
        made.passwords |= {client.secret} if client.secret else set()
        table = {"grant_type": "refresh_token", "client_auth": client.auth, "credentials": credentials}
        login = partial(device_login, server, name)
        is_alive = partial(_introspected, server)
        made.add(f"op-{name}", {"provider": "op", **table}, relay, Mends.PERSON, login, is_alive)


async def _simplejwt(made: World, nursery: trio.Nursery, server: SimpleJwt) -> None:
    relay = await _before(made, nursery, server, issues_to="jwt-alice")
    made.recipes["simplejwt"] = SIMPLEJWT
    made.providers["jwt"] = {"dialect": "simplejwt", "base_url": relay.url, "ca_file": server.ca_file}
    made.passwords |= set(server.users.values())
    alice = {"username": "alice", "password": server.users["alice"]}
    for name, credentials, mends in (("alice", alice, Mends.CREDENTIALS), ("bob", {}, Mends.PERSON)):
        table = {"provider": "jwt", **({"credentials": credentials} if credentials else {})}
        login, is_alive = partial(_logged_in, server, name), partial(_used, server)
        made.add(f"jwt-{name}", table, relay, mends, login, is_alive)


async def _strict(made: World, nursery: trio.Nursery, name: str, mends: Mends) -> None:
    """Our own server, stricter than those that others wrote, and the one that can have a grace."""
    grace = GRACE if mends is Mends.GRACE else 0.0
    settings = oauth2.Settings(access_lifetime=LIFETIME, refresh_lifetime=REFRESH_LIFETIME, reuse_grace=grace)
    provider = OAuth2(settings)
    await nursery.start(Server({"": provider}).run)
    relay = Relay(provider.base_url, issues_to=f"{name}-password")
    await nursery.start(Server({"": relay}).run)
    made.relays.append(relay)
    made.passwords |= {OAUTH2_SECRET, OAUTH2_PASSWORD}
    table: Table = {"dialect": "oauth2", "token_url": f"{relay.url}/token"}
    made.providers[name] = {**table, "reuse_grace": grace / 2} if grace else table

    def login() -> str:
        return provider.new_refresh_token(OAUTH2_USER, client=OAUTH2_CLIENT, scopes=("read",)).value

    def is_alive(value: str) -> bool:
        token = provider.ledger.find(value, "access")
        return token is not None and token.alive(provider.settings.now())

    made.add(f"{name}-login", {**IMPORTED, "provider": name, "credentials": CLIENT}, relay, mends, login, is_alive)
    if mends is Mends.PERSON:
        password = {**FIVE["oauth2-password"], "provider": name}
        made.add(f"{name}-password", password, relay, Mends.CREDENTIALS, login, is_alive)


def _introspected(server: OidcProvider, value: str) -> bool:
    return introspect(server, value)["active"] is True


def _used(server: SimpleJwt, value: str) -> bool:
    return server.send("GET", "/me/", headers={"Authorization": f"Bearer {value}"}).status == 200


def _logged_in(server: SimpleJwt, name: str) -> str:
    answer = server.send("POST", "/token/", json={"username": name, "password": server.users[name]})
    return str(answer.json()["refresh"])
