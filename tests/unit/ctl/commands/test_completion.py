# Completions as they come about in real shells: bash, and zsh and fish where they are installed, with a daemon to ask.
from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from brokerd.ctl.command_table import COMMANDS, SHELLS
from brokerd.ctl.commands.completion import completion_script
from tests.did_not_run import did_not_run
from tests.unit.client.daemon import Daemon
from tests.unit.ctl.conftest import Run

BASH = r"""
source "$1/brokerctl.bash"; line=$2
read -ra COMP_WORDS <<< "$line"; [[ $line == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
_shtab_brokerctl brokerctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""
# zsh completes in its line editor alone: one in a terminal of its own, whose compadd says what it is given.
ZSH = r"""
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PS1=; stty -echo; fpath=($1 \$fpath); autoload -U compinit; compinit -u -d $1/dump; setopt no_beep"
zpty -w z 'compadd () { if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
  typeset -a hits; builtin compadd -A hits "$@"; print -rl -- "HIT<"${^hits}">"; fi; builtin compadd "$@" }'
zpty -w z 'finish() { zle list-choices; print DONE; exit }; zle -N finish; bindkey "^X^F" finish; print READY'
zpty -r z out '*READY*READY*'
zpty -n -w z "$2"$'\x18\x06'
zpty -r z out '*DONE*'
print -r -- "$out" | grep -ao 'HIT<[^>]*>' | sed 's/^HIT<\(.*\)>$/\1/'
"""
FISH = "source $argv[1]/brokerctl.fish; complete -C $argv[2] | cut -f 1"
RUN = {"bash": ["--norc", "-c", BASH, "-"], "zsh": ["-f", "-c", ZSH, "-"], "fish": ["--no-config", "-c", FISH]}
FILES = {"bash": "brokerctl.bash", "zsh": "_brokerctl", "fish": "brokerctl.fish"}


class Shell:
    """One that is installed, with the scripts in a folder of their own, in which it also is."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.without_clock = folder / "timeout"  # in front of timeout(1): a busy machine is no reason to give up
        self.without_clock.write_text('#!/bin/sh\nshift\nexec "$@"\n')
        self.without_clock.chmod(0o755)
        (folder / FILES[name]).write_text(completion_script(name))

    def completes(self, line: str) -> set[str]:
        words = [self.name, *RUN[self.name], str(self.folder), f"brokerctl {line}"]
        done = subprocess.run(words, capture_output=True, text=True, cwd=self.folder, timeout=30, check=False)
        assert done.stderr == ""
        return set(done.stdout.splitlines()) - {""}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    name = request.param
    if shutil.which(name) is None:
        did_not_run("COMPLETIONS", f"{name} is not installed")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "at"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return Shell(name, folder)


@pytest.fixture
def grants(daemon: Daemon) -> Daemon:
    names = ("ix-prod", "ix-test", "mail.all")
    daemon.answers["status"] = lambda params: {"daemon": {}, "grants": [{"name": name} for name in names]}
    return daemon


def test_commands_options_and_choices_are_completed(shell: Shell) -> None:
    assert {command for command in COMMANDS if command.startswith("re")} == shell.completes("re")
    assert {"--json", "--names", "--verify"} <= shell.completes("status --")
    assert shell.completes("recipe try x --operation ren") == {"renew"}
    assert shell.completes("recipe s") == {"show"}
    assert shell.completes("in") == {"init", "install"}
    assert shell.completes("init --reci") == shell.completes("add --reci") == {"--recipe"}
    assert shell.completes("completion ") >= set(SHELLS)


def test_grants_are_completed_wherever_one_is_wanted(shell: Shell, grants: Daemon) -> None:
    for line in ("get ix", "exec --env T ix", "watch mail.all ix", "--socket x.sock revoke ix"):
        assert shell.completes(line) == {"ix-prod", "ix-test"}, line
    assert {method for method, _ in grants.calls} == {"status"}


def test_files_folders_recipes_users_and_commands_are_completed(shell: Shell) -> None:
    (shell.folder / "knoll.toml").touch()
    (shell.folder / "knots").mkdir()
    assert {each.rstrip("/") for each in shell.completes("backup kn")} == {"knoll.toml", "knots"}
    assert {each.rstrip("/") for each in shell.completes("restore --state-dir kn")} == {"knots"}
    assert shell.completes("recipe check kn") >= {"knox", "knoll.toml"}
    assert "root" in shell.completes("explain ix --as roo")
    assert {"bash", "bashbug"} & shell.completes("exec ix --env T -- bas") == {"bash", "bashbug"}
    assert not {"bash", "bashbug"} & shell.completes("exec ix bas")


def test_without_a_daemon_nothing_is_offered_and_nothing_said(shell: Shell, tmp_path: Path) -> None:
    assert not shell.completes("refresh ix")


def test_a_daemon_that_does_not_answer_is_given_up_soon(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.without_clock.unlink()
    stuck = shell.folder / "brokerctl"
    stuck.write_text("#!/bin/sh\nexec sleep 600\n")
    stuck.chmod(0o755)
    monkeypatch.setenv("PATH", str(shell.folder), prepend=":")
    assert not shell.completes("refresh ix")


def test_a_name_that_is_more_than_a_word_is_not_run(shell: Shell, daemon: Daemon) -> None:
    evil = {"name": "ix-$(touch${IFS}trace)`touch trace`"}
    daemon.answers["status"] = lambda params: {"daemon": {}, "grants": [evil]}
    assert shell.completes("get i") == {"ix-"}
    assert not (shell.folder / "trace").exists()


def test_the_command_prints_the_script(brokerctl: Run) -> None:
    for shell in SHELLS:
        done = brokerctl("completion", shell)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.rstrip("\n") == completion_script(shell).rstrip("\n")


def test_names_are_what_a_script_reads(grants: Daemon, brokerctl: Run) -> None:
    done: Any = brokerctl("status", "--names")
    assert (done.returncode, done.stdout) == (0, "ix-prod\nix-test\nmail.all\n")
