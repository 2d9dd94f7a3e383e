# Random numbers from the system.
from __future__ import annotations

import os
import random


class SystemEntropy:
    """The Entropy port."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def bytes(self, n: int) -> bytes:
        return os.urandom(n)

    def fraction(self) -> float:
        return self._random.random()
