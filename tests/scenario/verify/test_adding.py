# brokerctl add at npm's oidc-provider, with a daemon: from the URL of a resource to files, a registered client and a
# grant that waits for its login, and then has it.
from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest
import tomli
import trio

from tests.forked import brokerctl
from tests.real.servers import LOGIN_SCOPE, Client, OidcProvider, approve, device_login, introspect
from tests.scenario.daemon.harness import Brokerd
from tests.unit.ctl.conftest import program

pytestmark = pytest.mark.real


async def add(brokerd: Brokerd, server: OidcProvider, *words: str) -> subprocess.CompletedProcess[str]:
    given = ["--config", str(brokerd.config), "--ca-file", str(server.ca_file), *words]
    return await trio.to_thread.run_sync(brokerctl, "--socket", brokerd.socket, "add", *given)


def files(brokerd: Brokerd) -> set[str]:
    return {str(path.relative_to(brokerd.etc)) for path in brokerd.etc.rglob("*") if path.is_file()}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("path", ["/mcp", "/api"])
async def test_one_command_leads_from_a_url_to_a_login(brokerd: Brokerd, real_oidc: OidcProvider, path: str) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    url = f"{real_oidc.url}{path}"
    scope = [word for each in LOGIN_SCOPE.split() for word in ("--scope", each)]
    done = await add(brokerd, real_oidc, "--resource", url, "--name", "tools", *scope)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "brokerd has read it" in done.stdout
    assert "\nnext:\n" in done.stdout
    assert "  brokerctl login tools\n" in done.stdout
    assert files(brokerd) == {"brokerd.toml", "key", "conf.d/tools.toml", "secrets/tools.registration"}
    assert mode(brokerd.etc / "secrets" / "tools.registration") == 0o600 | (mode(brokerd.config) & 0o640)
    assert mode(brokerd.etc / "secrets") & 0o007 == 0
    table = tomli.loads((brokerd.etc / "conf.d" / "tools.toml").read_text())
    grant = table["grants"]["tools"]
    assert table["providers"]["tools"]["issuer"] == real_oidc.issuer
    assert (grant["resource"], grant["grant_type"], grant["client_auth"]) == (url, "device_code", "none")
    assert (await brokerd.status("tools"))["state"] == "needs_login"
    # The client is one with which a person can log in.
    client = Client(grant["credentials"]["client_id"], None, "none", " ".join(grant["scope"]))
    known = dataclasses.replace(real_oidc, clients={"new": client})
    token = await trio.to_thread.run_sync(lambda: device_login(known, "new"))
    await brokerd.call("import", grant="tools", refresh_token=token)
    claims = introspect(real_oidc, await brokerd.get("tools"))
    assert (claims["active"], claims["client_id"]) == (True, client.id)


async def test_the_login_can_follow_at_once(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    brokerd.configure({}, {})
    await brokerd.start()
    scope = [word for each in LOGIN_SCOPE.split() for word in ("--scope", each)]
    words = ["--config", str(brokerd.config), "--ca-file", str(real_oidc.ca_file), "--name", "tools", "--login", *scope]
    command = [*program(), "--socket", str(brokerd.socket), "add", "--resource", f"{real_oidc.url}/mcp", *words]
    with trio.fail_after(30):
        running = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        try:
            heard = ""
            while not (code := re.search(r"\b[A-Z]{4}-[A-Z]{4}\b", heard)):
                assert running.stdout is not None
                heard += (await running.stdout.receive_some()).decode()
            await trio.to_thread.run_sync(approve, real_oidc, code[0])
            assert await running.wait() == 0
        finally:
            running.kill()  # where it has not ended
    assert introspect(real_oidc, await brokerd.get("tools"))["active"] is True


async def test_a_plain_server_is_added_by_its_issuer(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    brokerd.configure({}, {})
    done = await add(brokerd, real_oidc, "--issuer", real_oidc.issuer, "--client-id", "dev-public")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "brokerd does not run" in done.stdout
    assert files(brokerd) == {"brokerd.toml", "key", "conf.d/localhost.toml"}
    await brokerd.start()
    assert (await brokerd.status("localhost"))["state"] == "needs_login"
    token = await trio.to_thread.run_sync(device_login, real_oidc, "dev-public")
    await brokerd.call("import", grant="localhost", refresh_token=token)
    assert await brokerd.get("localhost")


async def test_a_dry_run_registers_and_writes_nothing(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    brokerd.configure({}, {})
    before = files(brokerd)
    done = await add(brokerd, real_oidc, "--resource", f"{real_oidc.url}/mcp", "--dry-run")
    assert done.returncode == 0
    assert f'resource = "{real_oidc.url}/mcp"' in done.stdout
    assert "the client that will be registered" in done.stdout
    assert files(brokerd) == before


async def test_what_is_there_is_never_written_over(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    brokerd.configure({}, {})
    secret = brokerd.write("test-only-mine", "secrets/tools.client_secret")
    before = files(brokerd)
    done = await add(brokerd, real_oidc, "--resource", f"{real_oidc.url}/mcp", "--name", "tools")
    assert done.returncode == 2
    assert "exists already" in done.stderr
    assert files(brokerd) == before
    assert secret.read_text() == "test-only-mine"


async def test_a_configuration_that_would_be_wrong_is_left_as_it_was(brokerd: Brokerd, real_oidc: OidcProvider) -> None:
    brokerd.configure({}, {})
    before = files(brokerd)
    wrong = ("--name", "tools", "--client-id", "")
    done = await add(brokerd, real_oidc, "--resource", f"{real_oidc.url}/mcp", *wrong)
    assert done.returncode == 2
    assert (
        "expected --client-id ID; found an empty one" in done.stderr
    )  # a wrong file is tests/unit/ctl/commands/test_add_as_init.py's
    assert files(brokerd) == before
    assert not (brokerd.etc / "conf.d").exists()
