# How long to wait between two looks at what tells nobody that it has changed.
from collections.abc import Iterator

FIRST = 0.01  # seconds
LONGEST = 0.05  # seconds; so that nothing that lasts is missed


def pauses(first: float = FIRST, longest: float = LONGEST) -> Iterator[float]:
    """Each is longer than the one before: what is soon true is seen soon, and looking for what takes its time costs
    little. A look at a daemon costs it and the test two milliseconds of processor time."""
    while True:
        yield first
        first = min(first * 1.2, longest)
