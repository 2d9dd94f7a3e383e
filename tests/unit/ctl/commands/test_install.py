# install and uninstall into a folder, as a package does: the right files are written, an older version's files are
# replaced, and files that somebody changed stay. tests/real/systemd has the rest.
from __future__ import annotations

import hashlib
import json
import os
import sysconfig
from pathlib import Path

import pytest

from brokerd.config.load import load
from brokerd.ctl.arguments import read_arguments
from brokerd.ctl.commands.install import Setup
from brokerd.edge.systemd import service_manager
from brokerd.setup.install_files import example, why_hidden
from tests.scenario.daemon.conftest import as_root
from tests.unit.ctl.conftest import Run

__all__ = ["as_root"]

PROGRAMS = Path(sysconfig.get_path("scripts"))


def laid_out(root: Path) -> set[str]:
    return {f"/{path.relative_to(root)}" for path in root.rglob("*") if not path.is_dir() or path.is_symlink()}


def test_a_package_finds_its_files_laid_out(within: Run, tmp_path: Path) -> None:
    root = tmp_path / "image"
    words = ("install", "--system", "--prefix", "/usr", "--root", str(root))
    assert within(*words, "--dry-run").returncode == 0
    assert not root.exists()
    done = within(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert {
        "/usr/lib/systemd/system/brokerd-credentials.socket",
        "/usr/lib/systemd/system/brokerd-files@.service",
        "/usr/lib/systemd/system/brokerd-http.socket",
        "/usr/lib/systemd/system/brokerd-proxy@.service",
        "/usr/lib/systemd/system/brokerd.service",
        "/usr/lib/systemd/system/brokerd.socket",
        "/usr/lib/sysusers.d/brokerd.conf",
        "/usr/lib/tmpfiles.d/brokerd.conf",
        "/usr/share/bash-completion/completions/brokerctl",
        "/usr/share/fish/vendor_completions.d/brokerctl.fish",
        "/usr/share/zsh/site-functions/_brokerctl",
        "/usr/share/man/man1/brokerctl.1",
        "/usr/share/man/man5/brokerd-files.toml.5",
        "/usr/share/man/man5/brokerd-proxy.toml.5",
        "/usr/share/man/man5/brokerd.toml.5",
        "/usr/share/man/man8/brokerd-proxy.8",
        "/usr/share/man/man8/brokerd.8",
        "/usr/share/doc/brokerd/drop-ins/executables.conf",
        "/usr/share/man/man1/git-credential-brokerd.1",
        "/usr/bin/brokerctl",
        "/usr/bin/brokerd-proxy",
        "/usr/bin/git-credential-brokerd",
        "/usr/bin/docker-credential-brokerd",
        "/usr/bin/bazel-credential-brokerd",
    } <= laid_out(root)
    unit = (root / "usr/lib/systemd/system/brokerd.service").read_text()
    assert f"\nExecStart={PROGRAMS}/brokerd --config /etc/brokerd/brokerd.toml\n" in unit
    assert "/opt/brokerd" not in unit
    assert (root / "usr/bin/brokerctl").readlink() == PROGRAMS / "brokerctl"
    within("uninstall", "--system", "--prefix", "/usr", "--root", str(root))
    assert not root.exists()


def test_root_installs_and_removes_nothing_under_a_prefix_that_is_a_users(
    within: Run, tmp_path: Path, as_root: None
) -> None:
    prefix = tmp_path / "theirs"
    (prefix / "share/brokerd").mkdir(parents=True)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    digest = f"sha256:{hashlib.sha256(b'precious').hexdigest()}"
    (prefix / "share/brokerd/installed.json").write_text(json.dumps({"files": {str(precious): digest}, "folders": []}))
    os.chown(prefix, 60_978, 60_978)
    for command in ("install", "uninstall"):
        done = within(command, "--system", "--prefix", str(prefix))
        assert (done.returncode, "the user 60978 can change" in done.stderr) == (2, True), done.stderr
    assert precious.exists()
    assert not (prefix / "lib").exists()


def test_an_older_versions_files_are_replaced_and_anothers_kept(within: Run, tmp_path: Path) -> None:
    words = ("--user", "--prefix", "/p", "--root", str(tmp_path))
    within("install", *words)
    service, socket, link = (
        tmp_path / "p" / name
        for name in ("share/systemd/user/brokerd.service", "share/systemd/user/brokerd.socket", "bin/brokerd")
    )
    ours = service.read_text()
    manifest = tmp_path / "p/share/brokerd/installed.json"
    old = ours.replace("WatchdogSec=60", "WatchdogSec=50")
    listed = json.loads(manifest.read_text())
    digests = {"/p/share/systemd/user/brokerd.service": digest(old), "/p/share/gone": digest("of a version before")}
    listed["files"] |= digests
    manifest.write_text(json.dumps(listed))
    service.write_text(old)
    (tmp_path / "p/share/gone").write_text("of a version before")
    socket.write_text("mine")
    link.unlink()
    link.symlink_to("/mine")
    said = within("install", *words).stdout
    assert "brokerd.service: replaced by this version's" in said
    assert "/p/share/gone: removed" in said
    assert said.count("changed since it was installed, and kept") == 2
    assert (service.read_text(), socket.read_text(), str(link.readlink())) == (ours, "mine", "/mine")
    within("uninstall", *words)
    assert laid_out(tmp_path) == {"/p/share/systemd/user/brokerd.socket", "/p/bin/brokerd"}
    assert "brokerd is not installed under /p" in within("uninstall", *words).stdout


def digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def test_a_program_that_a_service_could_not_run_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is hidden from services" in str(why_hidden(Path("/home/somebody/.local/bin/brokerd")))
    monkeypatch.setattr("brokerd.setup.install_files.HIDDEN", ())
    program = tmp_path / "venv" / "brokerd"
    program.parent.mkdir(mode=0o700)
    program.touch(mode=0o755)
    tmp_path.chmod(0o755)
    assert f"{program.parent} is closed to others" in str(why_hidden(program))


def test_the_example_of_a_configuration_is_right_without_its_comments(tmp_path: Path) -> None:
    main = tmp_path / "brokerd.toml"
    text = example(main)
    main.write_text(text)
    assert load(main).grants == {}
    lines = text.splitlines()
    main.write_text("\n".join(line.removeprefix("#") if not line.startswith("# ") else line for line in lines))
    found = load(main)
    assert (len(found.providers), len(found.grants), len(found.rules)) == (1, 1, 1)
    assert str(found.grants["reports"].credentials["client_secret"].file).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("booted", "command"),
    [
        (True, "systemctl enable --now brokerd.socket brokerd.service"),
        (False, "runuser -u brokerd -- brokerd --config /etc/brokerd/brokerd.toml"),
    ],
)
def test_what_starts_brokerd_is_named_with_systemd_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_root: None, booted: bool, command: str
) -> None:
    monkeypatch.setattr(service_manager, "BOOTED", tmp_path if booted else tmp_path / "nowhere")
    setup = Setup(read_arguments(["install", "--system", "--dry-run"]))
    assert setup.start == command
