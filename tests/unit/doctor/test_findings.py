# What doctor concludes from units, disks, daemons and users, given as values, and its exit code.
from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from brokerd.doctor import CHECKS, WITHIN, finding, machine, units
from brokerd.doctor import socket as listening
from brokerd.doctor.context import Facts
from brokerd.doctor.finding import (
    NETWORK,
    NO_DAEMON,
    TO_MEND,
    UNREACHABLE,
    Finding,
    exit_code,
    ok,
    problem,
    problem_from,
    warning,
)
from brokerd.edge.files.disk import Disk
from brokerd.edge.peer.accounts import UserAccount
from brokerd.edge.systemd import service_manager
from brokerd.edge.systemd.units import Unit
from brokerd.server.methods.status import NOT_ADOPTED
from tests.forked import brokerctl
from tests.project.test_docs import page, table, unquoted
from tests.scenario.daemon.harness import CLIENT, Brokerd

US = UserAccount("brokerd", 4_711, "brokerd", frozenset({4_711}))
FACTS = Facts("/etc/brokerd/brokerd.toml", None, None, None, None, 0, US, Path("/state"), Path("/run/sock"), {})
RUNS = {"LoadState": "loaded", "UnitFileState": "enabled", "ActiveState": "active"}
FAILED = {"ActiveState": "failed", "Result": "exit-code"}
GIB = 1 << 30


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([ok("disk", "x"), warning("tls", "x", "y"), warning("unit", "x", "y")], 0),
        ([problem("dns", "x", "y"), problem("tls", "x", "y")], 4),
        ([problem("dns", "x", "y"), problem("socket", "x", "y")], 6),
        ([problem("dns", "x", "y"), problem("socket", "x", "y"), problem("disk", "x", "y")], 2),
    ],
)
def test_how_the_command_ends(findings: list[Finding], code: int) -> None:
    assert exit_code(findings) == code


def test_the_remedy_is_what_stands_after_the_last_semicolon() -> None:
    assert problem_from("key", "a; b; chmod 600 /x", "other") == problem("key", "a; b", "chmod 600 /x")
    assert problem_from("key", "a", "other") == problem("key", "a", "other")


@pytest.mark.parametrize(
    ("properties", "socket", "level", "found", "remedy"),
    [
        ({}, {}, None, "", ""),
        ({"ActiveState": "inactive"}, {"ActiveState": "active"}, None, "", ""),
        ({"UnitFileState": "disabled"}, {"UnitFileState": "enabled"}, None, "", ""),
        ({"UnitFileState": "disabled"}, {}, "warning", "not started at boot", "systemctl enable brokerd"),
        ({"NeedDaemonReload": "yes"}, {}, "warning", "its file has changed", "systemctl daemon-reload"),
        ({"LoadState": "masked"}, {}, "problem", "is masked", "systemctl unmask brokerd"),
        ({"LoadState": "bad-setting"}, {}, "problem", "bad-setting", "systemd-analyze verify brokerd.service"),
        ({"ActiveState": "inactive"}, {}, "problem", "is not running", "systemctl start brokerd"),
        ({**FAILED, "ExecMainStatus": "2"}, {}, "problem", "refused its configuration", "--check; then: systemctl"),
        ({**FAILED, "ExecMainStatus": "1"}, {}, "problem", "exit-code, status 1", "journalctl -u brokerd -n 20"),
        ({**FAILED, "Result": "start-limit-hit"}, {}, "problem", "too often", "systemctl reset-failed brokerd"),
    ],
)
def test_a_unit_as_systemd_shows_it(
    properties: Mapping[str, str], socket: Mapping[str, str], level: str | None, found: str, remedy: str
) -> None:
    unit, other = (Unit(f"brokerd.{kind}", said) for kind, said in (("service", RUNS | properties), ("socket", socket)))
    seen = list(units.of_unit(unit, replace(FACTS, unit=unit, activator=other)))
    assert [str(each.level) for each in seen] == ([level] if level else [])
    for each in seen:
        assert found in each.found
        assert remedy in (each.remedy or "")


def test_a_unit_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_manager, "BOOTED", tmp_path)
    (found,) = units.unit(FACTS)
    assert (found.level, found.remedy) == ("warning", "brokerctl install --system")
    (found,) = units.unit(replace(FACTS, path="/home/ann/.config/brokerd/brokerd.toml"))
    assert found.remedy == "brokerctl install --user"


