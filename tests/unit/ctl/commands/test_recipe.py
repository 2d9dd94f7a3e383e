# brokerctl recipe: list, show, check, and try at strict servers on loopback. No output may hold a secret.
from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import trio

from brokerd.config.recipes import BUILT_IN_RECIPES
from brokerd.ctl import main
from tests.forked import brokerctl
from tests.servers import serve
from tests.servers.gallery import GALLERY
from tests.servers.gallery.credentials import CLIENT_ID, PASSWORD, ROLE_ID, SECRET_ID, USER, app_key_pem
from tests.servers.provider import Provider

OWN = """\
# Mine. A test's.
credentials = ["username", "password"]

[[issue]]
request = "POST /token"
json    = { name = "{username}", password = "{password}", scope = "{scope?}" }

[renew]
request = "POST /refresh"
json    = { refresh = "{refresh_token}" }

[answer]
access_token  = "access"
refresh_token = "refresh"
"""
CREDENTIALS = {
    "docker-registry": {"username": USER, "password": PASSWORD},
    "elasticsearch": {"username": USER, "password": PASSWORD},
    "github-app": {"client_id": CLIENT_ID, "private_key": app_key_pem()},
    "matrix": {"user": USER, "password": PASSWORD},
    "vault-approle": {"role_id": ROLE_ID, "secret_id": SECRET_ID},
}
SETTINGS = {
    "docker-registry": ("endpoint=auth", "service=container_registry", "scope=repository:a/b:pull"),
    "github-app": ("installation_id=4711", 'permissions={ contents = "read" }'),
}


@dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


Ctl = Callable[..., Ended]


@pytest.fixture
def ctl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """brokerctl in this process: these commands end before they ask anybody."""

    def run(*words: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["brokerctl", *words])
        code = main()
        return Ended(code, *capsys.readouterr())

    return run


def test_every_recipe_is_listed_with_a_line(ctl: Ctl) -> None:
    done = ctl("recipe", "list")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == sorted(file.stem for file in BUILT_IN_RECIPES.glob("*.toml"))
    assert all(line.endswith(".") and len(line.split()) > 4 for line in lines)


def test_a_recipe_is_shown_to_be_copied(ctl: Ctl) -> None:
    assert ctl("recipe", "show", "knox").stdout == (BUILT_IN_RECIPES / "knox.toml").read_text()


@pytest.mark.parametrize("name", sorted(file.stem for file in BUILT_IN_RECIPES.glob("*.toml")))
def test_every_recipe_begins_with_what_it_is_and_its_source(name: str) -> None:
    text = (BUILT_IN_RECIPES / f"{name}.toml").read_text()
    assert text.startswith("# ")
    if name in {*GALLERY, "knox", "simplejwt"}:
        assert "# Source: https://" in text


