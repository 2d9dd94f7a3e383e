# `make demo` runs brokerd for real, with five providers and an application: renewals, a revocation, a crash. It ends
# every process that it starts, and deletes the temporary folder with all its files.
from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from brokerd_client import Broker, BrokerError, NoDaemon, Revoked, Token

ROOT = Path(__file__).resolve().parent.parent
LIFETIME = 6  # seconds; usually it is about an hour
READY_WITHIN = 20.0  # seconds; usually one or two are enough
WATCH = 6.0  # seconds between two calls of status: in this time every grant renews
PAUSE = 0.1  # seconds between rounds of fetches
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BOLD, DIM, PLAIN = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if sys.stdout.isatty() else ("", "", "")

# For each grant, its provider's dialect. The secrets are those of the test providers and work nowhere else.
GRANTS = {
    "ix-api-prod": "ix-api",
    "shop-orders": "occam",
    "payments": "treezor",
    "mailings": "click2mail",
    "reports": "oauth2",
}
SECRETS = {
    "ix": "test-only-secret",
    "occam": "test-only-password with spaces & ünïcode+%41",
    "treezor": "test-only-treezor-secret",
    "clerk": "test-only-treezor-pässword",
    "click2mail": "test-only-click2mail-secret-of-32-bytes",
    "reports": "test-only-client-secret",
}
CONFIGURATION = """\
[daemon]
socket    = "{folder}/brokerd.sock"
state_dir = "{folder}/state"
key       = {{ file = "{folder}/key" }}

[providers.ix]
dialect  = "ix-api"
base_url = "{ix-api}"

[grants.ix-api-prod]
provider    = "ix"
credentials = {{ api_key = "test-only-key", api_secret = {{ file = "{folder}/secrets/ix" }} }}

[[allow]]
grants = ["ix-api-prod"]
caller = {{ user = "portal" }}

[providers.occam]
dialect  = "occam"
base_url = "{occam}"

[grants.shop-orders]
provider    = "occam"
credentials = {{ username = "test-only@occam.example", password = {{ file = "{folder}/secrets/occam" }} }}

[providers.treezor]
dialect  = "treezor"
base_url = "{treezor}"

[grants.payments]
provider = "treezor"
[grants.payments.credentials]
client_id     = "test-only-treezor-client"
client_secret = {{ file = "{folder}/secrets/treezor" }}
username      = "test-only-treezor-user"
password      = {{ file = "{folder}/secrets/clerk" }}

[providers.click2mail]
dialect  = "click2mail"
base_url = "{click2mail}"

[grants.mailings]
provider = "click2mail"
[grants.mailings.credentials]
client_id     = "test-only-click2mail-client"
client_secret = {{ file = "{folder}/secrets/click2mail" }}

[providers.corp]
dialect        = "oauth2"
token_url      = "{oauth2}/token"
revocation_url = "{oauth2}/revoke"

[grants.reports]
provider    = "corp"
grant_type  = "client_credentials"
credentials = {{ client_id = "test-only-client", client_secret = {{ file = "{folder}/secrets/reports" }} }}
"""


class NotAsItShouldBe(Exception):
    """The demo found something wrong, and ends with status 1."""


def main() -> None:
    for number in SIGNALS:
        signal.signal(number, stop)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="brokerd-demo-") as folder, contextlib.ExitStack() as children:
        stage = Stage(Path(folder), children)
        try:
            play(stage)
        except (NotAsItShouldBe, BrokerError, OSError, subprocess.SubprocessError) as error:
            print(f"\nTHE DEMO FAILED: {error}\n\nThe end of brokerd's log:\n{stage.log_tail()}", file=sys.stderr)
            sys.exit(1)
    print(f"\n{BOLD}All of this was real, and took {time.monotonic() - began:.0f} seconds.{PLAIN} What next:")
    print("  README.md              install brokerd, and configure your first grant")
    print("  examples/              a configuration for each kind of provider; applications in Python and shell")
    print("  docs/configuration.md  every key")
    print("  make test              all tests")


