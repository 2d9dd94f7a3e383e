# What doctor concludes from answers of a server that is named as etcd, and from the clocks of other hosts.
from __future__ import annotations

import json
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from brokerd.config.settings import Configuration, StoreSettings
from brokerd.core.exchange.steps import Response
from brokerd.core.timing.moment import Moment
from brokerd.doctor.etcd import of_clock, of_version
from brokerd.doctor.socket import of_members
from tests.unit.doctor.test_findings import FACTS

URL, NOW = "https://10.0.0.1:2379", 1_700_000_000.0


def answered(body: bytes = b"", date: float = NOW) -> Response:
    at = Moment(NOW, 0.0, "boot")
    return Response(200, (("date", formatdate(date, usegmt=True)),), body, at, at)


@pytest.mark.parametrize(
    ("body", "level", "words"),
    [
        (json.dumps({"etcdserver": "3.4.23", "etcdcluster": "3.4.0"}).encode(), "ok", "is etcd 3.4.23"),
        (b'{"etcdserver": "3.10.0"}', "ok", "is etcd 3.10.0"),
        (b'{"etcdserver": "3.3.27"}', "problem", "is etcd 3.3.27, and brokerd needs 3.4 or later"),
        (b'{"etcdserver": "x.y"}', "problem", "answers, and is no etcd"),
        (b"<html>", "problem", "answers, and is no etcd"),
        (b"\xff", "problem", "answers, and is no etcd"),
        (b"{}", "problem", "answers, and is no etcd"),
    ],
)
def test_the_version_is_3_4_or_later(body: bytes, level: str, words: str) -> None:
    (found,) = of_version(answered(body), URL)
    assert (str(found.level), words in found.found) == (level, True), found


@pytest.mark.parametrize(
    ("ahead", "level"), [(0.0, None), (9.0, None), (60.0, "warning"), (-60.0, "warning"), (121.0, "problem")]
)
def test_a_clock_that_is_too_far_from_ours_is_told(ahead: float, level: str | None) -> None:
    found = [str(each.level) for each in of_clock(answered(date=NOW - ahead), URL, 120.0)]
    assert found == ([] if level is None else [level])


@pytest.mark.parametrize(
    ("clock", "permitted", "words"),
    [
        (None, 120.0, None),
        (100.0, 120.0, None),
        (130.0, 120.0, "the clock of web-2 is 130 s ahead of this machine's"),
        (-130.0, 120.0, "the clock of web-2 is 130 s behind this machine's"),
        (30.0, 10.0, "the clock of web-2 is 30 s ahead of this machine's"),
    ],
)
def test_a_host_whose_clock_is_too_far_from_ours_is_named(
    clock: float | None, permitted: float, words: str | None
) -> None:
    store = StoreSettings((URL,), "prod", "web-1", clock_difference=permitted)
    members: list[dict[str, Any]] = [{"host": "web-2", "clock": clock}]
    facts = replace(FACTS, configuration=Configuration("/etc/x", store=store))
    found = [each.found for each in of_members(members, facts)]
    assert found == ([] if words is None else [f"{words}, more than clock_difference of [store] permits"])
