# python -m tests.stress.simulation.fleet: run many seeds, or one again with its history, or hunt the mutants.
from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import Counter
from itertools import chain

from tests.stress.simulation.fleet.mutants import MUTANTS
from tests.stress.simulation.fleet.schedule import drawn
from tests.stress.simulation.fleet.shows import shows
from tests.stress.simulation.fleet.simulation import Result, report, shrink, simulate
from tests.stress.simulation.mutants import mutated


def main() -> int:
    made = argparse.ArgumentParser(prog="python -m tests.stress.simulation.fleet", description="fleets under faults")
    made.add_argument("--seeds", type=int, default=50, help="how many (default: %(default)s)")
    made.add_argument("--seconds", type=float, help="instead: as many seeds as fit in this time")
    made.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    made.add_argument("--all", action="store_true", help="go on after a failure, and count what breaks")
    made.add_argument("--seed", type=int, help="run this one, and show it")
    made.add_argument("--keep", help="with --seed: only these events, by their numbers; - for none")
    made.add_argument("--history", action="store_true", help="with --seed: print everything that happened")
    made.add_argument("--shrink", action="store_true", help="with --seed: look for the shortest schedule")
    made.add_argument("--mutant", choices=sorted(MUTANTS), metavar="NAME", help="with this deliberate bug in brokerd")
    made.add_argument("--mutants", action="store_true", help="hunt every deliberate bug")
    made.add_argument("--within", type=int, default=60, help="seeds to look in first (default: %(default)s)")
    arguments = made.parse_args()
    if arguments.mutants:
        return _hunt([arguments.mutant] if arguments.mutant else list(MUTANTS), arguments.first, arguments.within)
    with mutated(MUTANTS[arguments.mutant]) if arguments.mutant else contextlib.nullcontext():
        if arguments.seed is not None:
            return _one(arguments)
        return _many(arguments)


def _one(arguments: argparse.Namespace) -> int:
    seed, schedule = arguments.seed, drawn(arguments.seed)
    kept = None
    if arguments.keep is not None:
        kept = [int(number) for number in arguments.keep.split(",") if number != "-"]
        schedule = schedule.only(kept)
    result = simulate(schedule)
    if arguments.history:
        print("\n".join(result.history))
    if result.broken is None:
        print(f"seed {seed}: every law held, {result.hosts} hosts, {result.crashes} crashes, {result.virtual:.0f} s")
        return 0
    if arguments.shrink:
        kept = shrink(drawn(seed), result.broken.law)
    print(report(seed, result.broken, kept, arguments.mutant))
    return 1


def _many(arguments: argparse.Namespace) -> int:
    begun, checked, broken = time.monotonic(), Counter[str](), list[tuple[int, Result]]()
    seed, virtual, crashes, words = arguments.first, 0.0, 0, "no seed"
    while True:
        took = time.monotonic() - begun
        done = seed - arguments.first
        if took >= arguments.seconds if arguments.seconds is not None else done >= arguments.seeds:
            break
        result = simulate(drawn(seed))
        checked.update(result.checked)
        virtual, crashes, took = virtual + result.virtual, crashes + result.crashes, time.monotonic() - begun
        words = f"{done + 1} seeds in {took:.0f} s, {crashes} crashes, {virtual / 3600:.0f} h, {checked.total()} checks"
        print(f"\r{words}", end="", file=sys.stderr, flush=True)
        if result.broken is not None:
            broken.append((seed, result))
            print(f"\nseed {seed} breaks {result.broken}", file=sys.stderr, flush=True)
            if not arguments.all:
                break
        seed += 1
    print(file=sys.stderr)
    if broken and not arguments.all:
        seed, result = broken[0]
        assert result.broken is not None
        print(report(seed, result.broken, shrink(drawn(seed), result.broken.law), arguments.mutant))
    for law, number in Counter(result.broken.law for _, result in broken if result.broken).most_common():
        seeds = [seed for seed, result in broken if result.broken and result.broken.law == law]
        print(f"{number:5} {law}: {', '.join(map(str, seeds[:20]))}")
    if not broken:
        print("\n".join(f"{number:9} {law}" for law, number in sorted(checked.items())))
        print(f"every law held: {words}")
    return 1 if broken else 0


def _hunt(names: list[str], first: int, within: int) -> int:
    """Every mutant until a law breaks, if in no seed then in its own schedule: else the simulation is worth nothing."""
    missed = 0
    print(f"{'mutant':<28} {'seed':>5}  {'the law that broke':<80} what the bug is")
    for name in names:
        with mutated(MUTANTS[name]):
            made = ((str(seed), drawn(seed)) for seed in range(first, first + within))
            ran = ((where, simulate(each).broken) for where, each in chain(made, [("shows", shows(name))]))
            found = next(((where, broken.law) for where, broken in ran if broken is not None), ("-", "none"))
        missed += found[0] == "-"
        print(f"{name:<28} {found[0]:>5}  {found[1]:<80} {MUTANTS[name].words}", flush=True)
    print(f"{len(names) - missed} of {len(names)} mutants found within {within} seeds and the schedules of shows.py")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
