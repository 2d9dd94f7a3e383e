# What is wrong with a fleet's etcd: how bad each thing is, and that there is something to do.
from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from brokerd.core.fleet.condition import troubles
from brokerd.core.fleet.view import EtcdState
from brokerd.core.grant.condition import Tone
from tests.fleet_of_two import AWAY, SINCE, WELL

NOW = SINCE + 600


def said(state: EtcdState) -> list[tuple[Tone, str, str]]:
    return [(each.tone, each.sentence(""), each.remedy) for each in troubles(asdict(state), NOW)]


def test_nothing_is_said_of_an_etcd_that_is_well() -> None:
    assert said(WELL) == []


@pytest.mark.parametrize(
    ("state", "tone", "words", "remedy"),
    [
        (AWAY, Tone.WARN, "; tokens that live are served, and no stored token is sent", "brokerctl doctor"),
        (replace(AWAY, serves_until=NOW + 1), Tone.WARN, "etcd cannot be reached", "brokerctl doctor"),
        (replace(AWAY, serves_until=NOW), Tone.BAD, "no token is served, because that is longer", "brokerd goes on"),
        (replace(WELL, full=True), Tone.BAD, "etcd has no space", "etcdctl alarm disarm"),
        (replace(AWAY, full=True), Tone.BAD, "etcd has no space", "etcdctl alarm disarm"),
        (replace(WELL, trouble="x:1: bad name"), Tone.BAD, "this host cannot work with the fleet (x:1: bad", "doctor"),
        (replace(WELL, trouble="x:1: denied. Give it. Now"), Tone.BAD, "the fleet (x:1: denied);", "give it. Now"),
        (replace(AWAY, trouble="etcd x:1: no; etcd y:1: no"), Tone.WARN, "(etcd x:1: no; etcd y:1: no)", "doctor"),
        (replace(AWAY, trouble="x:1: bad name; give another"), Tone.WARN, "reached (x:1: bad name);", "give another"),
        (replace(WELL, unwritten=1), Tone.WARN, "1 record is not in etcd yet", ""),
        (replace(WELL, unwritten=3), Tone.WARN, "3 records are not in etcd yet", ""),
    ],
)
def test_each_trouble_has_its_words_and_what_to_do(state: EtcdState, tone: Tone, words: str, remedy: str) -> None:
    ((found, sentence, to_fix),) = said(state)
    assert (found, words in sentence) == (tone, True), sentence
    assert (remedy in to_fix) if remedy else (to_fix == "")


def test_since_when_and_why_come_before_what_follows() -> None:
    (found,) = troubles(asdict(AWAY), NOW)
    assert found.sentence("for 4 min") == (
        "etcd cannot be reached for 4 min (https://10.0.0.1:2379: connection refused); "
        "tokens that live are served, and no stored token is sent"
    )
    assert found.since == SINCE
