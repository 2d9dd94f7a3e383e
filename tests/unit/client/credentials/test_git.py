# git-credential-brokerd: git's lines in, git's lines out, and every question that gets nothing.
from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from brokerd_client.credentials import git
from brokerd_client.errors import Limit, NeedsLogin

from tests.unit.client.credentials.conftest import Run
from tests.unit.client.daemon import Daemon

ASKED = "protocol=https\nhost=git.example\n"
NEWER = "capability[]=authtype\ncapability[]=state\n"
DIGEST = sha256(b"token-of-git").hexdigest()
AGAIN = f"capability[]=state\nstate[]=brokerd.refused={DIGEST}\ncontinue=1\n"
BEARER = (
    "capability[]=authtype\nauthtype=Bearer\ncredential=token-of-git\nephemeral=1\npassword_expiry_utc=2000000000\n"
)
BASIC = "username=oauth2\npassword=token-of-git\npassword_expiry_utc=2000000000\n"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (ASKED, BASIC),
        (f"{ASKED}\nhost=evil.example\n", BASIC),  # a blank line ends the question
        (f"{ASKED}username=me\n", BASIC.replace("oauth2", "me")),
        (f"{ASKED}path=team/project.git\n", BASIC),
        (f"{NEWER}{ASKED}", BEARER + AGAIN),
        (f"capability[]=authtype\n{ASKED}", BEARER),
        (f"{NEWER}{ASKED}wwwauth[]=Basic realm=x\nwwwauth[]=bearer realm=x\n", BEARER + AGAIN),
        (f"{NEWER}{ASKED}wwwauth[]=Basic realm=x\n", BASIC + AGAIN),  # GitHub and GitLab take no bearer token from git
        (f"{NEWER}{ASKED}wwwauth[]=Basic realm=x\nwwwauth[]=\n", BEARER + AGAIN),  # an empty value clears the list
        (f"capability[]=state\n{ASKED}", BASIC + AGAIN),
    ],
)
def test_get_answers_with_what_this_git_and_this_server_understand(
    daemon: Daemon, run: Run, question: str, answer: str
) -> None:
    assert run(git, question, "get") == (0, answer, "")


@pytest.mark.parametrize(
    "question",
    [
        "",
        "protocol=https\n",
        "host=git.example\n",
        "protocol=http\nhost=git.example\n",
        "protocol=ssh\nhost=git.example\n",
        "protocol=https\nhost=git.example.evil.example\n",
        "protocol=https\nhost=git.example:8443\n",
        "protocol=https\nhost=git.example@evil.example\n",
        "protocol=https\nhost=evil.example/git.example\n",
        "protocol=https\nhost=git.example/x\n",
        "protocol=https\nhost=git.example?x\n",
        "protocol=https\nhost=git.example#x\n",
        "protocol=https\nhost=git.example\\.evil.example\n",
        "protocol=https\nhost=git.example%2f.evil.example\n",
        "protocol=https://git.example/\nhost=evil.example\n",
        "protocol=https\nhost=evil.example\nhost=git.example\n",
        "protocol=https\nhost=git.example\nhost=evil.example\n",
        "protocol=https\nhost=git.example\r\n",
        "protocol=https\nhost=git.example\0\n",
        "protocol=https\nhost=git.example\x1b[1m\n",
        "protocol=https\nhost=gıt.example\n",
        "protocol=https\nhost=git.example\nno equals sign\n",
        "protocol=https\nhost=index.example\n",  # its table is about a path, which git did not say
        "protocol=https\nhost=index.example\npath=simple/../private\n",
        "protocol=https\nhost=index.example\npath=simple%2f..\n",
        "protocol=https\nhost=registry.example:5000\npath=v2/x\nusername=other\n",  # another user's
        b"protocol=https\nhost=\xff\n",
        "protocol=https\nhost=git.example\npath=" + "x" * 1024 * 1024,
    ],
    ids=range(28),
)
def test_a_question_that_is_not_about_a_table_gets_nothing_and_git_asks_elsewhere(
    daemon: Daemon, run: Run, question: str
) -> None:
    code, out, _ = run(git, question, "get")
    assert (code, out, daemon.calls) == (0, "", [])


def test_a_path_gets_what_its_table_says(daemon: Daemon, run: Run) -> None:
    _, out, _ = run(git, "protocol=https\nhost=index.example\npath=simple/a b+c\n", "get")
    assert "password=token-of-index\n" in out


def test_a_user_without_a_rule_or_brokerd_is_left_to_other_helpers(daemon: Daemon, run: Run) -> None:
    code, out, err = run(git, "protocol=https\nhost=nope.example\n", "get")
    assert (code, out) == (0, "")
    assert err == "git-credential-brokerd: no grant nope\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NeedsLogin("git needs a login"), "git needs a login\n"),
        (Limit("too many requests", retry_after=7), "too many requests; try again in 7 s\n"),
    ],
)
def test_a_grant_without_a_token_ends_git(daemon: Daemon, run: Run, error: Exception, words: str) -> None:
    def fails(params: dict[str, Any]) -> Any:
        raise error

    daemon.answers["get"] = fails
    assert run(git, ASKED, "get") == (1, "quit=1\n", f"git-credential-brokerd: {words}")


def test_a_newer_git_asks_again_in_the_same_command_once_and_reports_the_token_by_its_hash(
    daemon: Daemon, run: Run
) -> None:
    again = f"{NEWER}state[]=other.x\nstate[]=brokerd.refused={DIGEST}\n{ASKED}"
    assert run(git, again, "get") == (0, BEARER, "")  # without "continue": a third time would change nothing
    assert daemon.calls == [("get", {"grant": "git", "refused_sha256": DIGEST})]


@pytest.mark.parametrize("key", ["password", "credential"])
def test_erase_reports_the_token_that_the_server_refused(daemon: Daemon, run: Run, key: str) -> None:
    assert run(git, f"{ASKED}username=oauth2\n{key}=dead\n", "erase") == (0, "", "")
    (_, params), *more = daemon.calls
    assert (params["grant"], params["refused"], more) == ("git", "dead", [])


def test_erase_without_a_token_or_a_table_asks_nothing(daemon: Daemon, run: Run) -> None:
    assert run(git, ASKED, "erase") == (0, "", "")
    assert run(git, "protocol=https\nhost=evil.example\npassword=x\n", "erase") == (0, "", "")
    assert daemon.calls == []


def test_store_and_operations_of_later_versions_do_nothing(daemon: Daemon, run: Run) -> None:
    assert run(git, f"{ASKED}password=typed\n", "store") == (0, "", "")
    assert run(git, ASKED, "later") == (0, "", "")
    assert daemon.calls == []


@pytest.mark.parametrize("argv", [(), ("--help",)])
def test_a_person_is_told_who_runs_it(run: Run, argv: tuple[str, ...]) -> None:
    code, out, err = run(git, "", *argv)
    assert (code, out) == (2, "")
    assert "git runs this program; usage: git-credential-brokerd get|store|erase" in err


def test_a_bug_is_told_without_what_it_was_about(daemon: Daemon, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ValueError("token-of-git")

    monkeypatch.setattr(git, "answer", fails)
    code, out, err = run(git, ASKED, "get")
    assert (code, out) == (1, "")
    assert err == "git-credential-brokerd: a bug in git-credential-brokerd: ValueError; please report it\n"
