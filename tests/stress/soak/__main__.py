# python -m tests.stress.soak: a soak of so many minutes, its progress and its table. Exit 1 where something is broken.
from __future__ import annotations

import argparse
import functools
import random
import sys
import time

import trio

from tests.stress.soak.soak import soak


def main() -> int:
    made = argparse.ArgumentParser(prog="python -m tests.stress.soak", description=__doc__)
    made.add_argument("--minutes", type=float, default=30.0, help="without start and end (default: %(default)g)")
    made.add_argument("--grants", type=int, default=300, help="how many (default: %(default)s)")
    made.add_argument("--seed", type=int, help="what everything is drawn from (default: another one each time)")
    arguments = made.parse_args()
    seed = random.randrange(1_000_000) if arguments.seed is None else arguments.seed
    _say(f"soak: {arguments.minutes:g} minutes, {arguments.grants} grants, seed {seed}")
    began = time.monotonic()
    found = trio.run(functools.partial(soak, arguments.minutes, arguments.grants, seed, _say))
    _say("")
    for name, count in sorted(found.counts.items()):
        _say(f"{count:9}  {name}")
    _say("")
    for line in (*found.lines, *(f"BROKEN: {each}" for each in found.broken)):
        _say(line)
    _say(f"{'BROKEN' if found.broken else 'all is flat'}, after {time.monotonic() - began:.0f} s; seed {seed}")
    return 1 if found.broken else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
