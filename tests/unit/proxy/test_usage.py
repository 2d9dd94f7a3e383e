# What is counted of requests, when it is reported, and that a client cannot make the counts grow without end.
from math import inf

from brokerd.config.token_files import Source
from brokerd.proxy.usage import CUT, MOST, Count, Usage, Used, Who

WHO = Who(1000, "portal", "portal.service", "/usr/bin/app")
USE = Used("ix", Source("ix-prod"), WHO, "GET", "/v2/x", 200)


def test_a_new_kind_is_reported_at_once_and_again_after_a_minute() -> None:
    usage = Usage()
    usage.note(USE, 1, 1)
    assert len(usage.due(100.0)) == 1
    usage.note(USE, 1, 1)
    usage.note(USE._replace(path="/new"), 1, 1)
    assert [use.path for use, _ in usage.due(110.0)] == ["/new"]
    assert [use.path for use, _ in usage.due(160.0)] == ["/v2/x"]
    usage.note(USE, 1, 1)
    assert len(usage.due(inf)) == 1


def test_equal_requests_are_counted_and_taken_once() -> None:
    usage = Usage()
    usage.note(USE, 10, 100)
    usage.note(USE, 1, 2)
    usage.note(USE._replace(status=404), 1, 2)
    (use, count), _ = usage.due(inf)
    assert (use, count.requests, count.up, count.down) == (USE, 2, 11, 102)
    assert count.first <= count.last
    assert usage.due(inf) == []


def test_what_could_not_be_reported_is_added_to_what_came_since() -> None:
    usage = Usage()
    usage.note(USE, 1, 1)
    taken = usage.due(inf)
    usage.note(USE, 2, 2)
    usage.give_back(taken)
    ((_, count),) = usage.due(inf)
    assert (count.requests, count.up, count.first) == (2, 3, taken[0][1].first)


def test_too_many_kinds_become_one_without_a_path() -> None:
    usage = Usage()
    for number in range(MOST + 500):
        usage.note(USE._replace(path=f"/{number}"), 1, 1)
    taken = dict(usage.due(inf))
    assert len(taken) == MOST + 1
    cut = taken[USE._replace(method=CUT, path=CUT, who=WHO._replace(exe=None))]
    assert cut.requests == 500


def test_nothing_is_lost_when_brokerd_is_away_for_long() -> None:
    usage = Usage()
    for _ in range(3):
        usage.give_back([(USE._replace(path=f"/{number}"), Count(1, 1, 1, 5.0, 5.0)) for number in range(MOST)])
    usage.give_back([(USE._replace(path="/new"), Count(1, 1, 1, 5.0, 5.0))])
    taken = usage.due(inf)
    assert sum(count.requests for _, count in taken) == 3 * MOST + 1
    assert len(taken) == MOST + 1
