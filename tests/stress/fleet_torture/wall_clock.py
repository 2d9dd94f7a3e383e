# A wall clock that is wrong by so many seconds, for one process: python -m tests.stress.fleet_torture.wall_clock
# OFFSET MODULE ARGUMENTS. There is no time namespace for CLOCK_REALTIME; Python's own functions are what brokerd asks.
from __future__ import annotations

import importlib
import sys
import time
from typing import Any


def shift(offset: float) -> None:
    wall, wall_ns, clock, clock_ns = time.time, time.time_ns, time.clock_gettime, time.clock_gettime_ns
    nanoseconds = int(offset * 1e9)
    replaced: dict[str, Any] = {
        "time": lambda: wall() + offset,
        "time_ns": lambda: wall_ns() + nanoseconds,
        "clock_gettime": lambda which: clock(which) + offset * (which == time.CLOCK_REALTIME),
        "clock_gettime_ns": lambda which: clock_ns(which) + nanoseconds * (which == time.CLOCK_REALTIME),
    }
    for name, function in replaced.items():
        setattr(time, name, function)


def main() -> None:
    offset, module = float(sys.argv[1]), sys.argv[2]
    sys.argv[1:3] = []
    shift(offset)
    if module == "brokerd.daemon.main":
        # A host with a clock that nobody keeps says so; ours are wrong and say that they are right, which is harder.
        clock = importlib.import_module("brokerd.edge.system.clock")
        clock.synchronised = lambda: True  # type: ignore[attr-defined]
    importlib.import_module(module).main()


if __name__ == "__main__":
    main()
