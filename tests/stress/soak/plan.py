# What a soak is made of, drawn from its seed: services (a provider with one lifetime), and grants with credentials of
# their own, so that a provider can tell whose request has come.
from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.scenario.daemon.harness import Table

DIALECTS = ("ix-api", "occam", "treezor", "click2mail", "oauth2")
LIVES = {  # seconds from and to → share of the grants
    (5, 8): 0.03,
    (15, 30): 0.12,
    (45, 90): 0.35,
    (120, 300): 0.50,
}
REFRESH_LIVES = 10  # a refresh token's life in those of access tokens
IMPORTED = "oauth2-imported"
KINDS = {
    "ix-api": ("ix-api",),
    "occam": ("occam-password", "occam-key"),
    "treezor": ("treezor",),
    "click2mail": ("click2mail",),
    "oauth2": ("oauth2", "oauth2-password", IMPORTED),
}


@dataclass(frozen=True)
class Service:
    """A provider that issues tokens of one lifetime, on a port of its own."""

    name: str
    dialect: str
    lifetime: int
    grants: tuple[str, ...]


@dataclass(frozen=True)
class Grant:
    name: str
    kind: str
    service: Service

    def table(self, scope: Iterable[str] = ()) -> Table:
        """The grant in the configuration."""
        name = self.name
        client = {"client_id": name, "client_secret": secret(name)}
        person = {"username": name, "password": password(name)}
        match self.kind:
            case "ix-api":
                return self._with({"api_key": key(name), "api_secret": secret(name)})
            case "occam-password":
                return self._with(person)
            case "occam-key":
                return self._with({"key": key(name)})
            case "treezor":
                return self._with({**client, **person})
            case "click2mail":
                return self._with(client)
        given = {"scope": list(scope)} if scope else {}
        match self.kind:
            case "oauth2":
                return self._with(client, grant_type="client_credentials", **given)
            case "oauth2-password":
                return self._with({**client, **person}, grant_type="password", **given)
        return self._with(client, grant_type="refresh_token")

    def _with(self, credentials: dict[str, str], **others: Any) -> Table:
        return {"provider": self.service.name, "credentials": credentials, **others}


def key(grant: str) -> str:
    return f"test-only-key-{grant}"


def secret(grant: str) -> str:
    return f"test-only-secret-of-32-bytes-{grant}"


def password(grant: str) -> str:
    return f"test-only-password-{grant}"


def drawn(seed: int, number: int) -> list[Grant]:
    """So many grants, spread over the lifetimes and dialects; at least one of each kind where there are enough."""
    chance = random.Random(seed)
    lives = [chance.randint(*span) for span in LIVES]
    classes = sorted(chance.choices(range(len(lives)), weights=list(LIVES.values()), k=number))
    found: list[tuple[str, str, int]] = []  # name, kind, class
    for index, each in enumerate(classes):
        dialect = DIALECTS[index % len(DIALECTS)]
        kinds = KINDS[dialect]
        found.append((f"soak-{index:04d}", kinds[index // len(DIALECTS) % len(kinds)], each))
    services: dict[tuple[str, int], Service] = {}
    for dialect in DIALECTS:
        for each, lifetime in enumerate(lives):
            names = tuple(name for name, kind, life in found if life == each and kind in KINDS[dialect])
            if names:
                services[dialect, each] = Service(f"{dialect}-{lifetime}s", dialect, lifetime, names)
    return [Grant(name, kind, services[_dialect(kind), each]) for name, kind, each in found]


def _dialect(kind: str) -> str:
    return next(dialect for dialect, kinds in KINDS.items() if kind in kinds)
