# The command line of brokerd-proxy: what --check says, in which form it logs, and how it ends.
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from brokerd import __version__
from tests.free_port import free_port

TABLE = """\
[proxies.a]
grant = "x"
upstream = "https://api.example"
listen = "127.0.0.1:{port}"
caller = {{ uid = 0 }}
"""


def ran(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    whole = {**{name: value for name, value in os.environ.items() if "proxy" not in name.lower()}, **environ}
    command = [sys.executable, "-m", "brokerd.proxy.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=whole)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "proxy.toml"
    path.write_text(TABLE.format(port=free_port()))
    return path


def test_check_says_that_there_is_no_mistake(file: Path) -> None:
    done = ran("--check", str(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: 1 proxy, no mistakes\n", "")


def test_check_warns_of_a_caller_that_matches_nobody(file: Path) -> None:
    file.write_text(file.read_text().replace("uid = 0", 'user = "nobody"'))
    done = ran("--check", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: 1 proxy, no mistakes\n")
    assert done.stderr.startswith(f"brokerd-proxy: warning: {file}: a: caller: the user nobody is 65534")


def test_check_names_each_mistake_of_each_table_with_its_line(file: Path) -> None:
    wrong = (
        file.read_text().replace('"x"', '""').replace("https:", "ftp:") + 'paths = ["x"]\n[metadata.b]\nkind = "gce"\n'
    )
    file.write_text(wrong)
    done = ran("--check", str(file))
    assert done.returncode == 2
    lines = [line.removeprefix(f"brokerd-proxy: {file}:") for line in done.stderr.splitlines()]
    assert [line.split(": ")[:2] for line in lines] == [
        ["2", "proxies.a.grant"],
        ["3", "proxies.a.upstream"],
        ["6", "proxies.a.paths"],
        *(
            [each, f"metadata.b.{key}"]
            for each, key in zip("7777", ("grant", "listen", "caller", "email"), strict=True)
        ),
    ]


def test_check_reads_certificates_and_the_proxy_of_the_environment(file: Path) -> None:
    certificate = file.with_name("ca.pem")
    certificate.write_text("no certificate")
    file.write_text(f'{file.read_text()}ca_file = "{certificate}"\n')
    done = ran("--check", str(file))
    assert done.returncode == 2
    assert f"{file}:1: proxies.a: " in done.stderr
    assert str(certificate) in done.stderr
    file.write_text(file.read_text().replace("ca_file", "#"))
    done = ran("--check", str(file), HTTPS_PROXY="socks5://me:pass-word@127.0.0.1:1080")
    assert done.returncode == 2
    assert "HTTPS_PROXY: expected http://host:port" in done.stderr
    assert "pass-word" not in done.stderr


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_a_start_that_fails_says_why_in_the_form_of_the_log(file: Path, form: str) -> None:
    file.write_text(file.read_text().replace('"x"', '""').replace("https:", "ftp:"))
    done = ran("--log-format", form, str(file))
    assert done.returncode == 2
    if form == "json":
        found = [json.loads(line) for line in done.stderr.splitlines()]
        assert [each["event"] for each in found] == ["not_started"] * 2
        assert "proxies.a.grant" in found[0]["reason"]
    else:
        assert [line[:15] for line in done.stderr.splitlines()] == ["brokerd-proxy: "] * 2


def test_a_place_that_is_taken_is_named(file: Path) -> None:
    file.write_text(file.read_text().replace('listen = "127', 'socket = "/dev/null/x"  # '))
    done = ran(str(file))
    assert done.returncode == 2
    assert done.stderr.startswith("brokerd-proxy: cannot listen")


def test_version_and_help() -> None:
    assert ran("--version").stdout == f"brokerd-proxy {__version__}\n"
    usage = ran("--help").stdout
    assert all(flag in usage for flag in ("--check", "--socket", "--log-level", "--log-format", "--version"))


def test_the_log_is_json_if_that_is_asked_for(file: Path) -> None:
    command = [sys.executable, "-m", "brokerd.proxy.main", "--log-format", "json", "--socket", "/nowhere", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        first = json.loads(running.stderr.readline())
        running.terminate()
    assert (first["event"], first["proxies"]) == ("ready", 1)