def test_a_program_that_belongs_to_another_installation(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.touch()
    theirs.touch()
    (tmp_path / "link").symlink_to(ours)
    assert list(units.of_program(tmp_path / "link", (tmp_path / "no", ours), FACTS)) == []
    assert [str(each.level) for each in units.of_program(theirs, (ours,), FACTS)] == ["warning"]
    (gone,) = units.of_program(tmp_path / "gone", (ours,), FACTS)
    assert (str(gone.level), gone.remedy) == ("problem", f"systemctl edit --full brokerd: ExecStart={ours}")


def test_what_systemctl_shows_is_read() -> None:
    unit = Unit(
        "brokerd.service",
        {
            "ExecStart": "{ path=/opt/a b/brokerd ; argv[]=/opt/a b/brokerd --config x ; ignore_errors=no }",
            "Environment": 'HTTPS_PROXY=http://proxy:1 "A=b c"',
            "LoadCredential": "one:/x two:/y",
            "LoadCredentialEncrypted": "three:/z",
        },
    )
    assert unit.program == Path("/opt/a b/brokerd")
    assert unit.environment == {"HTTPS_PROXY": "http://proxy:1", "A": "b c"}
    assert unit.credentials == {"one", "two", "three"}


@pytest.mark.parametrize(
    ("disk", "level", "words"),
    [
        (Disk("ext4", "/", GIB, 9_999, False), None, ""),
        (Disk("nfs4", "/", GIB, 9_999, False), "problem", "is on nfs4, which is shared"),
        (Disk("tmpfs", "/", GIB, 9_999, False), "problem", "all grants are lost at the next boot"),
        (Disk("overlay", "/", GIB, 9_999, False), "warning", "container's own layer"),
        (Disk("ext4", "/", GIB, 9_999, True), "problem", "is mounted read-only"),
        (Disk("ext4", "/", 32 << 20, 9_999, False), "warning", "room for 32,768 KiB"),
        (Disk("ext4", "/", 1 << 20, 9_999, False), "problem", "room for 1,024 KiB"),
        (Disk("ext4", "/", GIB, 3, False), "problem", "and 3 files"),
    ],
)
def test_a_disk_under_the_store(disk: Disk, level: str | None, words: str) -> None:
    seen = list(machine.of_disk(disk, Path("/state"), writable=False))
    assert [str(each.level) for each in seen] == ([level] if level else [])
    assert all(words in each.found for each in seen)


def test_the_disk_that_is_there_takes_a_file_and_keeps_none(tmp_path: Path) -> None:
    found = Disk.under(tmp_path)
    assert tmp_path.resolve().is_relative_to(found.mounted_on)
    assert found.refuses(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert found.refuses(tmp_path / "gone") is None, "what is not there yet cannot be tried"


@pytest.mark.parametrize(
    ("version", "said", "found", "remedy"),
    [
        (
            "0.0.1",
            {},
            "brokerd 0.0.1 is running, and this command belongs to",
            "stop the running brokerd, then start this one",
        ),
        (None, {"locked": True}, "serves no token", "brokerctl unlock"),
        (None, {"store": NOT_ADOPTED}, "so no stored token is sent", "brokerctl adopt"),
        (None, {"store": "disk full"}, "disk full", "df -h /state"),
        (None, {"audit": "disk full"}, "the audit log cannot be written: disk full", "df -h /state"),
    ],
)
def test_a_daemon_as_it_says_itself(version: str | None, said: dict[str, object], found: str, remedy: str) -> None:
    daemon = {"locked": False, "store": None, "audit": None, **said}
    (seen,) = listening.of_daemon(version or listening.__version__, daemon, FACTS)
    assert found in seen.found
    assert remedy in (seen.remedy or "")


def test_nobody_is_told_to_join_a_group_that_may_do_more_than_connect() -> None:
    assert "usermod -aG brokerd-callers ann" in listening.how_to_connect("brokerd-callers", "ann", FACTS)
    for group in ("root", "brokerd", "sudo", "docker"):  # brokerd's own group reads the secrets
        assert "usermod" not in listening.how_to_connect(group, "ann", FACTS)
    assert exit_code([problem(listening.BARRED, "x", "y")]) == TO_MEND, "a daemon is there, if the group is missing"


def test_the_brokerd_of_one_user_is_managed_by_the_systemd_of_that_user() -> None:
    unit = Unit("brokerd.service", {**RUNS, "NeedDaemonReload": "yes"}, own=True)
    facts = replace(FACTS, unit=unit, path="/home/ann/.config/brokerd/brokerd.toml")
    (seen,) = units.of_unit(unit, facts)
    assert seen.remedy == "systemctl --user daemon-reload"
    assert (facts.start, facts.restart) == ("systemctl --user start brokerd", "systemctl --user restart brokerd")
    assert facts.journal.startswith("journalctl --user ")
    assert facts.edit("X=y") == "systemctl --user edit brokerd: X=y"
    assert "systemctl" not in replace(facts, unit=None).edit("X=y") + replace(facts, unit=None).restart


GRANT = {"name": "app", "state": "ready", "last_error": None, "failing_since": None, "remedy": None}


@pytest.mark.parametrize(
    ("said", "level", "found", "remedy"),
    [
        ({}, "ok", "app does not fail", None),
        ({"state": "revoked", "last_error": "x"}, "ok", "app does not fail", None),
        (
            {"state": "needs_login", "last_error": "invalid_grant", "remedy": "brokerctl import app"},
            "problem",
            "app needs a login for 4 min, since ",
            "brokerctl import app",
        ),
        ({"state": "misconfigured", "last_error": "refused; check client_id"}, "problem", "refused", "check client_id"),
        (
            {"state": "retrying", "last_error": "503"},
            "warning",
            "app fails for 4 min, since ",
            "tries again by itself",
        ),
        (
            {"state": "retrying", "last_error": "503", "failing_since": None},
            "warning",
            "app fails: 503",
            "brokerctl status",
        ),
    ],
)
def test_a_grant_as_the_daemon_says_it(said: dict[str, object], level: str, found: str, remedy: str | None) -> None:
    since = 1e9 - 240
    (seen,) = listening.of_grants([{**GRANT, **({"failing_since": since} if said else {}), **said}], 1e9)
    assert (seen.check, str(seen.level)) == ("grants", level)
    assert found in seen.found
    assert (remedy or "") in (seen.remedy or "")


def test_of_many_grants_that_fail_the_first_are_shown_and_the_others_counted() -> None:
    fails = {**GRANT, "state": "retrying", "last_error": "503"}
    seen = list(listening.of_grants([fails] * 10_000, 1e9))
    assert len(seen) == listening.GRANTS_SHOWN + 1
    assert "9980 more fail" in seen[-1].found


def test_root_is_told_which_configuration_is_meant() -> None:
    hidden = finding.hidden("key", "/x")
    assert FACTS.with_configuration(hidden).remedy == "sudo brokerctl doctor"
    named = replace(FACTS, path="/srv/b c.toml").with_configuration(hidden)
    assert named.remedy == "sudo brokerctl doctor --config '/srv/b c.toml'"


def test_who_is_kept_out_by_which_folder(folder: Path) -> None:
    inside, file = folder / "etc", folder / "etc" / "app"
    inside.mkdir(0o750)
    file.touch(0o640)
    inside.chmod(0o750)
    file.chmod(0o640)
    of_group = UserAccount("portal", os.geteuid() + 1, "g", frozenset({os.getegid()}))
    stranger = UserAccount("nobody", os.geteuid() + 1, "g", frozenset({os.getegid() + 1}))
    assert of_group.first_closed(file) is None
    assert stranger.first_closed(file) == inside.resolve()
    file.chmod(0o600)
    assert of_group.first_closed(file) == file
    inside.chmod(0o711)
    assert stranger.first_closed(file) == file
    file.chmod(0o604)
    assert stranger.first_closed(file) is None


async def test_the_command_says_a_line_for_each_check_and_no_secret(brokerd: Brokerd) -> None:
    grant = {"provider": "corp", "grant_type": "client_credentials", "credentials": CLIENT}
    brokerd.configure({"app": grant}, {"corp": {"dialect": "oauth2", "token_url": "http://127.0.0.1:1/token"}})
    await brokerd.start()
    words = ("--socket", brokerd.socket, "doctor", "--offline", "--config", brokerd.config)
    lines = await trio.to_thread.run_sync(brokerctl, *words)
    done = await trio.to_thread.run_sync(brokerctl, *words, "--json")
    assert (lines.stderr, done.stderr) == ("", "")
    told = json.loads(done.stdout)["findings"]
    assert {"configuration", "permissions", "key", "disk", "clock", "unit", "daemon"} <= {
        each["check"] for each in told
    }
    expected = 2 if any(each["level"] == "problem" for each in told) else 0
    assert (lines.returncode, done.returncode) == (expected, expected)
    heads = sorted(line[:24] for line in lines.stdout.splitlines())  # on a busy machine they come as they come
    assert heads == sorted(f"{each['level']:<7}  {each['check']:<13}  " for each in told)
    assert CLIENT["client_secret"] not in lines.stdout + done.stdout


def test_every_check_and_exit_code_is_described() -> None:
    text = page("docs/doctor.md")
    rows = table("| check" + text.split("\n\n| check")[1])
    assert {name for row in rows for name in unquoted(row["check"])} == {
        *(*CHECKS, *NETWORK, listening.BARRED, listening.BEHIND, listening.GRANTS)
    }
    codes = {int(row["exit code"]) for row in table("| exit code" + text.split("\n\n| exit code")[1])}
    assert codes == {0, TO_MEND, UNREACHABLE, NO_DAEMON}
    assert f"each for at most {WITHIN:g} s" in text
