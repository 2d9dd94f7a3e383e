# A brokerd for tests: the real daemon as a child process in a folder of its own, its configuration, and the providers
# that it asks. It uses nothing of brokerd's inside but the wire format and the making of a key.
from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import trio
from brokerd_client.errors import BrokerError

from brokerd.edge.store import key_file
from tests.forked import FULL, ROOT, Forked, die_with_parent, fork_server
from tests.scenario.daemon.callers import Caller
from tests.servers import (
    CLICK2MAIL_CLIENT,
    CLICK2MAIL_SECRET,
    IX_API_KEY,
    IX_API_SECRET,
    OAUTH2_CLIENT,
    OAUTH2_PASSWORD,
    OAUTH2_SECRET,
    OAUTH2_USER,
    OCCAM_KEY,
    OCCAM_PASSWORD,
    OCCAM_USER,
    TREEZOR_CLIENT,
    TREEZOR_PASSWORD,
    TREEZOR_SECRET,
    TREEZOR_USER,
    Fleet,
    OAuth2,
    Provider,
    Server,
    fleet,
)
from tests.servers.http import Mount
from tests.waiting import pauses

READY_WITHIN = 30.0  # seconds; half a second alone, much more where four test runs share two cores
ENDS_WITHIN = 20.0  # seconds; ten are the daemon's own limit for exchanges that spend nothing
SOON = 10.0  # seconds that a test waits for what is only a matter of milliseconds
TICK = 0.01  # seconds between two looks at what tells nobody that it has changed

Table = dict[str, Any]
P = TypeVar("P", bound=Provider[Any])


# -- what tests configure


CLIENT = {"client_id": OAUTH2_CLIENT, "client_secret": OAUTH2_SECRET}
FIVE: dict[str, Table] = {  # a grant for each dialect, occam both ways; those with rotating refresh tokens and without
    "ix": {"provider": "ix-api", "credentials": {"api_key": IX_API_KEY, "api_secret": IX_API_SECRET}},
    "occam-password": {"provider": "occam", "credentials": {"username": OCCAM_USER, "password": OCCAM_PASSWORD}},
    "occam-key": {"provider": "occam", "credentials": {"key": OCCAM_KEY}},
    "treezor": {
        "provider": "treezor",
        "credentials": {
            "client_id": TREEZOR_CLIENT,
            "client_secret": TREEZOR_SECRET,
            "username": TREEZOR_USER,
            "password": TREEZOR_PASSWORD,
        },
    },
    "click2mail": {
        "provider": "click2mail",
        "credentials": {"client_id": CLICK2MAIL_CLIENT, "client_secret": CLICK2MAIL_SECRET},
    },
    "oauth2": {"provider": "oauth2", "grant_type": "client_credentials", "credentials": CLIENT},
    "oauth2-password": {
        "provider": "oauth2",
        "grant_type": "password",
        "credentials": {**CLIENT, "username": OAUTH2_USER, "password": OAUTH2_PASSWORD},
    },
}
ROTATING = ("ix", "occam-password", "treezor", "oauth2-password")  # those of FIVE whose refresh tokens are used up
IMPORTED: Table = {"provider": "oauth2", "grant_type": "refresh_token", "credentials": CLIENT}
CONFIGURED_SECRETS = frozenset(
    (
        IX_API_SECRET,
        OCCAM_PASSWORD,
        OCCAM_KEY,
        TREEZOR_SECRET,
        TREEZOR_PASSWORD,
        CLICK2MAIL_SECRET,
        OAUTH2_SECRET,
        OAUTH2_PASSWORD,
    )
)


def at(provider: Provider[Any], **settings: object) -> Table:
    """The provider's table in the configuration."""
    if isinstance(provider, OAuth2):
        urls = {"token_url": provider.token_url, "revocation_url": provider.revocation_url}
        return {"dialect": "oauth2", **urls, **settings}
    return {"dialect": provider.name, "base_url": provider.base_url, **settings}


def every(providers: Mapping[str, Provider[Any]]) -> dict[str, Table]:
    """The tables of a whole fleet: `every(fleet.by_name)`."""
    return {name: at(provider) for name, provider in providers.items()}