def stop(number: int, _frame: FrameType | None) -> NoReturn:
    """Ctrl-C, or the terminal is gone: end everything that was started, without being interrupted again."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    print("\nstopped; ending everything that was started", file=sys.stderr)
    sys.exit(128 + number)


def play(stage: Stage) -> None:
    """All steps of the demo. Raises NotAsItShouldBe at the first thing that is wrong."""
    say("Five token providers start on this machine. Their access tokens live for 6 seconds.")
    stage.start_providers()
    say("The configuration, secrets in files, and a key for the store. This is one provider, its grant, and a rule:")
    stage.write_configuration()
    show_result("(root and brokerd's own user, which here is you, may do everything and need no rule)")
    stage.brokerctl("keygen", str(stage.folder / "key"))
    stage.start_brokerd()
    stage.wait_until(lambda grants: all(grant["expires_at"] for grant in grants), "get all tokens")
    say("brokerd has got the first tokens before anybody asked:")
    stage.brokerctl("status")

    with Broker(stage.socket) as broker:
        say("An application fetches one, and calls the provider's API with it:")
        show('token = broker.get("ix-api-prod")', 'urlopen(Request(url + "/me", headers=token.header))')
        token = broker.get("ix-api-prod")
        show_result(f"{token!r}", f"the API answers {stage.me('ix-api-prod', token)}")
        say("A shell script does the same:")
        stage.brokerctl("get", "mailings")

        say(
            f"Now watch: each token is replaced after about {LIFETIME * 2 // 3} seconds, before it expires. Meanwhile",
            "the application fetches all five tokens, again and again, and calls the APIs with them:",
        )
        fetches = 0
        for _ in range(2):
            before = stage.renewals(broker)
            fetches += fetch_for(WATCH, stage, broker)
            stage.brokerctl("status")
            after = stage.renewals(broker)
            show_result("renewals so far: " + ", ".join(f"{grant} {after[grant]}" for grant in GRANTS))
            expect(all(after[grant] > before[grant] for grant in GRANTS), f"expected renewals, found {before}, {after}")
        say(f"{fetches} tokens were fetched, and all of them worked. Now one grant is revoked:")
        revoke(stage, broker)

    say("brokerd is killed, without time to save anything:")
    crash(stage)


def fetch_for(seconds: float, stage: Stage, broker: Broker, grants: Iterable[str] = GRANTS) -> int:
    """Fetch and use the grants' tokens, again and again. Returns the number of fetches."""
    end, fetches = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for grant in grants:
            status = stage.me(grant, broker.get(grant, min_ttl=1))  # leaves at least a second to use it
            expect(status == 200, f"{grant}: a token that brokerd served was answered {status}")
            fetches += 1
        time.sleep(PAUSE)
    return fetches


def revoke(stage: Stage, broker: Broker) -> None:
    token = broker.get("reports")
    while token.expires_at is not None and token.expires_at - time.time() < LIFETIME - 1:
        time.sleep(PAUSE)  # until it is new, so that it is not replaced meanwhile
        token = broker.get("reports")
    expect(stage.me("reports", token) == 200, "expected a good token of reports before it is revoked")
    stage.brokerctl("revoke", "reports", "--yes")
    status = stage.me("reports", token)
    show_result(f"the API now answers the old token with {status}")
    expect(status == 401, f"expected the provider to refuse a revoked token with 401, found {status}")
    stage.brokerctl("get", "reports", expected=5)


def crash(stage: Stage) -> None:
    with Broker(stage.socket) as broker:
        served = {grant: broker.get(grant).value for grant in GRANTS if grant != "reports"}
    stage.kill_brokerd()
    logins = stage.logins()
    files = [path for path in (stage.folder / "state").rglob("*") if path.is_file()]
    stored = b"".join(path.read_bytes() for path in files)
    expect(len(stored) > 0, "expected a store in the state directory")
    for secret in (*SECRETS.values(), *stage.seen, *served.values()):
        expect(secret.encode() not in stored, "a secret or a token is not encrypted in the state directory")
    show_result(f"its store and audit log have {len(stored)} bytes, in which no token and no secret can be found")

    say("It starts again, and uses the tokens that it had stored:")
    stage.start_brokerd()
    with Broker(stage.socket) as broker:
        same = sum(broker.get(grant).value == value for grant, value in served.items())
        rest = "" if same == len(served) else "; the others have expired meanwhile, and were renewed"
        show_result(f"{same} of {len(served)} tokens are the same as before{rest}")
        fetches = fetch_for(WATCH, stage, broker, served)
        again = stage.logins()
        expect(again == logins, f"expected no new login at any provider, found {logins} before and {again} after")
        show_result(f"{fetches} more fetches, renewals with the stored refresh tokens, and no new login")
        with contextlib.suppress(Revoked):
            broker.get("reports")
            raise NotAsItShouldBe("reports was revoked, but is served after a restart")
    stage.brokerctl("status")

    say("The audit log says who got which token, and whether anybody has changed the log itself:")
    config = str(stage.folder / "brokerd.toml")
    stage.brokerctl("audit", "tail", "-n", "3", "--grant", "reports", "--config", config)
    stage.brokerctl("audit", "verify", "--config", config)


