# Everything in examples/, run: each configuration checked as it stands and then used against a provider that speaks
# it, each application against a running brokerd, and the demo.
from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from brokerd.setup.check import check_configuration
from tests.did_not_run import did_not_run
from tests.real.servers import SimpleJwt
from tests.scenario.daemon.callers import Api
from tests.scenario.daemon.harness import Brokerd, Serving, at, remove
from tests.servers import (
    CLICK2MAIL_CLIENT,
    CLICK2MAIL_SECRET,
    IX_API_KEY,
    IX_API_SECRET,
    OAUTH2_CLIENT,
    OAUTH2_PASSWORD,
    OAUTH2_PUBLIC_CLIENT,
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
    IxApi,
    OAuth2,
)

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
ETC = "/etc/brokerd"
BIN = Path(sys.executable).parent
ENDS_WITHIN = 60.0  # seconds; what an example may take, the demo included
LIFETIME = 3_600.0  # seconds: nothing here renews by itself


@dataclass(frozen=True)
class Case:
    """What an example's configuration needs to be used here: `provider` that it speaks to, `said`: what stands in it
    and what is written in that place, `secrets`: file or systemd credential and what is in it."""

    provider: str
    said: Mapping[str, str]
    secrets: Mapping[str, str]
    imports: tuple[str, ...] = field(default=())


IX = Case("ix-api", {'"k-1"': f'"{IX_API_KEY}"'}, {"ix": IX_API_SECRET})
CASES = {
    "ix-api": IX,
    "occam-password": Case("occam", {"orders@shop.example": OCCAM_USER}, {"occam-password": OCCAM_PASSWORD}),
    "occam-key": Case("occam", {}, {"occam-key": OCCAM_KEY}),
    "treezor": Case(
        "treezor",
        {'"shop"': f'"{TREEZOR_CLIENT}"', '"clerk"': f'"{TREEZOR_USER}"', "read_only": "read_only"},
        {"treezor": TREEZOR_SECRET, "treezor-clerk": TREEZOR_PASSWORD},
    ),
    "click2mail": Case("click2mail", {'"shop"': f'"{CLICK2MAIL_CLIENT}"'}, {"click2mail": CLICK2MAIL_SECRET}),
    "oauth2-client-credentials": Case(
        "oauth2", {'client_id     = "reports"': f'client_id = "{OAUTH2_CLIENT}"'}, {"reports-secret": OAUTH2_SECRET}
    ),
    "oauth2-password": Case(
        "oauth2",
        {'"calendar"\nclient_secret': f'"{OAUTH2_CLIENT}"\nclient_secret', '"calendar-bot"': f'"{OAUTH2_USER}"'},
        {"calendar-client": OAUTH2_SECRET, "calendar-bot": OAUTH2_PASSWORD},
    ),
    "oauth2-refresh-token": Case(
        "oauth2", {'client_id = "archive"': f'client_id = "{OAUTH2_PUBLIC_CLIENT}"'}, {}, imports=("archive",)
    ),
    # Used by tests/scenario/daemon/test_values_of_providers.py:
    "aws-sts": Case("aws-sts", {}, {"identity": "test-only"}),
    "salesforce": Case("salesforce", {}, {"salesforce.pem": "test-only"}),
    "vault-database": Case("vault-database", {}, {"vault": "test-only"}),
    "own-recipe": Case("simplejwt", {}, {"intranet": "alice-password"}),
}
FLEET = ("ix-api", "occam", "treezor", "click2mail", "oauth2")
URLS = {  # what stands for a provider in the examples
    "ix-api": "https://api.ix.example/api/v2",
    "occam": "https://occam.example",
    "treezor": "https://api.treezor.example",
    "click2mail": "https://api.click2mail.example/v1",
    "oauth2": "https://idp.example/oauth",
    "simplejwt": "https://intranet.example",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: a socket's has 107 bytes at most."""
    path = Path(tempfile.mkdtemp(prefix="brokerd-"))
    yield path
    remove(path)


@pytest.fixture
async def brokerd(folder: Path, nursery: trio.Nursery) -> AsyncIterator[Brokerd]:
    made = Brokerd(folder, nursery)
    yield made
    with trio.CancelScope(shield=True):
        await made.close()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with Api() as made:
        yield made


def install(brokerd: Brokerd, name: str, secrets: Mapping[str, str], said: Mapping[str, str]) -> None:
    """Put examples/NAME.toml where this brokerd reads it, and the files that it names beside it. `said` is replaced;
    each of it has to be there."""
    text = (EXAMPLES / f"{name}.toml").read_text(encoding="utf-8")
    for old, new in said.items():
        assert old in text, f"{name}.toml does not say {old} any more"
        text = text.replace(old, new)
    brokerd.write(text.replace(ETC, str(brokerd.etc)))
    own = {"socket": brokerd.socket, "state_dir": brokerd.state}
    lines = [f'{key} = "{path}"' for key, path in own.items()] + [f'key = {{ file = "{brokerd.key}" }}']
    brokerd.write("[daemon]\n" + "\n".join(lines), "conf.d/daemon.toml")
    for secret, value in secrets.items():
        brokerd.write(value + "\n", f"secrets/{secret}").chmod(0o600)
    for recipe in (EXAMPLES / "recipes").iterdir():
        brokerd.write(recipe.read_text(encoding="utf-8"), f"recipes/{recipe.name}")


# -- configurations


def test_every_configuration_in_examples_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.toml")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
async def test_a_configuration_is_right_as_it_stands(
    name: str, brokerd: Brokerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(brokerd, name, CASES[name].secrets, {})
    (brokerd.etc / "intranet-ca.pem").write_bytes(certificate_authority())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(brokerd.etc / "secrets"))
    assert "the configuration is right" in check_configuration(str(brokerd.config))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.provider in FLEET])
