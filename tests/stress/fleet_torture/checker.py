"""Reads the histories of a run and says what they show. It knows nothing of brokerd's code, and imports none of it."""

# python -m tests.stress.fleet_torture.checker FOLDER; exit 1 where something must not be.
from __future__ import annotations

import sys
from pathlib import Path

from tests.stress.fleet_torture.history import read
from tests.stress.fleet_torture.verdict import Judge, report


def main() -> int:
    found = Judge(read(Path(sys.argv[1]))).judge()
    print(*report(found), sep="\n", flush=True)
    return 1 if found.violations else 0


if __name__ == "__main__":
    sys.exit(main())
