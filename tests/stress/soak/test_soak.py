# The soak in small, in every run of the tests: the same code for some seconds. `make soak MINUTES=30` is the whole.
from __future__ import annotations

import pytest

from tests.stress.soak.soak import soak

MINUTES, GRANTS, SEED = 0.1, 16, 3


@pytest.mark.slow
async def test_among_faults_reloads_and_rude_clients_no_dead_token_is_served_and_everything_stays_flat() -> None:
    said: list[str] = []
    found = await soak(MINUTES, GRANTS, SEED, said.append)
    print(*said, *found.lines, sep="\n")
    assert found.broken == []
    assert found.counts["faults"] > 0
    assert found.counts["tokens served"] > 0
