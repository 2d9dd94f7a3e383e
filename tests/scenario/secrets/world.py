# An installation for a full life: the real daemon as a user of its own where that is possible, a credential of every
# source, providers that echo, and a record of every secret there is and of everything that was written and said.
from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import trio

from brokerd.core.sealing import EnvelopeError, unwrap
from brokerd.edge.store import key_file
from tests.forked import brokerctl
from tests.scenario.daemon.harness import (
    CONFIGURED_SECRETS,
    FIVE,
    IMPORTED,
    Brokerd,
    Executed,
    Serving,
    Table,
    at,
)
from tests.scenario.daemon.harness import every as tables
from tests.scenario.secrets.echo import KINDS, Echo
from tests.scenario.secrets.search import of_text
from tests.servers import Fleet, fleet, oauth2
from tests.servers.http import Mount, Server

UID = 60_977  # the daemon's user
AS_USER = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
ODD = " \"ö\\%/+&=<'> "  # what each way of quoting changes
SOURCES = ("text", "file", "env", "command", "credential")
FIELDS = ("instance", "id_token")  # that a token of the grant oauth2-password has
ENV = "TEST_ONLY_SECRET"
COMMAND = """#!/bin/sh
tr '\\0' '\\n' </proc/$$/environ >>{seen}
tr '\\0' '\\n' </proc/$$/cmdline >>{seen}
ls -l /proc/$$/fd >>{seen}
cat {file}
"""


@functools.cache
def can_be_a_user() -> bool:
    """Whether the daemon can run as a user of its own: we are root, and he can read Python and this tree."""
    if os.geteuid():
        return False
    done = subprocess.run(
        [*AS_USER, sys.executable, "-c", "import brokerd.daemon.main"], check=False, capture_output=True
    )
    return done.returncode == 0


class Installed(Brokerd):
    """Everything in its folder is its user's. `module` is what is started, with `before` in front of its arguments;
    the log may hold tracebacks."""

    module = "brokerd.daemon.main"
    before: tuple[str, ...] = ()
    its_environment: tuple[str, ...] = ()

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        super().__init__(folder, nursery)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.own()

    def own(self) -> None:
        if can_be_a_user():
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, UID, UID, follow_symlinks=False)

    def write(self, text: str, name: str = "brokerd.toml") -> Path:
        path = super().write(text, name)
        path.chmod(0o600)
        self.own()
        return path

    def _begin(self, arguments: list[str], output: int, _module: str = "") -> Executed:
        limit = ("prlimit", "--core=unlimited") if os.geteuid() == 0 else ()
        surroundings = ("env", f"--chdir={self.folder}", f"TMPDIR={self.temporary}", *self.its_environment)
        path = f"PYTHONPATH={Path(__file__).parents[3]}"
        within = (*limit, *surroundings, path, *(AS_USER if can_be_a_user() else ()))
        return Executed([*self.before, *arguments], output, self.module, within)

    async def close(self) -> None:
        if self.runs:
            await self.kill()