async def test_a_configuration_brings_tokens_that_the_api_takes(
    name: str, brokerd: Brokerd, nursery: trio.Nursery, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    fleet: Fleet = await Serving(nursery).all(LIFETIME, refresh_lifetime=30 * 86_400.0)
    provider = fleet.by_name[case.provider]
    install(brokerd, name, case.secrets, {**case.said, **providers_own(name, provider)})
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(brokerd.etc / "secrets"))
    await brokerd.start()
    for grant in case.imports:
        token = provider.new_refresh_token("somebody", client=OAUTH2_PUBLIC_CLIENT, scopes=("read",))
        await brokerd.call("import", grant=grant, refresh_token=token.value)
    grants = [grant["name"] for grant in (await brokerd.call("status"))["grants"]]
    assert grants
    for grant in grants:
        status, about = await api.me(provider, await brokerd.get(grant))
        assert status == 200, about


@pytest.mark.real
async def test_the_example_of_an_own_recipe_speaks_to_a_real_simplejwt(
    brokerd: Brokerd, real_simplejwt: SimpleJwt
) -> None:
    install(brokerd, "own-recipe", CASES["own-recipe"].secrets, {URLS["simplejwt"]: real_simplejwt.url})
    (brokerd.etc / "intranet-ca.pem").write_bytes(real_simplejwt.ca_file.read_bytes())
    await brokerd.start()
    first = await brokerd.get("intranet")
    assert await me(real_simplejwt, first) == 200
    await brokerd.call("refresh", grant="intranet")
    second = await brokerd.get("intranet")
    assert second != first
    assert await me(real_simplejwt, second) == 200
    assert (await brokerd.call("revoke", grant="intranet"))["provider"] == "partly"  # JWTs live on


async def me(server: SimpleJwt, token: str) -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return (await trio.to_thread.run_sync(lambda: server.send("GET", "/me/", headers=headers))).status


def providers_own(name: str, provider: Any) -> dict[str, str]:
    """The provider's URLs in the place of the example's; a test provider's scopes are what it knows."""
    urls = {URLS[provider.name]: provider.base_url}
    return {**urls, "read_only": provider.settings.scopes[0]} if name == "treezor" else urls


def certificate_authority() -> bytes:
    import trustme

    return trustme.CA().cert_pem.bytes()


# -- applications

PYTHON = ("app_blocking.py", "app_trio.py", "app_asyncio.py")
APPLICATIONS = (*PYTHON, "app_shell.sh")


@pytest.fixture
async def ix(brokerd: Brokerd, nursery: trio.Nursery) -> IxApi:
    """A brokerd with a grant at IX-API, `ix-api-prod`, which has its first token; and that provider."""
    provider = await Serving(nursery)(IxApi())
    await start(brokerd, provider)
    await brokerd.get("ix-api-prod")
    return provider


async def start(brokerd: Brokerd, provider: IxApi) -> None:
    install(brokerd, "ix-api", IX.secrets, {**IX.said, URLS["ix-api"]: provider.base_url})
    await brokerd.start()


