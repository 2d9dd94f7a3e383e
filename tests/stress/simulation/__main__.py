# python -m tests.stress.simulation: run many seeds, or one again, or hunt the mutants.
from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from itertools import count

from tests.stress.simulation.laws import Broken
from tests.stress.simulation.mutants import MUTANTS, mutated
from tests.stress.simulation.schedule import drawn
from tests.stress.simulation.simulation import report, shrink, simulate
from tests.stress.simulation.workers import Workers, seeds_for


def main() -> int:
    made = argparse.ArgumentParser(prog="python -m tests.stress.simulation", description="brokerd under random faults")
    made.add_argument("--seeds", type=int, default=200, help="how many (default: %(default)s)")
    made.add_argument("--seconds", type=float, help="instead: as many seeds as fit in this time")
    made.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    made.add_argument("--all", action="store_true", help="go on after a failure, and count what breaks")
    made.add_argument("--seed", type=int, help="run this one, and show it")
    made.add_argument("--keep", help="with --seed: only these events, by their numbers; - for none")
    made.add_argument("--mutant", choices=sorted(MUTANTS), metavar="NAME", help="with this deliberate bug in brokerd")
    made.add_argument("--mutants", action="store_true", help="hunt every deliberate bug")
    made.add_argument("--within", type=int, default=500, help="enough seeds to find one (default: %(default)s)")
    arguments = made.parse_args()
    first, mutant = arguments.first, arguments.mutant
    if arguments.seed is not None:
        return _one(arguments.seed, arguments.keep, mutant)
    with Workers(arguments.jobs) as workers:
        try:
            if arguments.mutants:
                return _hunt(workers, [mutant] if mutant else list(MUTANTS), range(first, first + arguments.within))
            if arguments.seconds is not None:
                return _many(workers, seeds_for(arguments.seconds, first), mutant, go_on=arguments.all)
            return _many(workers, range(first, first + arguments.seeds), mutant, go_on=arguments.all)
        except KeyboardInterrupt:
            print("\nstopped by hand", file=sys.stderr)
            return 130


def _one(seed: int, keep: str | None, mutant: str | None) -> int:
    schedule = drawn(seed)
    kept = None
    if keep is not None:
        kept = [int(number) for number in keep.split(",") if number != "-"]
        schedule = schedule.only(kept)
    with mutated(mutant) if mutant else contextlib.nullcontext():
        result = simulate(schedule)
    if result.broken is None:
        print(f"seed {seed}: every law held, {result.lives} lives, {result.virtual:.0f} s")
        return 0
    print(report(seed, result.broken, kept, mutant))
    return 1


def _many(workers: Workers, seeds: Iterable[int], mutant: str | None, *, go_on: bool) -> int:
    begun, checked = time.monotonic(), Counter[str]()
    broken: dict[str, list[tuple[int, Broken]]] = {}
    lives, virtual, words = 0, 0.0, "no seed"
    for done, (seed, result) in zip(count(1), workers.simulate(seeds, mutant), strict=False):
        checked.update(result.checked)
        lives, virtual, took = lives + result.lives, virtual + result.virtual, time.monotonic() - begun
        words = f"{done} seeds in {took:.0f} s, {lives} lives, {virtual / 3600:.0f} h, {checked.total()} checks"
        print(f"\r{words}", end="", file=sys.stderr, flush=True)
        if result.broken is not None:
            broken.setdefault(result.broken.law, []).append((seed, result.broken))
            print(f"\nseed {seed} breaks {result.broken}", file=sys.stderr, flush=True)
            if not go_on:
                break
    print(file=sys.stderr)
    for found in broken.values():
        seed, first = found[0]
        with mutated(mutant) if mutant else contextlib.nullcontext():
            print(report(seed, first, shrink(drawn(seed), first.law), mutant))
        if found[1:]:
            print(f"also: {', '.join(str(each) for each, _ in found[1:])}\n")
    if not broken:
        print("\n".join(f"{number:9} {law}" for law, number in sorted(checked.items())))
        print(f"every law held: {words}")
    return 1 if broken else 0


def _hunt(workers: Workers, names: list[str], seeds: range) -> int:
    """Every mutant until a law breaks: a simulation that does not bite is worth nothing."""
    missed = 0
    print(f"{'mutant':<24} {'seed':>5}  {'the law that broke':<66} what the bug is")
    for name in names:
        ran = workers.simulate(seeds, name)
        seed, law = next(((seed, ran.broken.law) for seed, ran in ran if ran.broken is not None), (None, "none"))
        missed += seed is None
        print(f"{name:<24} {'-' if seed is None else seed:>5}  {law:<66} {MUTANTS[name].words}", flush=True)
    print(f"{len(names) - missed} of {len(names)} mutants found within {len(seeds)} seeds")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
