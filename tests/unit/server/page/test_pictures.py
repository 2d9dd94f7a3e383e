# The pictures that make pictures makes: few bytes, and each is shown by the page about the page.
from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[4]


def test_the_pictures_are_small_and_each_is_shown() -> None:
    pictures = sorted((ROOT / "docs" / "pictures").glob("*.png"))
    text = (ROOT / "docs" / "page.md").read_text(encoding="utf-8")
    assert [each.name for each in pictures if f"pictures/{each.name}" not in text] == []
    assert len(pictures) >= 5
    assert sum(each.stat().st_size for each in pictures) < 1_000_000
