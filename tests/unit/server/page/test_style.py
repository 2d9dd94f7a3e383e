# The colours of the page can be read: text on its ground has a contrast of 4.5 or more, marks one of 3 (WCAG 2.2).
from __future__ import annotations

import re
from pathlib import Path

import pytest

import brokerd.server.page

STYLE = Path(brokerd.server.page.__file__).with_name("style.css").read_text(encoding="utf-8")
GROUNDS = ("ground", "card", "future")
TEXT = [
    *((each, ground) for each in ("text", "soft") for ground in GROUNDS),
    *((each, "card") for each in ("bad", "warn", "good", "off")),
    *(("link", ground) for ground in ("ground", "card")),
    ("bad", "bad-ground"),
]
MARKS = [(each, ground) for each in ("bad", "good", "lived", "text", "soft") for ground in ("card", "future")]


def schemes() -> dict[str, dict[str, str]]:
    found = []
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL):
        pairs = re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block)
        found.append(
            {name: value if len(value) == 7 else "#" + "".join(c * 2 for c in value[1:]) for name, value in pairs}
        )
    return dict(zip(("light", "dark", "print"), found, strict=True))


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_every_colour_can_be_read_on_its_ground(scheme: str) -> None:
    colours = schemes()[scheme]
    faint = {f"{one} on {other}": contrast(colours[one], colours[other]) for one, other in TEXT}
    faint |= {f"mark {one} on {other}": contrast(colours[one], colours[other]) + 1.5 for one, other in MARKS}
    assert {what: round(found, 2) for what, found in faint.items() if found < 4.5} == {}


def test_the_style_loads_nothing() -> None:
    assert not re.search(r"@import|url\(|https?:", STYLE)
