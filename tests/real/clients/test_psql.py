# psql, with a token as its password, against a real PostgreSQL that checks it.
from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.did_not_run import did_not_run
from tests.real.clients.conftest import GRANT, Machine
from tests.real.clients.test_http_clients import block

SERVERS = Path("/usr/lib/postgresql")
PASSFILE = block("psql").replace("reports", GRANT)


@pytest.fixture
async def postgres(machine: Machine) -> AsyncIterator[dict[str, str]]:
    """The environment of a client. The role `reports` has the token as its password; it runs as another user than root,
    whom PostgreSQL refuses."""
    found = sorted(SERVERS.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))  # noqa: ASYNC240 - a moment
    if not found or shutil.which("psql") is None or os.geteuid() != 0:
        required = os.environ.get("BROKERD_REQUIRE_REAL") == "1" and os.geteuid() == 0
        did_not_run(
            "CLIENT psql", "it needs Debian's postgresql, and root, who starts it as postgres", required=required
        )
    folder = machine.folder / "postgres"
    folder.mkdir()
    machine.folder.chmod(0o711)
    shutil.chown(folder, "postgres", "postgres")

    def run(*command: str | Path) -> None:
        words = ["runuser", "-u", "postgres", "--", *map(str, command)]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c shared_buffers=16MB"
    programs, data = found[-1].parent, folder / "data"
    run(programs / "initdb", "-D", data, "--no-sync", "--auth=trust", "--username=reports")
    run(programs / "pg_ctl", "-D", data, "-w", "-o", settings, "-l", folder / "log", "start")
    run("psql", "-h", folder, "-U", "reports", "-d", "postgres", "-c", f"ALTER ROLE reports PASSWORD '{machine.token}'")
    (data / "pg_hba.conf").write_text("local all all scram-sha-256\n")
    run(programs / "pg_ctl", "-D", data, "reload")
    yield {"PGHOST": str(folder), "PGUSER": "reports", "PGDATABASE": "postgres", "QUERY": "SELECT 'inside'"}
    run(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")


async def test_psql_takes_a_token_from_its_environment_and_from_a_file(
    machine: Machine, postgres: dict[str, str]
) -> None:
    query = ("psql", "-wAtc", postgres["QUERY"])
    refused = await machine.run(*query, **postgres)
    assert (refused.returncode, "no password" in refused.stderr) == (2, True)
    done = await machine.run("brokerctl", "exec", "--env", "PGPASSWORD", GRANT, "--", *query, **postgres)
    assert (done.returncode, done.stdout, done.stderr) == (0, "inside\n", "")
    done = await machine.run("sh", "-c", PASSFILE, TMPDIR=str(machine.home), **postgres)
    assert (done.returncode, done.stdout, done.stderr) == (0, "inside\n", "")
    assert machine.written() == {}


async def test_a_password_file_can_hold_any_token(machine: Machine, postgres: dict[str, str]) -> None:
    """In it, libpq wants a backslash before ":" and before a backslash."""
    odd = r"a:b\c:\:'&*"
    stand_in = machine.home / "brokerctl"
    stand_in.write_text(f"#!/bin/sh\ncat <<'END'\n{odd}\nEND\n")
    stand_in.chmod(0o700)
    path = f"{machine.home}:{machine.environment['PATH']}"
    words = odd.replace("'", "''")
    for query in (f"ALTER ROLE reports PASSWORD E'{words}'".replace("\\", "\\\\"), "SELECT 'inside'"):
        way = {} if query.startswith("ALTER") else {"PATH": path}
        variables = postgres | {"QUERY": query} | way
        done = await machine.run("sh", "-c", PASSFILE, **variables)
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "inside\n"
