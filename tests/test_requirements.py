# The lock: what the Debian package installs is, to the hash, what is tested.
from __future__ import annotations

import re
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "requirements"


def test_the_packages_part_of_the_lock_is_in_the_lock_as_it_is() -> None:
    runtime, lock = (pinned((REQUIREMENTS / name).read_text()) for name in ("runtime.txt", "lock.txt"))
    assert runtime
    assert runtime - lock == set()


def pinned(text: str) -> set[str]:
    """Each version with its hashes."""
    return set(re.split(r"\n(?=\S)", text.strip()))