def toml(value: object) -> str:
    """A value as TOML writes it, tables inline."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


# -- the daemon


class Ended(Exception):
    """The daemon ended though nobody asked it to."""


class Executed:
    """The daemon as a process of its own interpreter, by way of the command `within` (unshare(1), …)."""

    def __init__(self, arguments: list[str], output: int, module: str, within: Iterable[str] = ()) -> None:
        self._process = subprocess.Popen(
            [*within, sys.executable, "-W", "error", "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self.pid = self._process.pid
        self.end = os.pidfd_open(self.pid)  # readable when it has ended

    def wait(self) -> int:
        return self._process.wait()


class Brokerd:
    """One installation in a folder: configuration, key, state, socket; and the daemon on it, started and ended as
    often as a test wants. `log` is all that it ever wrote to stdout and stderr.

    `executed`: it is started as an operator starts it, by a new interpreter; otherwise forked, which saves a second.
    `within`: a command that runs it in surroundings of its own.
    A test fails at its end where the log holds a traceback, or the daemon left zombies or processes.
    """

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder = folder
        self.etc, self.state = folder / "etc", folder / "state"
        self.socket = folder / "run" / "brokerd.sock"
        self.http_socket = folder / "run" / "http.sock"
        self.credentials_socket = folder / "run" / "credentials.sock"
        self.config, self.key = self.etc / "brokerd.toml", self.etc / "key"
        self.log = ""
        self.executed = FULL
        self.within: tuple[str, ...] = ()
        self.nursery = nursery
        self._process: Executed | Forked | None = None
        self._changed = trio.Event()
        self._quiet = trio.Event()  # the pipe has ended: nothing more comes into the log
        self.etc.mkdir(parents=True)
        key_file.create(self.key)

    # Configuration.

    def configure(
        self,
        grants: Mapping[str, Table],
        providers: Mapping[str, Table],
        *,
        allow: Iterable[Table] = (),
        http: bool = False,
        credentials: bool = False,
        metrics: str | None = None,
        store: Table | None = None,
        **daemon: object,
    ) -> None:
        """Write brokerd.toml. `http`, `credentials`: brokerd listens for HTTP and for systemd too. `metrics`: at which
        address and port they can be read. `store`: the table [store]."""
        own = {"socket": self.socket, "state_dir": self.state, "key": {"file": self.key}, **daemon}
        lines = [f"[daemon]\n{_keys(own)}"]
        lines += [f"[providers.{name}]\n{_keys(table)}" for name, table in providers.items()]
        lines += [f"[grants.{name}]\n{_keys(table)}" for name, table in grants.items()]
        lines += [f"[[allow]]\n{_keys(table)}" for table in allow]
        if http or metrics:
            own = {"socket": self.http_socket} if http else {}
            lines.append(f"[http]\n{_keys({**own, **({'metrics': metrics} if metrics else {})})}")
        if credentials:
            lines.append(f"[credentials]\n{_keys({'socket': self.credentials_socket})}")
        if store is not None:
            lines.append(f"[store]\n{_keys(store)}")
        self.write("\n".join(lines))

    def write(self, text: str, name: str = "brokerd.toml") -> Path:
        """Write a file of etc/, which nobody else can read."""
        path = self.etc / name
        path.parent.mkdir(exist_ok=True)
        path.touch(0o600)
        path.write_text(text, encoding="utf-8")
        return path

    # Life and death.

    @property
    def pid(self) -> int:
        assert self._process is not None, "brokerd does not run"
        return self._process.pid

    def proc(self, name: str) -> Path:
        """Of proc(5), the running daemon's own."""
        return Path(f"/proc/{self.pid}/{name}")

    @property
    def runs(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        """Start it and wait until it serves. Raises Ended."""
        before = self.log.count("event=ready")
        self.launch()
        with trio.fail_after(READY_WITHIN):
            while self.log.count("event=ready") == before and not self._quiet.is_set():
                await self._changed.wait()
        if self.log.count("event=ready") == before:
            status = await self.ended()
            raise Ended(f"with status {status} before it was ready:\n{self.log[-2000:]}")

    def launch(self) -> None:
        """Start it, and do not wait."""
        assert self._process is None, "brokerd runs already"
        ours, its = socket.socketpair()
        arguments = ["--config", str(self.config), "--log-level", "debug"]
        with its:
            self._process = self._begin(arguments, its.fileno())
        self._quiet = trio.Event()
        self.nursery.start_soon(self._listen, trio.SocketStream(trio.socket.from_stdlib_socket(ours)))

    def _begin(self, arguments: list[str], output: int, module: str = "brokerd.daemon.main") -> Executed | Forked:
        if self.executed or self.within:
            return Executed(arguments, output, module, self.within)
        return fork_server(module)(arguments, output, environment=os.environ.copy())

    async def refuses_to_start(self) -> tuple[int, str]:
        """Start it and wait for its end: exit status, and what it said."""
        before = len(self.log)
        self.launch()
        return await self.ended(), self.log[before:]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def restart(self) -> None:
        """kill -9 and start."""
        await self.kill()
        await self.start()

    async def ended(self, within: float = ENDS_WITHIN) -> int:
        """Wait for its end; the exit status. Raises AssertionError where it left processes behind."""
        process = self._process
        assert process is not None, "brokerd does not run"
        with trio.fail_after(within):
            await trio.lowlevel.wait_readable(process.end)
        os.close(process.end)
        status = process.wait()
        self._process = None
        with trio.fail_after(SOON):
            await self._quiet.wait()
        assert not (left := _session(process.pid)), f"brokerd left processes behind: {left}"
        return status

    async def close(self) -> None:
        """The end of the test, whatever state things are in."""
        if self.runs:
            zombies = _zombies_of(self.pid)
            with trio.move_on_after(SOON):  # a child may have ended just now
                while zombies:
                    await trio.sleep(0.02)
                    zombies = _zombies_of(self.pid)
            await self.kill()
            assert not zombies, f"brokerd has not waited for its children {zombies}"
        assert "Traceback" not in self.log, "brokerd met a fault of its own; see its log"

    async def said(self, text: str, *, times: int = 1) -> None:
        """Wait until the log holds `text` so often."""
        with trio.fail_after(SOON):
            while self.log.count(text) < times:
                await self._changed.wait()

    async def _listen(self, stream: trio.SocketStream) -> None:
        async with stream:
            async for data in stream:
                self.log += data.decode(errors="replace")
                self._tell()
        self._quiet.set()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # Asking it.

    @contextlib.asynccontextmanager
    async def caller(self) -> AsyncIterator[Caller]:
        """A connection."""
        async with Caller(await trio.open_unix_socket(self.socket)) as caller:
            yield caller

    async def call(self, method: str, /, **params: object) -> Any:
        """One request on a connection of its own. Raises brokerd_client.errors."""
        async with self.caller() as caller:
            return await caller.call(method, **params)

    async def get(self, grant: str, **params: object) -> str:
        """The value of a grant's token."""
        value = (await self.call("get", grant=grant, **params))["value"]
        assert isinstance(value, str)
        return value

    async def error(self, method: str, /, **params: object) -> dict[str, Any]:
        """The error that the request is answered with."""
        async with self.caller() as caller:
            number = await caller.send(method, **params)
            error, result = await caller.answer(number)
        assert error is not None, f"{method} {params}: expected an error, found {_without_value(result)}"
        return error

    async def status(self, grant: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.call("status", grants=[grant]))["grants"][0]
        return found

    async def until(self, grant: str, holds: Callable[[dict[str, Any]], bool], within: float = SOON) -> dict[str, Any]:
        """Wait until something holds of the grant's status, and return that."""
        status: dict[str, Any] = {}
        async with self.caller() as caller:
            with _explained(lambda: f"{grant}: it never came to it: {status}"), trio.fail_after(within):
                for pause in pauses():
                    status = (await caller.call("status", grants=[grant]))["grants"][0]
                    if holds(status):
                        break
                    await trio.sleep(pause)
        return status

    async def until_unlocked(self, passphrase: str) -> None:
        """Unlock it, as soon as wrong passphrases before let it."""

        async def unlocks() -> bool:
            with contextlib.suppress(BrokerError):
                await self.call("unlock", passphrase=passphrase)
            return not (await self.call("status"))["daemon"]["locked"]

        await until(unlocks)

    def bytes_of_state(self) -> dict[str, bytes]:
        """Every file of the state directory, raw."""
        return {path.name: path.read_bytes() for path in sorted(self.state.rglob("*")) if path.is_file()}


def ready(status: dict[str, Any]) -> bool:
    """A grant has a token. Its state alone does not say so: it is the same between an import and the exchange."""
    return status["state"] == "ready" and status["issued_at"] is not None


async def until(holds: Callable[[], bool | Awaitable[bool]], within: float = SOON) -> None:
    """Wait until a condition holds that nobody tells of."""
    with trio.fail_after(within):
        for pause in pauses():
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await trio.sleep(pause)


# -- the providers


class Serving:
    """Starts providers that run until the test has ended; errors of the test come out as they are."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def __call__(self, provider: P, port: int = 0) -> P:
        """This provider, on a port of its own."""
        await self._nursery.start(Server({provider.prefix: provider}, port=port).run)
        return provider

    async def all(self, lifetime: float, *, refresh_lifetime: float | None = None) -> Fleet:
        """All five on one port, with tokens that live for so many seconds."""
        made = fleet(lifetime, refresh_lifetime=refresh_lifetime)
        mounts: dict[str, Mount] = {provider.prefix: provider for provider in made.by_name.values()}
        await self._nursery.start(Server(mounts).run)
        return made


# -- below


def _keys(table: Mapping[str, object]) -> str:
    return "".join(f"{key} = {toml(value)}\n" for key, value in table.items())


@contextlib.contextmanager
def _explained(words: Callable[[], str]) -> Any:
    try:
        yield
    except trio.TooSlowError:
        raise AssertionError(words()) from None


def _without_value(result: object) -> object:
    return {**result, "value": "…"} if isinstance(result, dict) and "value" in result else result


def _processes() -> Iterable[tuple[int, str, int, int]]:
    """Pid, state letter, parent and session of every process (proc(5), stat)."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
                yield int(folder.name), state, int(parent), int(session)


def _zombies_of(pid: int) -> list[int]:
    return [each for each, state, parent, _session in _processes() if parent == pid and state == "Z"]


def _session(leader: int) -> list[int]:
    """The processes of a session whose leader is dead."""
    return [pid for pid, _state, _parent, session in _processes() if session == leader]


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
