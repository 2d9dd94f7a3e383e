# What `brokerctl get`, `brokerctl credential` and each credential helper import until they have answered. Whoever adds
# an import adds it to a list here, or imports it where it is needed: each one makes every start slower.
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.unit.client.daemon import Daemon

# Prints what was imported on the last line of stderr, after the program itself.
REPORT = """
import sys
before = set(sys.modules)
try:
    code = {call}
finally:
    print(*sorted(set(sys.modules) - before), file=sys.stderr)
sys.exit(code)
"""
CLIENT = frozenset(
    f"brokerd_client{name}"
    for name in (
        "",
        ".address",
        ".blocking",
        ".client_protocol",
        ".errors",
        ".messages",
        ".request",
        ".short_messages",
        ".wire",
    )
)
CTL = frozenset({"brokerd", "brokerd.ctl", "brokerd.ctl.commands", "brokerd.ctl.terminal"})
HELPER = frozenset(f"brokerd_client.{name}" for name in ("credentials", "credentials.asking", "helpers"))
TIMES = "brokerd_client.credentials.times"

# The modules of ours, and those of the standard library that they import, with all that these import themselves.
PROGRAMS = {
    "brokerctl get ix": ({*CLIENT, *CTL, "brokerd.ctl.commands.tokens"}, ()),
    "brokerctl --socket {socket} get ix": ({*CLIENT, *CTL, "brokerd.ctl.commands.tokens"}, ()),
    "brokerctl credential headers ix": (
        {*CLIENT, *CTL, "brokerd.ctl.commands.credential", "brokerd_client.credentials", TIMES},
        ("json",),
    ),
    "brokerctl credential kubernetes ix": (
        {*CLIENT, *CTL, "brokerd.ctl.commands.credential", "brokerd_client.credentials", TIMES},
        ("json",),
    ),
    "git-credential-brokerd get": ({*CLIENT, *HELPER, "brokerd_client.credentials.git"}, ("tomllib", "urllib.parse")),
    "docker-credential-brokerd get": (
        {*CLIENT, *HELPER, "brokerd_client.credentials.docker"},
        ("json", "tomllib", "urllib.parse"),
    ),
    "bazel-credential-brokerd get": (
        {*CLIENT, *HELPER, "brokerd_client.credentials.bazel", TIMES},
        ("json", "tomllib", "urllib.parse"),
    ),
}
CALLS = {
    "brokerctl": "__import__('brokerd.ctl').ctl.main()",
    "git-credential-brokerd": "__import__('brokerd_client.credentials.git').credentials.git.main()",
    "docker-credential-brokerd": "__import__('brokerd_client.credentials.docker').credentials.docker.main()",
    "bazel-credential-brokerd": "__import__('brokerd_client.credentials.bazel').credentials.bazel.main()",
}
QUESTIONS = {
    "git-credential-brokerd": "protocol=https\nhost=git.example\n\n",
    "docker-credential-brokerd": "https://git.example",
    "bazel-credential-brokerd": json.dumps({"uri": "https://git.example/x"}),
}
# What every one of them needs of the standard library; to compile \N{…} takes unicodedata, where no bytecode is kept.
ALWAYS = ("__future__", "_socket", "errno", "unicodedata")


def run(call: str, *words: str, question: str = "") -> tuple[str, set[str]]:
    """What the program printed, and what it imported."""
    command = [sys.executable, "-c", REPORT.format(call=call), *words]
    done = subprocess.run(command, input=question, capture_output=True, text=True, check=True, env=dict(os.environ))
    return done.stdout, set(done.stderr.splitlines()[-1].split())


def closure(names: Iterable[str]) -> set[str]:
    """The modules with all that they import."""
    return run(f"[__import__(name) for name in {list(names)!r}] and 0")[1]


@pytest.mark.parametrize("line", PROGRAMS)
def test_a_program_imports_what_it_needs_for_its_answer_alone(
    line: str, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers = tmp_path / "helpers.toml"
    helpers.write_text('[[use]]\nurl = "https://git.example/*"\ngrant = "ix"\n')
    monkeypatch.setenv("BROKERD_HELPERS", str(helpers))
    ours, library = PROGRAMS[line]
    name, *words = line.format(socket=os.environ["BROKERD_SOCKET"]).split()
    said, loaded = run(CALLS[name], *words, question=QUESTIONS.get(name, ""))
    assert daemon.token({"grant": "ix"})["value"] in said
    assert loaded <= ours | closure((*ALWAYS, *library))
    assert loaded >= ours  # what is not imported any more leaves the list
