# The simulation bites: each deliberate bug breaks a law in the seed that stands here. `make mutants` looks for them in
# all seeds from the first; where a changed schedule or law lets a seed here bite no more, it says which one does.
from __future__ import annotations

import pytest

from tests.simulation import mutants
from tests.simulation.mutants import MUTANTS, Mutant, mutated
from tests.simulation.schedule import drawn
from tests.simulation.simulation import simulate

BITES = {
    "serve-before-commit": 0,
    "retry-at-once": 5,
    "no-single-flight": 3,
    "variant-becomes-own": 0,
    "forget-what-a-refusal-used-up": 0,
    "redraw-jitter": 0,
    "ignore-generation": 25,
    "drop-journal": 0,
    "journal-after-all": 0,
    "forget-interruption": 4,
    "forget-journal-at-start": 19,
    "serve-expired": 2,
    "ignore-min-ttl": 8,
    "undercut-retry-after": 0,
    "hammer": 0,
    "revoke-in-memory": 39,
    "never-told": 17,
    "lose-unstored": 1,
    "html-is-a-rejection": 4,
    "confirm-at-once": 0,
    "keep-rejected": 0,
    "resend-refused-password": 2,
    "drop-refresh-token": 12,
    "trust-the-clock": 38,
    "wall-clock-only": 0,
    "spend-in-a-copy": 0,
    "not-synced": 1,
    "echo-secrets": 0,
    "no-concurrency-limit": 49,
    "cancel-with-caller": 3,
    "reload-forgets": 13,
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_deliberate_bug_breaks_a_law(name: str) -> None:
    with mutated(name):
        assert simulate(drawn(BITES[name])).broken is not None


def test_a_bug_that_can_be_put_nowhere_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MUTANTS, "lost", Mutant("it was renamed", ((mutants.Broker, "went_away", lambda old: old),)))
    with pytest.raises(LookupError, match="went_away"), mutated("lost"):
        pass
