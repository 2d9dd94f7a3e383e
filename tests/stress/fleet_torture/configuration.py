# The grants of the test, and brokerd.toml of each host.
from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.scenario.daemon.harness import Table, toml
from tests.stress.fleet_torture.cluster import urls

Kind = Literal["strict", "graceful", "password"]
# What the hosts share: a store in etcd; nothing, each host has its own logins; or logins without a store, which has to
# go wrong.
Sharing = Literal["store", "nothing", "logins"]
KINDS: tuple[Kind, ...] = ("strict",) * 8 + ("graceful", "password")
LIVES = (20, 40)  # seconds, at least and at most
GRACE, CONFIGURED_GRACE = 20.0, 15.0  # what the provider does, and what brokerd may rely on
ANSWER_TIMEOUT = 30.0  # longer than any answer takes


@dataclass(frozen=True)
class Grant:
    """`known_as`: what each host calls it; where hosts share nothing, each has a login of its own."""

    name: str
    kind: Kind
    life: int
    hosts: tuple[str, ...]
    known_as: str = field(default="")


def grants(number: int, seed: int, hosts: list[str], sharing: Sharing) -> list[Grant]:
    chance = random.Random(f"{seed} grants")
    made: list[Grant] = []
    for index in range(number):
        name, kind, life = f"g{index:03}", KINDS[index % len(KINDS)], chance.randint(*LIVES)
        if sharing != "nothing":
            made.append(Grant(name, kind, life, tuple(hosts), name))
        else:
            made += [Grant(f"{name}@{host}", kind, life, (host,), name) for host in hosts]
    return made


def graces(of: list[Grant]) -> dict[str, float]:
    return {each.name: GRACE for each in of if each.kind == "graceful"}


def written(
    host: str, folder: Path, key: Path, token_url: str, certificates: dict[str, Path], of: list[Grant], sharing: Sharing
) -> str:
    """The configuration of one host."""
    oauth2: Table = {
        "dialect": "oauth2",
        "token_url": token_url,
        "ca_file": certificates["provider"] / "ca.pem",
        "answer_timeout": f"{ANSWER_TIMEOUT:g}s",
        "concurrency": 32,
    }
    tables: dict[str, Table] = {
        "daemon": {"socket": folder / "sock", "state_dir": folder / "state", "key": {"file": key}},
        "providers.strict": oauth2,
        "providers.graceful": {**oauth2, "reuse_grace": f"{CONFIGURED_GRACE:g}s"},
    }
    if sharing == "store":
        etcd = certificates["etcd"]
        tables["store"] = {
            "etcd": urls(),
            "fleet": "torture",
            "name": host,
            "ca_file": etcd / "ca.pem",
            "cert_file": etcd / "client.pem",
            "key_file": etcd / "client.key",
        }
    for each in of:
        if host not in each.hosts:
            continue
        credentials = {"client_id": "brokerd", "client_secret": "test-only-client-secret"}
        table: Table = {"provider": "graceful" if each.kind == "graceful" else "strict", "grant_type": "refresh_token"}
        if each.kind == "password":
            table["grant_type"] = "password"
            credentials |= {"username": each.name, "password": "test-only-password"}
        tables[f"grants.{each.known_as}"] = {**table, "credentials": credentials}
    return "\n".join(f"[{name}]\n{_lines(table)}" for name, table in tables.items())


def _lines(table: Table) -> str:
    return "".join(f"{key} = {toml(value)}\n" for key, value in table.items())
