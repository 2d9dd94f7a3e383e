# The screen of brokerctl status --watch: what is scrolled, what stays, and what a key does.
from __future__ import annotations

from brokerd_client import NoDaemon

from brokerd.ctl.status.look import Look
from brokerd.ctl.status.screen import KEYS, Picture, Scroll, View
from tests.unit.ctl.status.answers import FAILING_GRANT, NIGHT, NOW, READY, answer, grant

LOOK = Look(80)
PICTURE = Picture(["head"], [f"row {number}" for number in range(100)], ["foot", "counts"])


def test_what_fits_is_shown_as_it_is() -> None:
    assert Scroll(first=5).window(Picture(["head"], ["row"], ["foot"]), LOOK, 10) == ["head", "row", "foot"]


def test_head_and_foot_stay_and_a_line_says_what_is_shown() -> None:
    scroll = Scroll()
    lines = scroll.window(PICTURE, LOOK, 10)
    assert lines[:2] == ["head", "row 0"]
    assert lines[-3:] == ["lines 1 to 6 of 100: ↑ ↓ Page Up/Down; q ends", "foot", "counts"]
    assert len(lines) == 10


def test_keys_scroll_and_stop_at_both_ends() -> None:
    scroll = Scroll()

    def shown(*keys: str) -> list[str]:
        for key in keys:
            scroll.press(key)
        return [line for line in scroll.window(PICTURE, LOOK, 10) if line.startswith("row")]

    shown()
    assert shown("down")[0] == "row 1"
    assert shown("up", "up")[0] == "row 0"
    assert shown("page down")[0] == "row 5", "one row of the page before stays"
    assert shown("last")[-1] == "row 99"
    assert shown("down", "page down")[-1] == "row 99"
    assert shown("first")[0] == "row 0"
    assert not scroll.has_ended
    scroll.press("end")
    assert scroll.has_ended


def test_a_screen_that_is_too_small_for_anything_is_survived() -> None:
    for height in range(1, 6):
        assert Scroll().window(PICTURE, LOOK, height)


def test_every_key_means_something() -> None:
    assert {*KEYS.values()} == {"up", "down", "page up", "page down", "first", "last", "end"}


def test_the_worst_and_the_counts_stay_on_the_screen() -> None:
    many = answer(*NIGHT["grants"], *(grant(f"grant-{number}") for number in range(500)), providers=())
    lines = Scroll().window(View(problems=False, found=many, at=NOW).picture(LOOK), LOOK, 24)
    assert len(lines) == 24
    assert "payments" in lines[1]
    assert lines[-1].startswith("510 grants: ")


def test_while_the_daemon_does_not_answer_the_last_picture_stays_below_the_error() -> None:
    view = View(problems=False, found=answer(READY[0]), at=NOW, error=NoDaemon("no socket at /run/x"))
    head, rows, _ = view.picture(LOOK)
    assert head[0] == "no socket at /run/x"
    assert "mailings" in rows[0]


def test_one_grant_is_its_whole_page() -> None:
    assert View(problems=False, found=FAILING_GRANT, at=NOW).picture(LOOK).rows[0] == "▲ reports: retrying"
