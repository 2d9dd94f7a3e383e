# `brokerctl init`, the other name of add, for a recipe and for an issuer, in one line and at a terminal. The daemon's
# own check accepts what it writes, no file is overwritten, and no secret is in a command line, on the screen or
# readable by others.
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import tomli

from brokerd.ctl.commands.add import _agree_to_register
from brokerd.ctl.terminal import Failed
from brokerd.setup.check import check_configuration
from tests.real.servers import LOGIN_SCOPE, OidcProvider
from tests.scenario.logins.terminal import Terminal
from tests.unit.ctl.conftest import Run

SECRET = "test-only-secret-of-init"
BASE = ("--base-url", "https://api.ix.example/api/v2")


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setenv("BROKERD_SOCKET", str(tmp_path / "nobody"))
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)  # open to everybody, as no secret in it may be
    return folder / "brokerd.toml"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return path


def checked(main: Path) -> str:
    """What the daemon says of it."""
    return check_configuration(str(main))


def files(main: Path) -> dict[str, str]:
    return {str(path.relative_to(main.parent)): path.read_text() for path in main.parent.rglob("*") if path.is_file()}


def written(main: Path, name: str) -> dict[str, dict[str, dict[str, object]]]:
    return tomli.loads((main.parent / "conf.d" / f"{name}.toml").read_text())


