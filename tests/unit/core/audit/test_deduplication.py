# What happens again within a minute is counted; nothing is counted twice or lost, whatever the order.
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.audit import deduplication
from brokerd.core.audit.deduplication import WINDOW, Counted, Deduplication


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30)), max_size=60))
def test_every_time_is_either_told_at_once_or_counted(steps: list[tuple[str, float]]) -> None:
    counted, now, told = Deduplication(), 0.0, dict.fromkeys("abc", 0)
    for name, pause in steps:
        now += pause
        for each in counted.ended(now):
            if rest := each.rest():
                told[str(rest["event"])] += int(str(rest["count"]))
                assert float(str(rest["last"])) - each.since <= WINDOW + 30
        if counted.again(name, now) is None:
            counted.begin(name, Counted("audit", {"event": name}, name, now))
            told[name] += 1
    for each in counted.ended(now + WINDOW):
        if rest := each.rest():
            told[str(rest["event"])] += int(str(rest["count"]))
    assert told == {name: sum(each == name for each, _ in steps) for name in "abc"}


def test_what_is_counted_knows_first_and_last_and_ends_with_its_minute() -> None:
    counted = Deduplication()
    one = Counted("audit", {"event": "get"}, 1000, 5.0)
    counted.begin("key", one)
    assert (counted.again("key", 6.0), counted.again("key", 9.0), counted.again("other", 9.0)) == (one, one, None)
    assert list(counted.ended(64.9)) == []
    assert one.is_open
    assert [each.rest() for each in counted.ended(65.0)] == [
        {"event": "get", "time": 9.0, "count": 2, "first": 6.0, "last": 9.0}
    ]
    assert not one.is_open
    assert counted.again("key", 66.0) is None


def test_the_table_is_bounded_and_knows_how_much_each_user_takes() -> None:
    counted = Deduplication()
    for number in range(deduplication.MOST + 10):
        counted.begin(number, Counted("audit", {"event": number}, "user", 1.0))
    assert counted.different("user") == deduplication.MOST + 10
    assert [each.entry["event"] for each in counted.ended(1.0)] == list(range(10))
    assert counted.different("user") == deduplication.MOST
    assert len(list(counted.ended(100.0))) == deduplication.MOST
    assert counted.different("user") == 0
