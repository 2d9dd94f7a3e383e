# How long something has lasted, in words: relative and absolute, in local time.
from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from brokerd.edge.system.clock import lasting

NOON = 1_700_049_600.0  # 2023-11-15 12:00:00 UTC


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("ago", "words"),
    [
        (0, "for 0 s, since 12:00:00"),
        (-5, "for 0 s, since 12:00:05"),
        (59, "for 59 s, since 11:59:01"),
        (240, "for 4 min, since 11:56:00"),
        (7_200, "for 2 h, since 10:00:00"),
        (50_000, "for 13 h, since 2023-11-14 22:06:40"),
        (864_000, "for 10 days, since 2023-11-05 12:00:00"),
    ],
)
def test_a_length_of_time_and_when_it_began(ago: float, words: str) -> None:
    assert lasting(NOON - ago, NOON) == words