class World:
    """`secrets` and `places` are what search() takes."""

    def __init__(self, brokerd: Installed) -> None:
        self.brokerd = brokerd
        self.fleet: Fleet = fleet(3600)
        self.echo = Echo()
        self.places: dict[str, bytes] = {}
        self.secrets: dict[str, bytes] = {}
        self.seen = brokerd.folder / "seen-by-command"
        self.grants: dict[str, Table] = {}
        self._said: list[bytes] = []
        self._latest: dict[str, str] = {}  # file -> the place where it was kept last
        for text in sorted(CONFIGURED_SECRETS):
            self.secret(text, "configured")
        self._clients()

    async def serve(self, serving: Serving) -> None:
        for provider in self.fleet.by_name.values():
            provider.settings.echo_input = True  # error texts repeat what was sent, as frameworks do
        self.fleet.oauth2.settings.further = FIELDS
        mounts: dict[str, Mount] = {each.prefix: each for each in self.fleet.by_name.values()}
        await serving._nursery.start(Server({**mounts, Echo.prefix: self.echo}).run)
        self.configure()

    # -- secrets

    def secret(self, text: str, kind: str) -> str:
        """There is this secret from now on."""
        found = of_text([text], f"{kind} {len(self.secrets)}")
        self.secrets.update(found)
        return text

    def new(self, kind: str, odd: str = "") -> str:
        return self.secret(f"test-only-{kind}-{secrets.token_hex(8)}{odd}{secrets.token_hex(8)}", kind)

    def file(self, name: str, text: str) -> Path:
        return self.brokerd.write(text, name)

    def gather(self) -> dict[str, bytes]:
        """Every secret by now: those of configuration and life, and whatever went between daemon and providers."""
        found = dict(self.secrets)
        for name, provider in self.fleet.by_name.items():
            found |= of_text(provider.secret_values(), f"token of {name}")
            sent = [entry.request for entry in provider.requests]
            found |= of_text(filter(None, (each.header("authorization") for each in sent)), f"header to {name}")
        found |= of_text((each.header("authorization") or "" for each in self.echo.requests), "header to echo")
        return found

    def learn_data_keys(self, key: Path) -> None:
        """The store's own keys as they are now, which the key-encryption key opens."""
        kek = key_file.parse(key.read_text())
        self.secrets["key-encryption key"] = kek
        with contextlib.closing(sqlite3.connect(self.brokerd.state / "brokerd.db")) as connection:
            (store,) = connection.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()
            for number, wrapped in connection.execute("SELECT id, wrapped FROM data_key"):
                with contextlib.suppress(EnvelopeError):
                    self.secrets[f"data key {number}"] = unwrap(wrapped, kek, store, number)
        self.brokerd.own()

    # -- what was written and said

    def heard(self, *said: object) -> None:
        self._said += [json.dumps(each, ensure_ascii=False, default=str).encode() for each in said]

    def look(self, when: str) -> None:
        """At all files of the daemon's but the secrets that it was given, and at its process, if it runs."""
        given = (self.brokerd.etc, self.brokerd.folder / "credentials")
        for path in self.brokerd.folder.rglob("*"):
            if not any(folder in path.parents for folder in given) and stat.S_ISREG(path.lstat().st_mode):
                self._keep(str(path.relative_to(self.brokerd.folder)), when, path.read_bytes())
        for folder in map(Path, ("/tmp", "/var/tmp", "/dev/shm")):
            for path in folder.iterdir() if can_be_a_user() else ():
                with contextlib.suppress(OSError):
                    found = path.lstat()
                    if found.st_uid == UID and stat.S_ISREG(found.st_mode):
                        self._keep(str(path), when, path.read_bytes())
        if self.brokerd.runs:
            for name in ("environ", "cmdline", "comm"):
                self.places[f"/proc/PID/{name}, {when}"] = self.brokerd.proc(name).read_bytes()

    def _keep(self, name: str, when: str, content: bytes) -> None:
        """What only grew since it was last looked at counts once."""
        before = self._latest.get(name)
        if before is not None and content.startswith(self.places[before]):
            del self.places[before]
        self._latest[name] = f"{name}, {when}"
        self.places[self._latest[name]] = content

    def everything(self) -> dict[str, bytes]:
        log = self.brokerd.log.encode()
        return {**self.places, "the log": log, "answers and output": b"\n".join(self._said)}

    async def ask(self, method: str, **params: object) -> Any:
        """A request of root's; everything that is said to it but tokens is kept."""
        async with self.brokerd.caller() as caller:
            error, result = await caller.answer(await caller.send(method, **params))
        self.heard(error)
        if method not in ("get", "get_many", "proof"):
            self.heard(result)
        return error or result

    async def ctl(self, *words: object, stdin: str = "", tokens: bool = False) -> str:
        """A brokerctl; what it prints is kept, but stdout where that is to be `tokens`."""
        arguments = ("--socket", self.brokerd.socket, *map(str, words))
        environment = {**os.environ, "TMPDIR": str(self.brokerd.temporary)}
        done = await trio.to_thread.run_sync(lambda: brokerctl(*arguments, input=stdin, text=False, env=environment))
        self._said += [done.stderr] if tokens else [done.stderr, done.stdout]
        return done.stderr.decode() + ("" if tokens else done.stdout.decode())

    # -- the configuration

    def _clients(self) -> None:
        settings, folder = self.fleet.oauth2.settings, self.brokerd.folder
        given = {source: self.new(source, ODD) for source in SOURCES}
        for source, value in given.items():
            settings.clients[f"by-{source}"] = oauth2.Client(f"by-{source}", value)
        (folder / "credentials").mkdir()
        (folder / "credentials" / "its-secret").write_text(given["credential"])
        kept = self.file("secrets/command", given["command"])
        program = self.file("secrets/program", COMMAND.format(seen=self.seen, file=kept))
        program.chmod(0o700)
        ways: dict[str, object] = {
            "text": given["text"],
            "file": {"file": self.file("secrets/file", given["file"])},
            "env": {"env": ENV},
            "command": {"command": [str(program)]},
            "credential": {"credential": "its-secret"},
        }
        self.brokerd.its_environment = (f"{ENV}={given['env']}", f"CREDENTIALS_DIRECTORY={folder / 'credentials'}")
        self.brokerd.own()
        for number, (source, way) in enumerate(ways.items()):
            self.grants[f"by-{source}"] = {
                "provider": "oauth2",
                "grant_type": "client_credentials",
                "client_auth": ("client_secret_basic", "client_secret_post")[number % 2],
                "credentials": {"client_id": f"by-{source}", "client_secret": way},
            }
        self.grants |= {**FIVE, "imported": IMPORTED}
        self.grants["oauth2-password"] = {**FIVE["oauth2-password"], "fields": FIELDS}
        key, key_id = (self.file(f"secrets/{name}", self.new(name)) for name in ("static-token", "static-field"))
        credentials = {"token": {"file": key}, "access_key_id": {"file": key_id}}
        self.grants["static"] = {"provider": "static", "credentials": credentials}
        self.secret(self.brokerd.key.read_text().strip(), "key file")

    def echoing(self) -> dict[str, Table]:
        """A grant at each kind of echo; its secrets are of this configuration alone."""
        found: dict[str, Table] = {}
        for kind in KINDS:
            given = {"client_secret": self.new(kind, ODD), "password": self.new(f"{kind}-password", ODD)}
            found[f"echo-{kind}"] = {
                "provider": f"echo-{kind}",
                "grant_type": "password",
                "client_auth": "client_secret_post",
                "credentials": {"client_id": kind, "username": "somebody", **given},
                "on_demand": True,
            }
        return found

    def configure(self, more: dict[str, Table] | None = None, key: object = None) -> None:
        """Write the configuration: the grants, and `more`."""
        urls = {kind: f"{self.echo.url}/{kind}" for kind in KINDS}
        echoes = {
            f"echo-{kind}": {"dialect": "oauth2", "token_url": f"{url}/token", "revocation_url": f"{url}/revoke"}
            for kind, url in urls.items()
        }
        allow: Table = {"grants": ["by-text"], "caller": {"uid": 60_900}}
        self.brokerd.configure(
            {**self.grants, **(more or {})},
            {**tables(self.fleet.by_name), **echoes, "oauth2": at(self.fleet.oauth2), "static": {"dialect": "static"}},
            allow=[allow],
            socket_mode="0666",
            key=key or {"file": self.brokerd.key},
        )
