# When an expiry is worth a line: in time, on the last day, when it is over, and never twice for the same.
from __future__ import annotations

from brokerd.core.events import Event
from brokerd.core.expiries import LAST, Expiries, Expiry

DAY = 86_400.0
HOUR = 3_600.0


def found(at: float, within: float = 7 * DAY) -> Expiry:
    return Expiry(Event.REFRESH_TOKEN_EXPIRES, "app", "", at, within)


def test_it_is_said_once_in_time_once_on_the_last_day_and_once_when_it_is_over() -> None:
    expiries, end = Expiries(), 30 * DAY
    hours = [hour for hour in range(32 * 24) if list(expiries.due([found(end)], hour * HOUR))]
    assert [end / HOUR - hour for hour in hours] == [7 * 24, LAST / HOUR, 0]


def test_what_is_replaced_or_was_away_begins_from_new() -> None:
    expiries = Expiries()
    assert list(expiries.due([found(2 * DAY)], 0.0))
    assert list(expiries.due([found(20 * DAY)], 1.0)) == []
    assert list(expiries.due([found(20 * DAY)], 14 * DAY))
    assert list(expiries.due([], 14 * DAY)) == []
    assert list(expiries.due([found(20 * DAY)], 14 * DAY))


def test_a_time_of_none_is_none() -> None:
    expiries = Expiries()
    assert list(expiries.due([found(DAY, within=0.0)], 0.0)) == []
    assert list(expiries.due([found(DAY, within=0.0)], DAY))
