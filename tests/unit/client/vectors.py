# docs/vectors.json for tests: each vector's bytes whole, and its words as the name of the test.
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

_PATH = Path(__file__).parents[3] / "docs" / "vectors.json"


def vectors(kind: str) -> list[Any]:
    """Parameters for pytest: one vector each, with its whole bytes under `bytes`."""
    found = json.loads(_PATH.read_text())[kind]
    for vector in found:
        repeat = vector.get("repeat", {"hex": "", "times": 0})
        vector["bytes"] = bytes.fromhex(vector["hex"]) + bytes.fromhex(repeat["hex"]) * repeat["times"]
    return [pytest.param(vector, id=vector["means"]) for vector in found]
