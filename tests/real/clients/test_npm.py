# npm, with a token in its environment, against a registry that demands it.
from __future__ import annotations

import pytest

from tests.real.clients.conftest import GRANT, Machine, needs
from tests.servers.guarded.npm import NAME, VERSION, NpmRegistry


@pytest.fixture
async def registry(machine: Machine) -> NpmRegistry:
    needs("npm")
    made = NpmRegistry(machine.provider)
    server = await machine.serve(made, tls=False)
    lines = [
        f"registry=http://127.0.0.1:{server.port}/",
        f"//127.0.0.1:{server.port}/:_authToken=${{NPM_TOKEN}}",
        "update-notifier=false",
        "fund=false",
        "audit=false",
    ]
    (machine.home / ".npmrc").write_text("\n".join(lines) + "\n")
    return made


async def test_npm_looks_and_installs_and_nothing_is_left(machine: Machine, registry: NpmRegistry) -> None:
    npm = ("brokerctl", "exec", "--env", "NPM_TOKEN", GRANT, "--", "npm")
    looked = await machine.run(*npm, "view", NAME, "version")
    assert (looked.returncode, looked.stdout) == (0, f"{VERSION}\n"), looked.stderr
    project = machine.home / "project"
    project.mkdir()
    (project / "package.json").write_text('{"name": "project", "version": "1.0.0"}')
    installed = await machine.run(*npm, "install", NAME, cwd=project)
    assert installed.returncode == 0, installed.stderr
    assert (project / "node_modules" / NAME / "index.js").exists()
    assert {each[1:] for each in registry.shown} == {("Bearer", "", machine.token)}
    assert [path for path, text in machine.written().items() if machine.token in text] == []


async def test_without_a_token_npm_does_not_begin(machine: Machine, registry: NpmRegistry) -> None:
    await machine.brokerd.call("revoke", grant=GRANT, local=True)
    done = await machine.run("brokerctl", "exec", "--env", "NPM_TOKEN", GRANT, "--", "npm", "view", NAME)
    assert (done.returncode, "was revoked" in done.stderr) == (5, True), done.stderr
    assert registry.shown == []
