# python -m tests.simulation: run many seeds, or one again.
from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter

from tests.simulation.laws import KNOWN
from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import drawn
from tests.simulation.simulation import report, shrink, simulate


def main() -> int:
    made = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    made.add_argument("--seeds", type=int, default=200, help="how many (default: %(default)s)")
    made.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    made.add_argument("--seed", type=int, help="run this one, and show it")
    made.add_argument("--keep", help="with --seed: only these events, by their numbers; - for none")
    made.add_argument("--mutant", choices=sorted(MUTANTS), help="with this deliberate bug in brokerd")
    made.add_argument("--all", action="store_true", help="go on after a failure, and count what breaks")
    made.add_argument("--known", action="store_true", help="also what is known to break (laws.KNOWN)")
    arguments = made.parse_args()
    options = f" --mutant {arguments.mutant}" if arguments.mutant else ""
    with MUTANTS[arguments.mutant].applied() if arguments.mutant else contextlib.nullcontext():
        if arguments.seed is not None:
            return _one(arguments.seed, arguments.keep, options)
        return _many(range(arguments.first, arguments.first + arguments.seeds), arguments.all, arguments.known, options)


def _one(seed: int, keep: str | None, options: str) -> int:
    schedule = drawn(seed)
    kept = None
    if keep is not None:
        kept = [int(number) for number in keep.split(",") if number != "-"]
        schedule = schedule.only(kept)
    result = simulate(schedule)
    if result.broken is None:
        print(f"seed {seed}: every law held, {result.lives} lives, {result.virtual:.0f} s")
        return 0
    print(report(seed, result.broken, kept, options))
    return 1


def _many(seeds: range, go_on: bool, show_known: bool, options: str) -> int:
    begun, checked, broken = time.monotonic(), Counter[str](), {}
    lives, virtual, done, known = 0, 0.0, 0, Counter[str]()
    for seed in seeds:
        result = simulate(drawn(seed))
        checked.update(result.checked)
        done, lives, virtual = done + 1, lives + result.lives, virtual + result.virtual
        if done % 20 == 0 or seed == seeds[-1]:
            took = time.monotonic() - begun
            words = f"{done} of {len(seeds)} seeds, {done / took:.0f} a second, {lives} lives, {virtual / 3600:.0f} h"
            print(f"\r{words}, {sum(checked.values())} checks", end="", file=sys.stderr, flush=True)
        if result.broken is not None and result.broken.known and not show_known:
            known[result.broken.law] += 1
        elif result.broken is not None:
            broken.setdefault(result.broken.law, []).append((seed, result.broken))
            print(f"\nseed {seed} breaks {result.broken}", file=sys.stderr, flush=True)
            if not go_on:
                break
    print(file=sys.stderr)
    for law, count in known.items():
        print(f"known, in {count} seeds: {law}: see tests/simulation/{KNOWN[law]}")
    for found in broken.values():
        seed, first = found[0]
        print(report(seed, first, shrink(drawn(seed), first.law), options))
        if go_on:
            print(f"also: {', '.join(str(each) for each, _ in found[1:])}\n")
    if go_on and not broken:
        print("\n".join(f"{count:9} {law}" for law, count in sorted(checked.items())))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
