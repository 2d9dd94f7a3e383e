# git over HTTPS against git's own http-backend: what its user types, a token that the server refuses, look-alikes.
from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.did_not_run import did_not_run
from tests.real.clients.conftest import GRANT, Machine, needs
from tests.servers import IxApi, Server
from tests.servers.guarded.git import GitServer

HOST = "git.example"
LOOK_ALIKES = ("git.example.evil.example", "evil.example")
AUTHTYPE = (2, 46)  # git's version that has it


class Git:
    """A person's git, and a server that every name leads to."""

    def __init__(self, machine: Machine, api: GitServer, server: Server) -> None:
        self.machine, self.api, self.server = machine, api, server
        self.url = f"https://{HOST}:{server.port}"
        resolve = [f"{name}:{server.port}:127.0.0.1" for name in (HOST, *LOOK_ALIKES)]
        config = machine.home / ".gitconfig"
        config.write_text(
            f'[user]\nname = "A"\nemail = "a@example.org"\n[http]\nsslCAInfo = "{machine.ca_file}"\n'
            + "".join(f'curloptResolve = "{each}"\n' for each in resolve)
            + '[credential]\nhelper = "brokerd"\n'  # docs/use-with.md: git config --global credential.helper brokerd
        )
        machine.environment |= {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}

    async def __call__(self, *words: str, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        return await self.machine.run("git", *words, cwd=cwd, **more)


@pytest.fixture(autouse=True)
def client() -> None:
    needs("git")


def version() -> tuple[int, ...]:
    said = subprocess.run(["git", "version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", said)[:2]))


@pytest.fixture
def newer_git() -> None:
    if version() < AUTHTYPE:
        did_not_run("GIT WITH AUTHTYPE", f"it needs git 2.46, here is {version()}")


async def git_at(machine: Machine, *schemes: str) -> Git:
    api = GitServer(machine.provider, machine.folder / "repositories", *schemes)
    api.make("project.git")
    server = await machine.serve(api, HOST, *LOOK_ALIKES)
    machine.helpers({"url": f"https://{HOST}:{server.port}/*", "grant": GRANT, "username": "oauth2"})
    return Git(machine, api, server)


@pytest.fixture
async def git(machine: Machine) -> Git:
    return await git_at(machine)


async def test_git_clones_and_pushes_and_keeps_no_token(git: Git) -> None:
    work = git.machine.home / "project"
    assert (await git("clone", f"{git.url}/project.git", str(work))).returncode == 0
    assert (await git("-C", str(work), "commit", "--allow-empty", "-m", "first")).returncode == 0
    pushed = await git("-C", str(work), "push", "origin", "HEAD:main")
    assert pushed.returncode == 0, pushed.stderr
    assert {each[1:] for each in git.api.shown} == {("Basic", "oauth2", git.machine.token)}
    assert "first" in (await git("-C", str(git.api.root / "project.git"), "log", "main")).stdout
    assert [path for path, text in git.machine.written().items() if git.machine.token in text] == []


async def test_a_refused_token_is_replaced_at_once_by_a_newer_git_and_for_the_next_command_by_an_older_one(
    git: Git,
) -> None:
    assert (await git("ls-remote", f"{git.url}/project.git")).returncode == 0
    git.machine.provider.forget_access_tokens()
    dead = git.machine.token
    if version() < AUTHTYPE:
        failed = await git("ls-remote", f"{git.url}/project.git")
        assert (failed.returncode, "Authentication failed" in failed.stderr) == (128, True)
        assert git.machine.token != dead
    assert (await git("ls-remote", f"{git.url}/project.git")).returncode == 0
    assert git.api.shown[-1].secret == git.machine.token != dead


async def test_a_server_that_refuses_every_token_gets_a_bounded_number_of_them(git: Git) -> None:
    issued = git.machine.provider.counts.issued
    git.api.provider = IxApi()  # it has issued none
    done = await git("ls-remote", f"{git.url}/project.git")
    assert (done.returncode, "Authentication failed" in done.stderr) == (128, True)
    assert 1 <= len(git.api.shown) <= 2
    assert git.machine.provider.counts.issued <= issued + 1


