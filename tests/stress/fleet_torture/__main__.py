"""Kills, pauses and cuts off five real brokerds that share their grants through etcd, and checks what they did."""

# python -m tests.stress.fleet_torture: one run in namespaces of its own, and then the checker.
from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import get_args

from tests.forked import ROOT
from tests.stress.fleet_torture.cluster import NODES
from tests.stress.fleet_torture.configuration import Sharing

NAMESPACES = ("--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--propagation", "private")
WITHIN = 'mkdir -p /run/netns && mount -t tmpfs none /run/netns && exec "$@"'


def cannot_run(sharing: Sharing = "store") -> str:
    """Why there can be no run on this machine; nothing if there can."""
    if os.geteuid() != 0:
        return "it makes network namespaces, which needs root"
    for program in ("ip", "nsenter", "unshare", *(("etcd",) if sharing == "store" else ())):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: iproute2, util-linux, etcd-server)"
    script = (
        "ip link add bridge0 type bridge && ip netns add one && ip link add veth0 type veth peer name veth1 netns one"
    )
    time = "unshare --time --boottime 10 true"
    command = ["unshare", *NAMESPACES, "sh", "-c", WITHIN, "sh", "sh", "-c", f"{script} && {time}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"this kernel does not let it make namespaces: {done.stderr.strip()[-200:]}" if done.returncode else ""


def play(folder: Path, **options: object) -> int:
    """A run with these options. What it saw is in histories/ of the folder, the logs of the hosts beside it."""
    words = [f"--{name}={value}" for name, value in options.items()]
    run = [sys.executable, "-m", "tests.stress.fleet_torture.run", str(folder), *words]
    command = ["unshare", *NAMESPACES, "sh", "-c", WITHIN, "sh", *run]
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    for node in NODES:  # etcd takes 130 MB for each; its logs stay
        shutil.rmtree(folder / "etcd" / node, ignore_errors=True)
    return status


def check(folder: Path) -> int:
    command = [sys.executable, "-m", "tests.stress.fleet_torture.checker", str(folder / "histories")]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main() -> int:
    made = argparse.ArgumentParser(prog="python -m tests.stress.fleet_torture", description=__doc__)
    made.add_argument("--minutes", type=float, default=10.0, help="of faults (default: %(default)g)")
    made.add_argument("--grants", type=int, default=100, help="how many (default: %(default)s)")
    made.add_argument("--pace", type=float, default=5.0, help="seconds for one look at all grants of a host")
    words = "seconds after the last healing until every grant has a token on every host (default: %(default)g)"
    made.add_argument("--calm", type=float, default=120.0, help=words)
    made.add_argument("--seed", type=int, help="what everything is drawn from (default: another one each time)")
    words = "what the hosts share; the last two are there to try this test itself (default: %(default)s)"
    made.add_argument("--sharing", choices=get_args(Sharing), default="store", help=words)
    arguments = made.parse_args()
    if why := cannot_run(arguments.sharing):
        print(f"fleet-torture DID NOT RUN: {why}", file=sys.stderr)
        return 2
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    folder = Path(tempfile.mkdtemp(prefix=f"fleet-torture-{seed}-"))
    print(f"seed {seed}, {arguments.minutes:g} minutes of faults; histories and logs in {folder}", flush=True)
    status = play(folder, **{**vars(arguments), "seed": seed})
    if status:
        print(f"the run itself failed ({status}); see {folder}", file=sys.stderr)
    return check(folder) or status


if __name__ == "__main__":
    sys.exit(main())
