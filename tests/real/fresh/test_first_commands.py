# The first two commands of README.md in a fresh checkout: nothing is in the way, and nothing is missing.
from __future__ import annotations

import pytest

from tests.real.fresh.conftest import Fresh
from tests.real.fresh.readme import FIRST


def test_the_readme_begins_with_these_two() -> None:
    assert FIRST == ["make demo", "make test"]


@pytest.mark.parametrize("command", FIRST)
def test_it_works_in_a_fresh_checkout(fresh: Fresh, command: str) -> None:
    with fresh() as machine:
        print(machine.types(command))