@dataclass
class Stage:
    """The folder, providers and brokerd of the demo. `seen`: every token that was fetched."""

    folder: Path
    children: contextlib.ExitStack
    seen: set[str] = field(default_factory=set)
    url: str = ""
    base_urls: dict[str, str] = field(default_factory=dict)
    brokerd: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return str(self.folder / "brokerd.sock")

    @property
    def log(self) -> Path:
        return self.folder / "brokerd.log"

    def start_providers(self) -> None:
        command = [sys.executable, "-m", "tests.servers", "--lifetime", str(LIFETIME), "--refresh-lifetime", "600"]
        child = self.children.enter_context(running(command, self.folder / "providers.log", stdout=subprocess.PIPE))
        assert child.stdout is not None
        if not select.select([child.stdout], [], [], READY_WITHIN)[0] or not (line := child.stdout.readline()):
            said = tail(self.folder / "providers.log")
            raise NotAsItShouldBe(f"the providers were not ready within {READY_WITHIN:g} s; their log:\n{said}")
        ready = json.loads(line)
        self.url, self.base_urls = ready["url"], ready["providers"]
        for name, url in self.base_urls.items():
            show_result(f"{name:10}  {url}")

    def write_configuration(self) -> None:
        (self.folder / "secrets").mkdir(mode=0o700)
        for name, value in SECRETS.items():
            write_private(self.folder / "secrets" / name, value + "\n")
        text = CONFIGURATION.format(folder=self.folder, **self.base_urls)
        write_private(self.folder / "brokerd.toml", text)
        show(*text[text.index("[providers.ix]") : text.index("[providers.occam]")].strip().splitlines())

    def start_brokerd(self) -> None:
        """Start it and wait until it answers."""
        command = [program("brokerd"), "--config", str(self.folder / "brokerd.toml")]
        print(f"  {DIM}$ brokerd --config brokerd.toml{PLAIN}")
        self.brokerd = self.children.enter_context(running(command, self.log))
        self.wait_until(lambda _grants: True, "answer at its socket")

    def wait_until(self, holds: Callable[[list[dict[str, Any]]], bool], what: str) -> None:
        """Wait until something is true of the grants in brokerd's status."""
        assert self.brokerd is not None
        deadline, done = time.monotonic() + READY_WITHIN, False
        while not done:
            expect(self.brokerd.poll() is None, f"brokerd ended with status {self.brokerd.returncode}")
            expect(time.monotonic() < deadline, f"brokerd did not {what} within {READY_WITHIN:g} s")
            time.sleep(0.05)
            with contextlib.suppress(NoDaemon), Broker(self.socket) as broker:
                done = holds(broker.call("status")["grants"])

    def kill_brokerd(self) -> None:
        assert self.brokerd is not None
        print(f"  {DIM}$ kill -9 {self.brokerd.pid}{PLAIN}")
        self.brokerd.kill()
        self.brokerd.wait()

    def brokerctl(self, *arguments: str, expected: int = 0) -> None:
        """Run it, and show the command and its output."""
        print(f"  {DIM}$ brokerctl {' '.join(arguments).replace(f'{self.folder}/', '')}{PLAIN}")
        environment = {**os.environ, "BROKERD_SOCKET": self.socket}
        done = subprocess.run([program("brokerctl"), *arguments], env=environment, capture_output=True, text=True)
        for line in (done.stdout + done.stderr).splitlines():
            show_result(line.rstrip())
        expect(done.returncode == expected, f"brokerctl {arguments[0]}: expected {expected}, found {done.returncode}")
        if expected:
            show_result(f"(status {done.returncode}: revoked, or needs a login)")

    def me(self, grant: str, token: Token) -> int:
        """The status with which the grant's provider answers its own API's /me."""
        self.seen.add(token.value)
        return ask(f"{self.base_urls[GRANTS[grant]]}/me", token.header)[0]

    def renewals(self, broker: Broker) -> dict[str, int]:
        return {grant["name"]: grant["renewals"] for grant in broker.call("status")["grants"]}

    def logins(self) -> dict[str, int]:
        """How often each provider got a secret, or for click2mail was asked for a long token."""
        counts = json.loads(ask(f"{self.url}/_counts", {})[1])
        return {name: counts[name]["issued"] for name in self.base_urls}

    def log_tail(self) -> str:
        return tail(self.log)


@contextlib.contextmanager
def running(command: list[str], log: Path, stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A child process, which is always ended in the end. It has its own session, so that Ctrl-C reaches only us."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=output if stdout is None else stdout,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            for stream in (child.stdin, child.stdout):
                close(stream)


def close(stream: IO[bytes] | None) -> None:
    if stream is not None:
        stream.close()


def ask(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Status and body. It uses no proxy, because the address is on this machine."""
    try:
        with build_opener(ProxyHandler({})).open(Request(url, headers=headers), timeout=10) as response:
            return response.status, response.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


def program(name: str) -> str:
    """The command of the virtual environment that runs this."""
    return str(Path(sys.executable).with_name(name))


def write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text, encoding="utf-8")


def tail(path: Path, lines: int = 30) -> str:
    if not path.exists():
        return "  (it was not started)"
    return "\n".join(f"  {line}" for line in path.read_text(errors="replace").splitlines()[-lines:])


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotAsItShouldBe(otherwise)


def say(*lines: str) -> None:
    print()
    for line in lines:
        print(f"{BOLD}{line}{PLAIN}", flush=True)


def show(*lines: str) -> None:
    for line in lines:
        print(f"  {DIM}{line}{PLAIN}")


def show_result(*lines: str) -> None:
    for line in lines:
        print(f"  {line}")


if __name__ == "__main__":
    main()