async def test_a_look_alike_gets_no_token(git: Git) -> None:
    port = git.server.port
    for url in (
        f"https://{HOST}.evil.example:{port}/project.git",
        f"https://{HOST}@evil.example:{port}/project.git",
        f"https://{HOST}:{port}@evil.example:{port}/project.git",
        f"https://evil.example:{port}/{HOST}/project.git",
        f"https://other@{HOST}:{port}/project.git",  # helpers.toml says whose token it is
        f"https://{HOST}%0ahost={HOST}%0aprotocol=https@evil.example:{port}/project.git",  # CVE-2020-5260
        f"https://evil.example:{port}/%0ahost={HOST}/project.git",
        f"https://evil.example:{port}?%0ahost={HOST}",  # CVE-2020-11008
        f"https://%0ahost={HOST}%0aprotocol=https@127.0.0.1:{port}/project.git",
        f"https://127.0.0.1:{port}/project.git",
    ):
        done = await git("ls-remote", url)
        assert done.returncode == 128, url
        assert git.machine.token not in [each.secret for each in git.api.shown], url
        assert git.machine.token not in done.stdout + done.stderr
    assert git.api.refused >= 6  # git did ask the server


async def test_http_instead_of_https_and_another_port_get_no_token(git: Git) -> None:
    plain = await git.machine.serve(git.api, tls=False)
    tls = await git.machine.serve(git.api, HOST)
    git.machine.helpers({"url": f"https://{HOST}:{plain.port}/*", "grant": GRANT})
    for scheme, server in {"http": plain, "https": tls}.items():
        resolve = f"http.curloptResolve={HOST}:{server.port}:127.0.0.1"
        assert (await git("-c", resolve, "ls-remote", f"{scheme}://{HOST}:{server.port}/project.git")).returncode == 128
    assert (git.api.shown, git.api.refused) == ([], 2)


async def test_an_address_without_a_grant_is_left_to_the_next_helper(git: Git) -> None:
    other = "!f() { echo username=me; echo password=mine; }; f"
    await git("-c", f"credential.helper={other}", "ls-remote", f"https://127.0.0.1:{git.server.port}/project.git")
    assert [each[1:] for each in git.api.shown] == [("Basic", "me", "mine")]


async def test_a_table_with_a_path_needs_use_http_path(git: Git) -> None:
    git.api.make("Other Team/project.git")
    git.machine.helpers({"url": f"{git.url}/Other%20Team/*", "grant": GRANT})
    there, elsewhere = f"{git.url}/Other%20Team/project.git", f"{git.url}/project.git"
    with_path = ("-c", "credential.useHttpPath=true", "ls-remote")
    assert (await git("ls-remote", there)).returncode == 128
    assert git.api.shown == []
    assert (await git(*with_path, there)).returncode == 0
    git.api.shown.clear()
    for url in (elsewhere, f"{git.url}/Other%20Team/../project.git", f"{git.url}/Other%20Team%2f../project.git"):
        await git(*with_path, url)
        assert git.api.shown == [], url


async def test_a_grant_without_a_token_ends_git_with_brokerds_words_and_asks_nobody(git: Git) -> None:
    asked = git.machine.home / "asked"
    askpass = git.machine.home / "askpass"
    askpass.write_text(f"#!/bin/sh\necho x >>{asked}\necho x\n")
    askpass.chmod(0o700)
    await git.machine.brokerd.call("revoke", grant=GRANT, local=True)
    done = await git("ls-remote", f"{git.url}/project.git", GIT_ASKPASS=str(askpass))
    assert done.returncode == 128
    assert re.search(r"^git-credential-brokerd: .*was revoked", done.stderr, re.MULTILINE)
    assert "told us to quit" in done.stderr
    assert not asked.exists()


async def test_a_helpers_toml_that_others_can_write_is_not_followed(git: Git) -> None:
    (git.machine.home / ".config" / "brokerd" / "helpers.toml").chmod(0o666)
    done = await git("ls-remote", f"{git.url}/project.git")
    assert (done.returncode, git.api.shown) == (128, [])
    assert "others may write to it" in done.stderr


@pytest.mark.parametrize(
    ("schemes", "used"), [(("Bearer",), "Bearer"), (("Basic", "Bearer"), "Bearer"), (("Basic",), "Basic")]
)
async def test_a_newer_git_sends_a_bearer_token_where_the_server_takes_one(
    machine: Machine, newer_git: None, schemes: tuple[str, ...], used: str
) -> None:
    git = await git_at(machine, *schemes)
    done = await git("ls-remote", f"{git.url}/project.git")
    assert done.returncode == 0, done.stderr
    assert {each[1:] for each in git.api.shown} == {(used, "oauth2" if used == "Basic" else "", machine.token)}
