# brokerd restarted again and again, and killed, while applications fetch 200 times a second: nobody's fetch fails, and
# no provider is asked. `python -m tests.real.systemd.restarts` does it for a minute; the suite for a few restarts.
from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.real.systemd.box import Box, missing
from tests.real.systemd.installation import installed

RATE, APPLICATIONS = 200.0, 4  # fetches a second of all of them together; every other one keeps its connection
KILL = 3  # each third time it is killed
PACKAGES = "/opt/brokerd/lib/own:/opt/brokerd/lib/client:/opt/brokerd/lib/packages"
STOP = "/tmp/fetches-stop"


@dataclass(frozen=True)
class Restarts:
    """What came of it. `longest`: seconds that a fetch took at most; `exchanges`: with the provider, meanwhile."""

    fetches: int
    failed: list[str]
    longest: float
    exchanges: int


def run(box: Box, goes_on: Callable[[int], bool], every: float) -> Restarts:
    """Restart it every so many seconds, for as long as it `goes_on` after so many restarts."""
    before = exchanges(box)
    units = [f"fetches-{number}" for number in range(APPLICATIONS)]
    for number, unit in enumerate(units):
        command = ["/usr/bin/python3", "-m", "tests.real.systemd.load", STOP, f"{RATE / APPLICATIONS}"]
        options = [f"--unit={unit}", "-p", f"StandardOutput=file:/tmp/{unit}", "-E", f"PYTHONPATH={PACKAGES}"]
        box.run("systemd-run", *options, *command, "keeps" if number % 2 else "anew")
    times = 0
    while goes_on(times):
        times += 1
        if times % KILL == 0:
            box.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", "brokerd.service")
        else:
            box.run("systemctl", "restart", "brokerd.service")
        time.sleep(every)  # the load goes on: there is nothing to wait for but the time itself
    box.run("touch", STOP)
    done, longest, failed = 0, 0.0, []
    for unit in units:
        box.until(unit, "ActiveState", "inactive", "failed", within=60)
        said = box.run("cat", f"/tmp/{unit}").split()
        if len(said) == 2:
            done, longest = done + int(said[0]), max(longest, float(said[1]))
        else:
            failed.append(box.journal(unit))
    return Restarts(done, failed, longest, exchanges(box) - before)


def exchanges(box: Box) -> int:
    """How many brokerd had with the provider."""
    journal = box.journal()
    return journal.count("event=renewed") + journal.count("event=renewal_failed")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.real.systemd.restarts", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to fetch (default: %(default)s)")
    parser.add_argument("--every", type=float, default=4.0, help="seconds between restarts (default: %(default)s)")
    arguments = parser.parse_args()
    if (reason := missing()) is not None:
        raise SystemExit(reason)
    restarted = 0

    def goes_on(times: int) -> bool:
        nonlocal restarted
        restarted = times
        return time.monotonic() < end

    with tempfile.TemporaryDirectory() as folder, installed(Path(folder)) as box:
        box.run("systemctl", "enable", "--now", "brokerd.service")
        end = time.monotonic() + arguments.seconds
        found = run(box, goes_on, arguments.every)
    print(
        f"{found.fetches} fetches in {arguments.seconds:g} s while it was restarted or killed {restarted} times:"
        f" {len(found.failed)} failed, {found.exchanges} exchanges, the longest took {found.longest:.2f} s"
    )
    if found.failed or found.exchanges:
        raise SystemExit("\n".join(("expected every fetch to be served, and from the store", *found.failed)))


if __name__ == "__main__":
    main()
