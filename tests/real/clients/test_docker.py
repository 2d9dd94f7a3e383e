# docker, and skopeo as one of podman's family, against a registry: neither needs an engine to log in or to look.
from __future__ import annotations

import json
import subprocess

import pytest

from tests.real.clients.conftest import GRANT, Machine, needs
from tests.servers import Server
from tests.servers.guarded.registry import RegistryServer

NOT_FOUND = "credentials not found in native keychain\n"


class Registry:
    def __init__(self, machine: Machine, api: RegistryServer, server: Server) -> None:
        self.machine, self.api, self.name = machine, api, f"localhost:{server.port}"
        self.docker_config({"credHelpers": {self.name: "brokerd"}})

    def docker_config(self, config: object) -> None:
        folder = self.machine.home / ".docker"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))

    async def helper(self, operation: str, text: str) -> tuple[int, str]:
        done = await self.machine.run("docker-credential-brokerd", operation, stdin=text)
        return done.returncode, done.stdout

    async def docker(self, *words: str) -> subprocess.CompletedProcess[str]:
        return await self.machine.run("docker", *words)

    async def skopeo(self, *words: str) -> subprocess.CompletedProcess[str]:
        auth = self.machine.home / "auth.json"
        auth.write_text(json.dumps({"credHelpers": {self.name: "brokerd"}}))
        return await self.machine.run("skopeo", *words, REGISTRY_AUTH_FILE=str(auth))


@pytest.fixture
async def registry(machine: Machine) -> Registry:
    api = RegistryServer(machine.provider)
    server = await machine.serve(api)
    machine.helpers({"url": f"https://localhost:{server.port}/v2/*", "grant": GRANT, "username": "bot"})
    return Registry(machine, api, server)


@pytest.fixture
def docker_cli() -> None:
    needs("docker", required=False)  # Debian 12 has no package of the client alone


@pytest.fixture
def skopeo_cli() -> None:
    needs("skopeo")


async def test_docker_looks_at_a_manifest_without_a_login(docker_cli: None, registry: Registry) -> None:
    looked = await registry.docker("manifest", "inspect", f"{registry.name}/team/app:1")
    assert looked.returncode == 0, looked.stderr
    assert json.loads(looked.stdout)["schemaVersion"] == 2
    assert {each[1:] for each in registry.api.shown} == {("Basic", "bot", registry.machine.token)}
    assert [path for path, text in registry.machine.written().items() if registry.machine.token in text] == []


async def test_docker_looks_with_the_newest_token_and_says_brokerds_words(docker_cli: None, registry: Registry) -> None:
    registry.machine.provider.forget_access_tokens()
    refused = await registry.docker("manifest", "inspect", f"{registry.name}/team/app:1")
    assert refused.returncode == 1
    await registry.machine.brokerd.call("refresh", grant=GRANT)  # docker reports no refused token
    assert (await registry.docker("manifest", "inspect", f"{registry.name}/team/app:1")).returncode == 0
    await registry.machine.brokerd.call("revoke", grant=GRANT, local=True)
    done = await registry.docker("manifest", "inspect", f"{registry.name}/team/app:1")
    assert (done.returncode, "was revoked" in done.stderr) == (1, True), done.stderr


async def test_docker_says_that_a_typed_password_is_not_kept(docker_cli: None, registry: Registry) -> None:
    registry.machine.helpers({"url": "https://elsewhere.example/*", "grant": GRANT})
    typed = registry.machine.token  # a person may log in with any password that works
    done = await registry.machine.run("docker", "login", "-u", "me", "--password-stdin", registry.name, stdin=typed)
    assert done.returncode == 1
    assert "brokerd keeps no passwords" in done.stderr


async def test_skopeo_inspects_and_copies(skopeo_cli: None, registry: Registry) -> None:
    certificates = registry.machine.home / "certificates"
    certificates.mkdir()
    (certificates / "ca.crt").write_bytes(registry.machine.ca_file.read_bytes())
    image = f"docker://{registry.name}/team/app:1"
    looked = await registry.skopeo("inspect", "--cert-dir", str(certificates), image)
    assert looked.returncode == 0, looked.stderr
    assert json.loads(looked.stdout)["Architecture"] == "amd64"
    copied = await registry.skopeo(
        *("--insecure-policy", "copy", "--src-cert-dir", str(certificates)),
        image,
        f"oci:{registry.machine.home}/image:1",
    )
    assert copied.returncode == 0, copied.stderr
    assert {each[1:] for each in registry.api.shown} == {("Basic", "bot", registry.machine.token)}
    assert (registry.machine.home / "image" / "index.json").exists()


async def test_look_alikes_get_nothing_and_are_left_to_other_helpers(registry: Registry) -> None:
    port = registry.name.rpartition(":")[2]
    token = registry.machine.token
    for name in (registry.name, f"https://{registry.name}", f"https://{registry.name}/v2/", f"LOCALHOST:{port}\n"):
        code, out = await registry.helper("get", name)
        assert (code, json.loads(out)) == (0, {"ServerURL": name.strip(), "Username": "bot", "Secret": token})
    for name in (
        "localhost",
        f"http://{registry.name}",
        f"{registry.name}.evil.example",
        f"localhost.evil.example:{port}",
        f"{registry.name}@evil.example",
        f"https://evil.example/{registry.name}",
        f"https://evil.example#@{registry.name}",
        f"https://{registry.name}/v2/../private/",
        f"{registry.name}\nevil.example",
        f"{registry.name}\0.evil.example",
        "",
    ):
        assert await registry.helper("get", name) == (1, NOT_FOUND), name
    assert json.loads((await registry.helper("list", ""))[1]) == {registry.name: "bot"}
    assert await registry.helper("erase", registry.name) == (0, "")
