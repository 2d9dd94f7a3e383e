from __future__ import annotations

import re
import time
from typing import Any
from xml.etree import ElementTree

import pytest

from brokerd.server.page import timeline
from brokerd.server.page.timeline import CELLS, WIDTH, Axis, axis, picture
from tests.unit.server.page.sample import HOUR, NOW, REASON, failing, grant, provider, row

ON = Axis(NOW - 13 * HOUR, 2 * HOUR, NOW)


def shapes(found: dict[str, Any], kind: str) -> list[ElementTree.Element]:
    return [each for each in ElementTree.fromstring(picture(found, ON)).iter() if each.get("class") == kind]


@pytest.mark.parametrize("step", [1_200, 7_200, 43_200])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_the_axis_begins_at_a_whole_step_of_local_time_and_has_now_in_it(
    step: int, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    for now in range(int(NOW), int(NOW) + 86_400, 3_571):
        on = axis(now, step)
        assert on.start <= now - 6 * step
        assert on.end >= now + 2 * step
        there = time.localtime(on.start)
        assert (there.tm_hour * 3600 + there.tm_min * 60 + there.tm_sec) % step == 0
        assert len(list(on.labels())) == CELLS


def test_the_living_token_is_solid_until_now_and_pale_until_it_expires() -> None:
    found = grant()
    ((lived,), (lives,), (ends,)) = (shapes(found, kind) for kind in ("lived", "lives", "ends"))
    assert float(lived.get("x", "")) == pytest.approx(ON.x(NOW - 1_200))
    assert float(lived.get("x", "")) + float(lived.get("width", "")) == pytest.approx(ON.x(NOW), abs=0.2)
    assert float(lives.get("width", "")) == pytest.approx(WIDTH * 2_400 / (18 * HOUR), abs=0.2)
    assert (ends.get("d") or "").startswith(f"M{ON.x(NOW + 2_400)} ")


def test_each_renewal_is_a_stroke_and_the_next_one_a_circle() -> None:
    (strokes,) = shapes(grant(), "ok")
    assert (strokes.get("d") or "").count("M") == 18
    (circle,) = shapes(grant(), "next")
    assert float(circle.get("cx", "")) == pytest.approx(ON.x(NOW - 1_200 + HOUR * 0.66), abs=0.1)


def test_an_outage_is_one_band_with_a_cross_at_both_ends() -> None:
    found = grant(history=[row(NOW - 3 * HOUR, "postponed", last=NOW - 2 * HOUR, count=9, reason=REASON)])
    ((band,), (crosses,)) = shapes(found, "outage"), shapes(found, "failed")
    assert float(band.get("width", "")) == pytest.approx(WIDTH / 18, abs=0.2)
    assert (crosses.get("d") or "").count("M") == 2
    assert "9 times, 00:10:00 to 01:10:00" in (band.findtext("{*}title") or band.findtext("title") or "")


def test_what_fails_now_is_a_band_until_now() -> None:
    bands = shapes(failing("crm", NOW - 1_500), "outage")
    end = max(float(each.get("x", "")) + float(each.get("width", "")) for each in bands)
    assert end == pytest.approx(ON.x(NOW), abs=0.2)


def test_a_provider_that_fails_is_the_ground_of_every_picture_of_its_grants() -> None:
    drawn = picture(grant(), ON, provider(failing_since=NOW - 3_600))
    (ground,) = re.findall(r'<rect class="down" x="([\d.]+)" y="0" width="([\d.]+)"', drawn)
    assert (float(ground[0]), float(ground[1])) == (ON.x(NOW - 3_600), pytest.approx(30.0, abs=0.2))


def test_what_lies_outside_is_not_drawn_and_a_long_life_has_an_arrow() -> None:
    old = grant(issued_at=NOW - 90 * HOUR, expires_at=NOW - 80 * HOUR, next_renewal_at=None, history=[row(0.0)])
    for kind in ("lived", "lives", "ok", "ends", "next", "beyond"):
        assert shapes(old, kind) == []
    for ends in (None, NOW + 90 * 86_400):
        assert len(shapes(grant(expires_at=ends), "beyond")) == 1


def test_every_mark_lies_within_the_picture() -> None:
    for found in (grant(next_renewal_at=NOW + 5 * HOUR), failing("a", NOW - 12.99 * HOUR), grant(issued_at=NOW)):
        for each in ElementTree.fromstring(picture(found, ON)).iter():
            if each.get("class") in ("failed", "next", "ends", "ok"):
                xs = [float(x) for x in re.findall(r"M(-?[\d.]+)", each.get("d") or f"M{each.get('cx')}")]
                assert all(0 <= x <= WIDTH for x in xs)


def test_downscoped_tokens_are_no_renewals_of_the_grant() -> None:
    assert shapes(grant(history=[row(NOW - 60, target="scope admin"), row(NOW - 90, "done")]), "ok") == []


def test_the_picture_is_said_in_words_too() -> None:
    title = picture(failing("crm", NOW - 1_500), ON)
    assert "<title>last success 63 min ago; failing since 02:45:00; expired 3 min ago;" in title


def test_a_hostile_reason_is_text() -> None:
    bad = "</title></svg><script>alert(1)</script>\u202e" + "x" * 10_000
    drawn = picture(grant(history=[row(NOW - 60, "postponed", reason=bad)]), ON)
    assert "<script" not in drawn
    assert "\u202e" not in drawn
    assert len(drawn) < 2_000


def test_the_legend_has_every_mark_that_a_picture_can_have() -> None:
    drawn = set(re.findall(r'class="(\w+)"', "".join(map(str, timeline.legend()))))
    used = {"down", "ok", "failed", "outage", "before", "lived", "lives", "next", "ends", "beyond", "now"}
    assert drawn - {"mark"} == used
