# Checks the way to each server of the fleet's etcd with the daemon's own code: name, connection, TLS, version, clock,
# and whether the user may read and write the keys of the fleet. It writes none of them.
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import NamedTuple

import msgspec
import trio

from brokerd.config.settings import StoreSettings
from brokerd.core.exchange.steps import Request, Response
from brokerd.core.fleet.etcd import EtcdError, EtcdRefused
from brokerd.core.ports import Clock, TransportError
from brokerd.core.secret import Secret
from brokerd.doctor.context import Facts
from brokerd.doctor.finding import Finding, hidden, ok, problem, problem_from, warning
from brokerd.doctor.network import SKEWED, SOON, Tell, in_the_way, of_certificate, skew_of
from brokerd.edge.etcd.client import EtcdClient
from brokerd.edge.etcd.login import EtcdUser
from brokerd.edge.files.certificates import ends
from brokerd.edge.files.secret_sources import SecretUnreadable, read_secret
from brokerd.edge.http import tls
from brokerd.edge.http.client import HttpClient
from brokerd.edge.http.connection import Attempt, HttpSettings, Opener, check, split_url
from brokerd.edge.http.dial import system_lookup
from brokerd.setup.installation import store_http_settings

NAME = "etcd"
PATIENCE = 4.0  # seconds for a connection, and for an answer
OLDEST = (3, 4)
NEVER = 1 << 62  # a revision that no key has: a transaction that expects it changes nothing


class Version(msgspec.Struct):
    """What etcd answers at /version."""

    etcdserver: str


class Looked(NamedTuple):
    """What was found at one server, and of which cluster it is; 0: it could not be asked."""

    findings: list[Finding]
    cluster: int


async def ask(store: StoreSettings, facts: Facts, clock: Clock, tell: Tell) -> None:
    """All servers at the same time."""
    http = replace(store_http_settings(store), connect_timeout=PATIENCE, read_timeout=PATIENCE, total_timeout=PATIENCE)
    try:
        await trio.to_thread.run_sync(check, http, {})
    except TransportError as error:
        tell(problem_from(NAME, error.reason, f"correct [store] in the configuration; {facts.check_again}"))
        return
    for each in await trio.to_thread.run_sync(lambda: list(_own_certificates(store, clock))):
        tell(each)
    try:
        user = await trio.to_thread.run_sync(_user, store, facts)
    except (SecretUnreadable, PermissionError):
        tell(hidden(NAME, "the password of [store]"))
        user = None
    may_log_in = store.user is None or user is not None
    looked: dict[str, Looked] = {}

    async def look(url: str) -> None:
        looked[url] = await _look(url, store, http, clock, user, may_log_in=may_log_in)

    async with trio.open_nursery() as nursery:
        for url in store.etcd:
            nursery.start_soon(look, url)
    for url in store.etcd:
        for finding in looked[url].findings:
            tell(finding)
    if len({each.cluster for each in looked.values() if each.cluster}) > 1:
        said = ", ".join(f"{url} is of {each.cluster:x}" for url, each in sorted(looked.items()) if each.cluster)
        tell(problem(NAME, f"the servers are not of one cluster: {said}", "name those of one cluster: [store] etcd"))


async def _look(
    url: str, store: StoreSettings, http: HttpSettings, clock: Clock, user: EtcdUser | None, *, may_log_in: bool
) -> Looked:
    """One server, up to the first thing that fails."""
    found = list[Finding]()
    if (expires := await _opened(url, http, clock, found.append)) is None:
        return Looked(found, 0)
    client = HttpClient(http, clock, environ={})
    try:
        response = await client.send(Request("GET", f"{url}/version"))
    except TransportError as error:
        return Looked([*found, problem_from(NAME, error.reason, f"curl -v {quote(url)}/version")], 0)
    finally:
        await client.aclose()
    found += [*expires, *of_version(response, url), *of_clock(response, url, store.clock_difference)]
    if not may_log_in or found[-1].level == "problem":
        return Looked(found, 0)
    etcd = EtcdClient([url], http, clock, user)
    key = f"/brokerd/{store.fleet}/doctor".encode()
    try:
        cluster = (await etcd.read([key])).cluster
        await etcd.transact({key: NEVER}, {key: None})
    except EtcdRefused as error:
        words, _, remedy = str(error).partition(". ")
        grant = f"etcdctl role grant-permission ROLE readwrite --prefix=true /brokerd/{store.fleet}/"
        return Looked([*found, problem(NAME, words, f"{remedy or 'look at the log of etcd'}: {grant}")], 0)
    except EtcdError as error:
        words, _, remedy = str(error).partition(". ")
        return Looked([*found, problem(NAME, words, remedy or "etcdctl endpoint status --cluster")], 0)
    finally:
        await etcd.aclose()
    found.append(ok(NAME, f"{url}: the keys below /brokerd/{store.fleet}/ may be read and written"))
    return Looked(found, cluster)


async def _opened(url: str, http: HttpSettings, clock: Clock, tell: Tell) -> list[Finding] | None:
    """What is to be said of the certificate; None: there is no way to the server, and why is said."""
    origin, _ = split_url(url)
    attempt = Attempt(origin.endpoint)
    try:
        connection = await Opener(http, clock, {}, system_lookup).open(origin, attempt, guarded=False)
    except TransportError as error:
        tell(in_the_way(attempt.stage, error.reason, origin, None))
        return None
    connection.tcp.close()
    return [of_certificate(tls.expiry(connection.stream), clock.now().wall, origin)] if origin.secure else []


def of_version(response: Response, url: str) -> Iterator[Finding]:
    """Pure."""
    try:
        version = msgspec.json.decode(response.body, type=Version).etcdserver
        number = tuple(int(part) for part in version.split(".")[:2])
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError):
        yield problem(NAME, f"{url} answers, and is no etcd", "write the client URLs of etcd: [store] etcd")
        return
    if number < OLDEST:
        yield problem(NAME, f"{url} is etcd {version}, and brokerd needs 3.4 or later", "upgrade etcd")
    else:
        yield ok(NAME, f"{url} is etcd {version}")


def of_clock(response: Response, url: str, permitted: float) -> Iterator[Finding]:
    """Pure."""
    if (skew := skew_of(response)) is not None and abs(skew) > SKEWED:
        words = f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} that of {url}"
        too_far = abs(skew) > permitted
        yield (problem if too_far else warning)("clock", words, "timedatectl status; date -u")


def _own_certificates(store: StoreSettings, clock: Clock) -> Iterator[Finding]:
    for key, path in (("cert_file", store.cert_file), ("ca_file", store.ca_file)):
        at = None if path is None else ends(path, key == "cert_file")
        if at is not None and (left := at - clock.now().wall) < SOON:
            when = f"ends in {left / 86_400:.0f} days" if left > 0 else "has ended"
            level = warning if left > 0 else problem
            yield level(
                NAME, f"{key} of [store] {when} ({path})", "replace the file; brokerd reads a new one by itself"
            )


def _user(store: StoreSettings, facts: Facts) -> EtcdUser | None:
    """Blocking. Raises SecretUnreadable. A command is not run."""
    if store.user is None or store.password is None:
        return None
    source = facts.reachable(store.password)
    if source.command is not None or source.env is not None:
        raise SecretUnreadable("it comes from a command or an environment variable")
    if source.file is not None and Path(source.file).exists():
        Path(source.file).open("rb").close()  # may it be read?
    secret = read_secret(source)

    async def password() -> Secret:
        return secret

    return EtcdUser(store.user, password)
