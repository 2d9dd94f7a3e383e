# `make bench` works: run with tiny numbers. How fast things are is no matter of a test.
from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
JUDGED = 45  # aims
ONLY_ROOT = ("what evidence costs", "a get under pressure")
NGINX = "brokerd-proxy"  # is measured against it
PEER = "oidc-agent"
FLEET = "what a fleet costs"
AIMS = {FLEET: 4, ONLY_ROOT[0]: 3, ONLY_ROOT[1]: 1, NGINX: 5, PEER: 5}  # how many of them each part judges
TINY = ("--quick", "--rounds", "1", "--seconds", "0.05", "--starts", "1", "--grants", "10")


def test_the_benchmark_measures_everything_and_judges_it_by_the_aims():
    done = subprocess.run(
        [sys.executable, "-m", "bench", *TINY], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    for row in (
        "kept connection, 1 client",
        "kept, 8 clients",
        "kept, 64 clients",
        "fresh, 8 clients",
        "10 grants",
        "10 grants, one core, TLS",
    ):
        assert row in rows
    missing = [line for line in done.stdout.splitlines() if "NOT MEASURED" in line]
    expected = [*ONLY_ROOT] * (os.geteuid() != 0) + [NGINX] * (shutil.which("nginx") is None)
    expected += [FLEET] * (shutil.which("etcd") is None)
    expected += [PEER] * (shutil.which("oidc-agent") is None)
    assert sorted(line.partition(": ")[0] for line in missing) == sorted(expected), missing
    judged = [line for line in done.stdout.splitlines() if line.startswith(("  met ", "  MISSED "))]
    assert len(judged) == JUDGED - sum(AIMS[name] for name in expected)


def test_the_profile_shows_where_a_gets_time_goes():
    done = subprocess.run(
        [sys.executable, "-m", "bench.profile", "--seconds", "0.3", "--rows", "500"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tables = done.stdout.split("\n\n")[:-1]
    assert [table.partition(":")[0] for table in tables] == [
        "kept connection, 1 client",
        "kept, 64 clients",
        "fresh, 8 clients",
    ]
    assert all(" of computing for a get" in table and "brokerd/" in table for table in tables)
