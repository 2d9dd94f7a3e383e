# `make profile`: where a get's time goes in the daemon, by function and by line, on kept and on fresh connections.
from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

from bench import processes
from bench.grants import GRANT, one
from bench.load import Load

LOADS = (  # in words, clients at once, whether each get has a connection of its own
    ("kept connection, 1 client", 1, False),
    ("kept, 64 clients", 64, False),
    ("fresh, 8 clients", 8, True),
)
SECONDS = 5.0  # of each load
ROWS = 25


def main() -> None:
    made = argparse.ArgumentParser(prog="python -m bench.profile", description="Show where a get's time goes.")
    made.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="N", help=f"of each load (default: {SECONDS:g})"
    )
    made.add_argument("--rows", type=int, default=ROWS, metavar="N", help=f"of each table (default: {ROWS})")
    given = made.parse_args()
    with tempfile.TemporaryDirectory(prefix="brokerd-profile-") as folder, processes.providers() as urls:
        for number, (name, clients, fresh) in enumerate(LOADS):
            place, found = Path(folder) / str(number), Path(folder) / f"{number}.json"
            place.mkdir()
            with processes.brokerd(place, one(urls), profile=found) as daemon, processes.generator() as load:
                before = processes.computed(daemon.process.pid)
                measured = load.measure(Load(daemon.socket, GRANT, clients, fresh, given.seconds))
                each = (processes.computed(daemon.process.pid) - before) / measured.answers
            say(name, 1e6 * each, json.loads(found.read_text()), given.rows)


def say(name: str, each: float, found: dict[str, object], rows: int) -> None:
    """`each`: microseconds of computing for one get. The start of the daemon is in the samples too."""
    lines: list[tuple[str, int, int]] = found["at_work"]  # type: ignore[assignment]
    total = sum(number for _, _, number in lines)
    own: Counter[str] = Counter()
    for function, _, number in lines:
        own[function] += number
    print(f"{name}: {each:.1f} us of computing for a get, {total} samples")
    on_stack: dict[str, int] = found["on_stack"]  # type: ignore[assignment]
    print("   itself  with callees  function")
    for function, number in own.most_common(rows):
        print(f"  {number / total:6.1%}  {on_stack[function] / total:12.1%}  {function}")
    print("   itself  line")
    for function, line, number in sorted(lines, key=lambda each: -each[2])[:rows]:
        print(f"  {number / total:6.1%}  {function}:{line}")
    print(flush=True)


if __name__ == "__main__":
    main()