def test_the_fields_of_an_answer_are_summed_up(ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(OWN.replace("[answer]\n", '[answer]\nfields = { region = "r" }\n'))
    done = ctl("recipe", "check", str(file))
    assert "brings access_token and refresh_token, with the fields region" in done.stdout


def test_a_recipe_is_checked_and_summed_up(ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(OWN)
    done = ctl("recipe", "check", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "mine: the recipe has no mistakes",
        "credentials: username, password",
        "settings: scope, audience, resource",
        "issue: POST /token with password, username (and scope) brings access_token and refresh_token",
        "renew: POST /refresh with refresh_token brings access_token and refresh_token, and may use up what it sends",
        "revoke access token: none",
        "revoke refresh token: none",
        "an application sends: Authorization: Bearer {access_token}",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            OWN.replace("{username}", "{user}"),
            "mine.toml: issue[0].json: {user} is no credential or setting of this recipe; known: ",
        ),
        (OWN.replace("[renew]", "[renwe]"), "mine.toml: renwe: unknown key; did you mean renew?"),
        ("credentials = [", "mine.toml: this is not TOML: "),
        (
            "\n".join(line for line in OWN.splitlines() if not line.startswith("refresh_token")),
            "mine.toml: renew: never used: no answer has a refresh token; write in [answer] where it is, or remove",
        ),
        (
            OWN.replace(
                "[renew]", '[[issue]]\nrequest = "POST /b"\nform = { u = "{username}", p = "{password}" }\n[renew]'
            ),
            "mine.toml: issue[1]: never used: issue[0] comes before it and needs nothing else; put this one first",
        ),
    ],
)
def test_a_mistake_is_named_with_file_and_key(ctl: Ctl, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    done = ctl("recipe", "check", str(file))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "required: list|show|check|try; see brokerctl recipe --help"),
        (("show", "nix-api"), "no recipe 'nix-api'; name a file that ends in .toml, or one of: aws-sts, click2mail, "),
        (("check", "/nowhere/mine.toml"), "/nowhere/mine.toml: there is no such file"),
        (("try", "knox"), "required: --base-url; see brokerctl recipe try --help"),
        (("try", "knox", "--base-url", "https://x.example", "--pasword", "p"), "no option --pasword"),
        (("try", "knox", "--base-url", "x.example"), "base_url: expected an https:// URL"),
        (
            ("try", "knox", "--base-url", "https://x.example"),
            "recipe knox cannot get a token without password, username; add it",
        ),
        (("try", "knox", "--base-url", "https://x.example", "--setting", "p"), "expected --setting NAME=VALUE"),
        (("try", "knox", "--base-url", "https://x.example", "--setting", "p=1"), "recipe knox has no such setting"),
    ],
)
def test_a_wrong_command_line_is_2_and_one_line(ctl: Ctl, words: tuple[str, ...], says: str) -> None:
    done = ctl("recipe", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr


def test_credentials_that_everybody_can_read_are_refused(ctl: Ctl, tmp_path: Path) -> None:
    file = tmp_path / "login.toml"
    file.write_text('username = "u"\npassword = "test-only-p"\n')
    file.chmod(0o644)
    words = ("recipe", "try", "knox", "--base-url", "https://x.example", "--credentials", str(file))
    done = ctl(*words)
    assert done.returncode == 2
    assert "credentials.password: this file contains a secret, and everybody can read it" in done.stderr


# -- try


class Tried:
    """brokerctl recipe try, at a strict server."""

    def __init__(self, provider: Provider[Any], folder: Path) -> None:
        self.provider, self.folder = provider, folder

    async def __call__(
        self, *words: str, recipe: str | None = None, **credentials: str
    ) -> subprocess.CompletedProcess[bytes]:
        name = self.provider.name
        login = {**CREDENTIALS[name], **credentials}
        for key, value in login.items():
            (self.folder / key).write_text(value)
            (self.folder / key).chmod(0o600)
        file = self.folder / "login.toml"
        file.write_text("".join(f'{key} = {{ file = "{self.folder / key}" }}\n' for key in login))
        settings = [part for each in SETTINGS.get(name, ()) for part in ("--setting", each)]
        tries = ("recipe", "try", recipe or name, "--base-url", self.provider.base_url, "--credentials", file)
        done = await trio.to_thread.run_sync(lambda: brokerctl(*tries, *settings, *words, text=False))
        said = (done.stdout + done.stderr).decode()
        secrets = {*login.values(), *self.provider.ledger.tokens} - {USER, CLIENT_ID, ROLE_ID}
        forms = {form for each in secrets for form in (each, quote(each), quote_plus(each), encoded(each))}
        forms.add(encoded(f"{USER}:{login.get('password')}"))
        assert [form for form in forms if form in said] == []
        return done


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@asynccontextmanager
async def at(name: str, folder: Path) -> AsyncIterator[Tried]:
    provider = GALLERY[name]()
    async with serve(provider):
        yield Tried(provider, folder)


@pytest.mark.parametrize(
    ("name", "operation", "lines"),
    [
        ("docker-registry", "issue", ["> Authorization: Basic ***", "= access token: 67 characters, lives 3600 s"]),
        ("elasticsearch", "renew", [f'> {{"grant_type": "password", "username": "{USER}", "password": "***"}}']),
        ("github-app", "issue", ["> Authorization: Bearer ***", "= refresh token: none", "< 201"]),
        ("matrix", "revoke", ["= done", "> {}"]),
        ("vault-approle", "renew", ["> X-Vault-Token: ***", f'> {{"role_id": "{ROLE_ID}", "secret_id": "***"}}']),
    ],
)
async def test_a_try_shows_what_was_sent_came_and_was_read_and_no_secret(
    name: str, operation: str, lines: list[str], tmp_path: Path
) -> None:
    async with at(name, tmp_path) as tried:
        done = await tried("--operation", operation)
        assert (done.returncode, done.stderr) == (0, b""), done
        shown = done.stdout.decode().splitlines()
        assert [line for line in lines if line not in shown] == [], done.stdout.decode()
        assert any(line.endswith(' characters)",') for line in shown)
        assert tried.provider.counts.issued == 1
        assert tried.provider.counts.renewed == (operation == "renew")
        assert tried.provider.counts.revoked == (operation == "revoke")


async def test_a_try_that_is_refused_says_why_and_ends_with_2(tmp_path: Path) -> None:
    async with at("elasticsearch", tmp_path) as tried:
        tried.provider.settings.echo_input = True
        done = await tried(password="test-only-wrong, of several words")
        assert done.returncode == 2
        assert b"several" not in done.stdout, "it is masked as a whole"
        assert b"= misconfigured: issue[0]: the provider answered 401: unable to authenticate user" in done.stdout


def test_a_try_without_credentials_says_which_are_missing(ctl: Ctl) -> None:
    done = ctl("recipe", "try", "treezor", "--base-url", "https://x.example")
    assert done.returncode == 2
    assert "= misconfigured: recipe treezor cannot get a first token; add client_id and client_secret" in done.stdout


async def test_a_token_where_the_recipe_does_not_look_is_not_shown_either(tmp_path: Path) -> None:
    text = (BUILT_IN_RECIPES / "matrix.toml").read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace('at = "access_token"', 'at = "acess_token"'))
    async with at("matrix", tmp_path) as tried:
        done = await tried(recipe=str(mine))
        assert done.returncode == 4
        assert b"= to be tried again later (unreadable): issue[0]: answered 200 with application/json" in done.stdout
        assert b'"access_token": "*** (' in done.stdout
        assert b"= no token is where [answer] says" in done.stdout


async def test_a_field_is_said_by_its_name_and_not_shown(tmp_path: Path) -> None:
    text = (BUILT_IN_RECIPES / "matrix.toml").read_text()
    mine = tmp_path / "mine.toml"
    mine.write_text(text.replace("[answer]\n", '[answer]\nfields = { device = "device_id" }\n'))
    async with at("matrix", tmp_path) as tried:
        done = await tried(recipe=str(mine))
        assert done.returncode == 0, done
        device = re.search(rb"= field device: (\d+) characters", done.stdout)
        assert device is not None, done.stdout.decode()
        assert re.search(rb'"device_id": "\*\*\*', done.stdout), done.stdout.decode()


async def test_a_try_where_nobody_listens_is_4(tmp_path: Path) -> None:
    async with at("matrix", tmp_path) as tried:
        tried.provider.down = True
        done = await tried()
        assert done.returncode == 4
        assert b"= to be tried again later (unreachable): " in done.stdout