async def run(application: str, brokerd: Brokerd, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """An application with these arguments, as somebody runs it who has just read it."""
    interpreter = (sys.executable, "-W", "error") if application.endswith(".py") else ("sh",)
    if application.endswith(".sh") and shutil.which("curl") is None:
        did_not_run(f"examples/{application}", "it needs curl")
    environment = {
        **os.environ,
        "BROKERD_SOCKET": str(brokerd.socket),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "no_proxy": "127.0.0.1",
    }
    command = [*interpreter, str(EXAMPLES / application), *arguments]
    with trio.fail_after(ENDS_WITHIN):
        return await trio.run_process(command, env=environment, check=False, capture_stdout=True, capture_stderr=True)


@pytest.mark.parametrize("application", APPLICATIONS)
async def test_an_application_calls_an_api_and_has_a_refused_token_replaced(
    application: str, brokerd: Brokerd, ix: IxApi
) -> None:
    done = await run(application, brokerd, "ix-api-prod", f"{ix.base_url}/me")
    assert (done.returncode, done.stderr) == (0, b"")
    assert IX_API_KEY.encode() in done.stdout
    ix.forget_access_tokens()
    done = await run(application, brokerd, "ix-api-prod", f"{ix.base_url}/me")
    assert done.returncode == 0, done.stderr
    assert IX_API_KEY.encode() in done.stdout
    assert (ix.counts.refused, ix.counts.renewed) == (1, 1)


@pytest.mark.parametrize("application", APPLICATIONS)
async def test_an_application_says_what_is_wrong(application: str, brokerd: Brokerd, ix: IxApi) -> None:
    url = f"{ix.base_url}/me"
    done = await run(application, brokerd, "ix-api-prod", f"{ix.base_url}/nothing")
    assert (done.returncode, b"404" in done.stderr) == (1, True)
    await brokerd.call("revoke", grant="ix-api-prod")
    done = await run(application, brokerd, "ix-api-prod", url)
    assert done.returncode == (5 if application.endswith(".sh") else 1)
    assert b"was revoked" in done.stderr
    await brokerd.stop()
    done = await run(application, brokerd, "ix-api-prod", url)
    assert done.returncode == (6 if application.endswith(".sh") else 1)
    assert b"is brokerd running?" in done.stderr


@pytest.mark.parametrize("application", APPLICATIONS)
async def test_an_application_learns_when_to_try_again(
    application: str, brokerd: Brokerd, nursery: trio.Nursery
) -> None:
    provider = IxApi()
    provider.down = True
    await start(brokerd, await Serving(nursery)(provider))
    done = await run(application, brokerd, "ix-api-prod", f"{provider.base_url}/me")
    assert done.returncode == (4 if application.endswith(".sh") else 1)
    assert application.endswith(".sh") or b"try again in" in done.stderr


@pytest.mark.parametrize("application", PYTHON[1:])
async def test_a_failing_grant_does_not_hold_up_the_others(
    application: str, brokerd: Brokerd, nursery: trio.Nursery, ix: IxApi
) -> None:
    oauth2 = await Serving(nursery)(OAuth2())
    tables = {
        "ix-api-prod": {"provider": "ix-api", "credentials": {"api_key": IX_API_KEY, "api_secret": IX_API_SECRET}}
    }
    brokerd.configure(
        {**tables, "archive": {"provider": "oauth2", "grant_type": "refresh_token", "credentials": {"client_id": "x"}}},
        {"ix-api": at(ix), "oauth2": at(oauth2)},
    )
    (brokerd.etc / "conf.d" / "daemon.toml").unlink()
    await brokerd.restart()
    url = f"{ix.base_url}/me"
    done = await run(application, brokerd, "archive", url, "ix-api-prod", url)
    assert done.returncode == 1
    assert b"archive: no token" in done.stderr
    assert IX_API_KEY.encode() in done.stdout


# -- the demo


@dataclass
class Demo:
    """A running demo, whose temporary folder lies in `folder`."""

    process: trio.Process
    folder: Path
    said: bytes = b""

    async def until(self, text: bytes) -> None:
        assert self.process.stdout is not None
        with trio.fail_after(ENDS_WITHIN):
            while text not in self.said:
                data = await self.process.stdout.receive_some()
                assert data, f"the demo ended before it said {text!r}:\n{self.said.decode()}"
                self.said += data

    async def ended(self) -> int:
        assert self.process.stdout is not None
        with trio.fail_after(ENDS_WITHIN):
            async for data in self.process.stdout:
                self.said += data
            return await self.process.wait()

    def children(self) -> list[int]:
        """The processes that it has started and that still run."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(each) for each in found.split()]


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
async def demo(folder: Path, nursery: trio.Nursery) -> AsyncIterator[Demo]:
    command = [sys.executable, "-u", str(EXAMPLES / "demo.py")]
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = await trio.lowlevel.open_process(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    yield Demo(process, folder)
    process.kill()
    with trio.CancelScope(shield=True):
        await process.wait()


@pytest.mark.slow
async def test_the_demo_runs_the_main_job_and_ends_by_itself_in_under_a_minute(demo: Demo) -> None:
    assert await demo.ended() == 0, demo.said.decode()
    assert b"All of this was real" in demo.said
    assert list(demo.folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_demo_that_is_interrupted_leaves_nothing_behind(demo: Demo, number: signal.Signals) -> None:
    await demo.until(b"Now watch")
    children = demo.children()
    assert len(children) == 2
    demo.process.send_signal(number)
    assert await demo.ended() == 128 + number
    assert not [pid for pid in children if runs(pid)]
    assert list(demo.folder.iterdir()) == []


@pytest.mark.slow
async def test_a_demo_that_meets_a_fault_fails_loudly_with_the_end_of_the_log(demo: Demo) -> None:
    await demo.until(b"Now watch")
    os.kill(demo.children()[1], signal.SIGKILL)
    assert await demo.ended() == 1
    assert b"THE DEMO FAILED" in demo.said
    assert b"event=ready" in demo.said
    assert list(demo.folder.iterdir()) == []
