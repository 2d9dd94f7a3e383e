# What is counted of requests, when it is reported, and that a client cannot make the counts grow without end.
from math import inf

from brokerd.config.token_files import Source
from brokerd.proxy.usage import CUT, EACH, MOST, OTHERS, Count, Usage, Used, Who

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


def cut(use: Used = USE) -> Used:
    return use._replace(method=CUT, path=CUT, who=Who(use.who.uid, use.who.user))


def test_too_many_kinds_of_a_user_become_one_without_a_path_and_hide_nobody_else() -> None:
    usage = Usage()
    other = USE._replace(who=Who(1001, "other"), path="/quiet")
    for number in range(EACH + 500):
        usage.note(USE._replace(path=f"/{number}", status=200 + number % 2), 1, 1)
    usage.note(other, 1, 1)
    taken = dict(usage.due(inf))
    assert len(taken) == EACH + 2
    assert taken[cut()].requests == 500
    assert taken[other].requests == 1


def test_the_kinds_of_a_user_are_counted_within_a_minute_and_not_from_report_to_report() -> None:
    usage = Usage()
    for at in range(0, 58, 2):
        for number in range(EACH):
            usage.note(USE._replace(path=f"/{at}/{number}"), 1, 1)
        taken = usage.due(1_000.0 + at)
        assert len(taken) == (EACH if at == 0 else at == 2)
    usage.note(USE._replace(path="/0/1"), 1, 1)
    assert [use.path for use, _ in usage.due(1_060.0)] == ["/0/1"]
    usage.note(USE._replace(path="/new"), 1, 1)
    assert [use.path for use, _ in usage.due(1_062.0)] == [CUT, "/new"]


def test_nothing_is_lost_when_brokerd_is_away_for_long_and_memory_is_bounded() -> None:
    usage, users = Usage(), (MOST + OTHERS) // EACH * 2
    for _ in range(3):
        usage.give_back(
            (USE._replace(who=Who(uid), path=f"/{number}"), Count(1, 1, 1, 5.0, 5.0))
            for number in range(EACH)
            for uid in range(users)
        )
    for uid in range(2 * OTHERS):
        usage.give_back([(USE._replace(who=Who(100_000 + uid)), Count(1, 1, 1, 5.0, 5.0))])
    taken = usage.due(inf)
    assert sum(count.requests for _, count in taken) == 3 * EACH * users + 2 * OTHERS
    assert len(taken) <= MOST + OTHERS + 2
    assert taken[-1][0].who == Who()
