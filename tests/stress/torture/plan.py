# What happens in each round, drawn from one seed: nothing here has an effect, so that a round can be drawn again.
from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.stress.torture.daemon import POINTS

ANY_MOMENT, SIGTERM, WATCHDOG = "any moment", "SIGTERM", "watchdog"
ANSWER = 20.0  # seconds that a provider takes to answer while SIGTERM or the watchdog comes
# 25 rounds, shuffled for each 25 that are played.
DECK = (*POINTS * 3, *(ANY_MOMENT,) * 5, SIGTERM, WATCHDOG)


@dataclass(frozen=True)
class Death:
    """How a daemon is to die. `hits`: at which exchange that comes to the failpoint; `delay`: seconds until the signal
    of ANY_MOMENT since the start, of SIGTERM and WATCHDOG since the answer is waited for."""

    kind: str
    hits: int
    delay: float

    def __str__(self) -> str:
        return f"{self.kind}, exchange {self.hits}" if self.kind in POINTS else f"{self.kind} after {self.delay:.2f} s"


@dataclass(frozen=True)
class Round:
    """One round: which grants are asked for all the time, how the daemon dies, and how those that recover from it."""

    number: int
    grants: tuple[str, ...]
    deaths: tuple[Death, ...]

    @property
    def kind(self) -> str:
        return self.deaths[0].kind


def drawn(seed: int, number: int, grants: Sequence[str], kind: str | None = None) -> Round:
    """The round of that number, whatever was played before it."""
    deck = list(DECK)
    random.Random(f"{seed} deck {number // len(DECK)}").shuffle(deck)
    chance = random.Random(f"{seed} round {number}")
    chosen = tuple(chance.sample(list(grants), chance.randint(1, len(grants))))
    deaths = [_death(chance, kind or deck[number % len(DECK)], len(chosen))]
    if chance.random() < 0.2:  # killed again while it recovers
        deaths.append(_death(chance, chance.choice((*POINTS, ANY_MOMENT)), len(chosen)))
    return Round(number, chosen, tuple(deaths))


def _death(chance: random.Random, kind: str, grants: int) -> Death:
    longest = {ANY_MOMENT: 2.0, SIGTERM: ANSWER / 2, WATCHDOG: ANSWER * 0.9}.get(kind, 0.0)
    return Death(kind, chance.randint(1, 2 * grants), chance.uniform(0.0, longest))
