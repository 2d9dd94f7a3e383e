# Text of others that is shown in a small place. Pure.
from __future__ import annotations


def shortened(text: str, most: int) -> str:
    """At most so many characters. An ellipsis says that more followed."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
