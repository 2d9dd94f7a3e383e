from __future__ import annotations

from brokerd.telemetry.recent_events import LONGEST, MOST, MOST_REQUESTS, REQUESTS_SHOWN, RecentEvents


def noted(*entries: tuple[float, str, str | None], requests: bool = False) -> RecentEvents:
    recent = RecentEvents()
    for at, event, grant in entries:
        recent.note(at, {"event": event, "grant": grant}, "carol", is_request=requests)
    return recent


def test_the_newest_come_first_and_there_are_so_many_at_most() -> None:
    recent = noted(*((float(at), f"event {at}", "app") for at in range(MOST + 50)))
    found = recent.newest(3, lambda _: True, fully=True)
    assert [each["event"] for each in found] == [f"event {at}" for at in range(MOST + 49, MOST + 46, -1)]
    assert len(recent.newest(1_000, lambda _: True, fully=True)) == MOST


def test_equal_events_in_a_row_are_one_with_a_count() -> None:
    (found,) = noted((1.0, "renewal failed", "app"), (2.0, "renewal failed", "app")).newest(9, bool, fully=True)
    assert (found["at"], found["count"]) == (2.0, 2)
    assert len(noted((1.0, "a", "app"), (2.0, "b", "app"), (3.0, "a", "app")).newest(9, bool, fully=True)) == 3


def test_others_see_events_of_their_grants_only_and_not_who_it_was() -> None:
    recent = noted((1.0, "renewed", "app"), (2.0, "renewed", "secret"), (3.0, "reloaded", None))
    (found,) = recent.newest(9, "app".__eq__, fully=False)
    assert found["grant"] == "app"
    assert "who" not in found
    assert [each["who"] for each in recent.newest(9, "app".__eq__, fully=True)] == ["carol"] * 3


def test_a_flood_of_denials_hides_nothing_and_is_for_administrators() -> None:
    recent = noted((1.0, "renewed", "app"))
    for at in range(2, 500):
        recent.note(float(at), {"event": "get", "grant": f"x{at}"}, "mallory", is_request=True)
    found = recent.newest(30, lambda _: True, fully=True)
    assert len(found) == REQUESTS_SHOWN + 1 < MOST_REQUESTS
    assert found[-1]["event"] == "renewed"
    assert [each["event"] for each in recent.newest(30, lambda _: True, fully=False)] == ["renewed"]


def test_a_reason_is_cut() -> None:
    recent = RecentEvents()
    recent.note(1.0, {"event": "x", "reason": "y" * 10_000}, None, is_request=False)
    assert recent.newest(1, bool, fully=True)[0]["reason"] == "y" * (LONGEST - 1) + "…"