def test_one_line_leads_from_a_recipe_to_a_grant(within: Run, main: Path, secret: Path) -> None:
    given = [word for each in ("api_key", "api_secret") for word in ("--credential-file", f"{each}={secret}")]
    words = ("init", "--config", str(main), "--recipe", "ix-api", *BASE, *given, "--allow", "portal", "--allow", "ci")
    done = within(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert SECRET not in done.stdout
    assert "the configuration is right: 1 provider, 1 grant, 1 rule" in checked(main)
    table = written(main, "ix-api")
    secrets = main.parent / "secrets"
    assert table["grants"]["ix-api"]["credentials"] == {
        each: {"file": f"{secrets}/ix-api.{each}"} for each in ("api_key", "api_secret")
    }
    assert table["allow"] == [{"grants": ["ix-api"], "caller": [{"user": "portal"}, {"user": "ci"}]}]
    assert [path for path in (secrets, *secrets.iterdir(), main.with_name("key")) if path.stat().st_mode & 0o007] == []
    before = files(main)
    again = within(*words)
    assert again.returncode == 2
    assert "ix-api is there already" in again.stderr
    assert files(main) == before


def test_a_server_that_says_nothing_about_itself_is_named_by_its_token_url(
    within: Run, main: Path, secret: Path
) -> None:
    given = ("--credential", "client_id=me", "--credential-file", f"client_secret={secret}")
    done = within("init", "--config", str(main), "--token-url", "https://idp.example/token", "--name", "idp", *given)
    assert (done.returncode, done.stderr) == (0, "")
    assert written(main, "idp")["providers"]["idp"]["token_url"] == "https://idp.example/token"
    assert "1 provider, 1 grant, 0 rules" in checked(main)
    text = (main.parent / "conf.d" / "idp.toml").read_text()
    assert f"brokerd --config {main} --check, then brokerctl --config {main} reload." in text


@pytest.mark.parametrize(("typed", "agreed"), [("y", True), ("", False), (None, None)])
def test_nobody_has_a_client_registered_without_knowing_of_it(
    capfd: pytest.CaptureFixture[str], typed: str | None, agreed: bool | None
) -> None:
    answers = SimpleNamespace(asks=typed is not None, text=lambda _question: typed)
    if agreed is False:
        with pytest.raises(Failed, match="nothing was registered"):
            _agree_to_register(answers, "https://idp.example")  # type: ignore[arg-type]
    else:
        _agree_to_register(answers, "https://idp.example")  # type: ignore[arg-type]
    assert ("brokerctl registers a new client at https://idp.example" in capfd.readouterr().out) is (typed is None)


def test_a_file_that_is_in_the_way_is_found_before_anything_is_done(within: Run, main: Path) -> None:
    (main.parent / "conf.d").mkdir()
    (main.parent / "conf.d" / "gitlab.toml").write_text("# mine")
    done = within("init", "--config", str(main), "--recipe", "gitlab", "--base-url", "https://gitlab.example")
    assert "was not changed; choose another name" in done.stderr
    assert files(main) == {"conf.d/gitlab.toml": "# mine"}


def test_what_credentials_do_not_bring_is_said(within: Run, main: Path) -> None:
    done = within("init", "--config", str(main), "--recipe", "gitlab", "--base-url", "https://gitlab.example")
    assert "  brokerctl import gitlab\n" in done.stdout
    assert "1 grant, 0 rules" in checked(main)


def test_a_grant_that_is_not_right_is_not_written(within: Run, main: Path, secret: Path) -> None:
    done = within("init", "--config", str(main), "--recipe", "knox", *BASE, "--credential-file", f"username={secret}")
    assert done.returncode == 2
    assert "recipe knox cannot get a token without password; add it" in done.stderr
    assert set(files(main)) == {"brokerd.toml", "key"}
    assert "0 grants" in checked(main)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--recipe", "ix-api", *BASE, "--credential", f"api_secret={SECRET}"), "everybody can read a command line"),
        (("--recipe", "ix-api", *BASE, "--credential", "client_id=me"), "ix-api has no credential client_id"),
        (("--recipe", "ix-api"), "expected --base-url URL"),
        (("--recipe", "nothing", *BASE), "expected one of oauth2, "),
        ((), "expected --recipe NAME, --issuer URL, "),
        (("--issuer", "https://idp.example", "--credential", "client_id="), "found nothing after the ="),
        (("--issuer", "https://idp.example", "--client-id", ""), "expected --client-id ID; found an empty one"),
        (("--token-url", "https://idp.example/token"), "expected a client: --credential client_id=ID"),
        (("--token-url", "https://idp.example/token", "--grant-type", "device_code"), "a login needs --issuer"),
    ],
    ids=[
        *("a secret in sight", "another's credential", "no URL", "no such recipe", "nothing", "an empty client"),
        *("the same by the option", "no client", "a login without an issuer"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(
    within: Run, main: Path, words: tuple[str, ...], said: str
) -> None:
    done = within("init", "--config", str(main), *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert SECRET not in done.stderr
    assert files(main) == {}


def test_a_dry_run_shows_it_and_writes_nothing(within: Run, main: Path, secret: Path) -> None:
    given = [word for each in ("api_key", "api_secret") for word in ("--credential-file", f"{each}={secret}")]
    done = within("init", "--config", str(main), "--recipe", "ix-api", *BASE, *given, "--dry-run")
    assert '[providers.ix-api]\ndialect = "ix-api"' in done.stdout
    assert SECRET not in done.stdout
    assert files(main) == {}


async def test_a_person_is_asked_and_a_secret_is_not_shown(main: Path) -> None:
    terminal = Terminal(main.with_name("nobody"), ["init", "--config", str(main)], is_tty=True, environment={})
    try:
        for question, typed in {
            "A recipe": "knox",
            "The address": "https://api.example",
            "A name": "",
            "username": "me",
            "password": SECRET,
            "The user": "portal",
        }.items():
            await terminal.until(question)
            await terminal.until(": " if question != "password" else "none): ")
            terminal.type(f"{typed}\n")
        assert await terminal.end() == 0, terminal.said
    finally:
        terminal.close()
    assert SECRET not in terminal.said
    assert written(main, "knox")["grants"]["knox"]["credentials"]["username"] == "me"  # type: ignore[index]
    assert (main.parent / "secrets" / "knox.password").read_text() == f"{SECRET}\n"
    assert "1 provider, 1 grant, 1 rule" in checked(main)


@pytest.mark.real
def test_an_issuer_gives_a_client_and_a_login_is_all_that_is_missing(
    within: Run, main: Path, real_oidc: OidcProvider
) -> None:
    scope = [word for each in LOGIN_SCOPE.split() for word in ("--scope", each)]
    issuer = ("--issuer", real_oidc.issuer, "--ca-file", str(real_oidc.ca_file))
    done = within("init", "--config", str(main), *issuer, "--name", "idp", *scope, "--allow", "portal")
    assert (done.returncode, done.stderr) == (0, "")
    assert "  brokerctl login idp\n" in done.stdout
    assert written(main, "idp")["grants"]["idp"]["grant_type"] == "device_code"
    assert "1 provider, 1 grant, 1 rule" in checked(main)


@pytest.mark.real
def test_an_issuer_with_a_client_that_needs_nobody(
    within: Run, main: Path, real_oidc: OidcProvider, secret: Path
) -> None:
    issuer = ("--issuer", real_oidc.issuer, "--ca-file", str(real_oidc.ca_file), "--grant-type", "client_credentials")
    alone = within("init", "--config", str(main), *issuer)
    assert "needs a client that you registered yourself" in alone.stderr
    given = ("--credential", "client_id=cc", "--credential-file", f"client_secret={secret}")
    done = within("init", "--config", str(main), *issuer, "--name", "idp", *given)
    assert (done.returncode, done.stderr) == (0, "")
    assert "login" not in done.stdout
    assert "1 provider, 1 grant, 0 rules" in checked(main)
