from __future__ import annotations

import re
from dataclasses import asdict, replace
from html import unescape
from typing import Any

import pytest

from brokerd.core.events import Event
from brokerd.server.page import facts
from tests.fleet_of_two import AWAY
from tests.unit.server.page.sample import NOW, failing, grant, overview, provider


def plain(html: str | None) -> str:
    return re.sub(r"<[^>]*>", "", html or "")


def said(found: dict[str, Any]) -> list[str]:
    return [plain(each) for each in facts.notes(found, NOW)]


def test_since_when_it_fails_how_often_why_and_what_to_do() -> None:
    found = failing("crm", NOW - 1_500)
    assert said(found)[0] == (
        "Failing for 25 min, since 02:45:00, 9 failures, the last: "
        "idp.example did not answer within 10 s (tried at 203.0.113.7:443)"
    )
    assert plain(facts.remedy(found, NOW)) == "brokerd tries again by itself."
    lost = grant("crm", state="needs_login", remedy="brokerctl login crm", last_error="dead")
    assert plain(facts.remedy(lost, NOW)) == "To fix: brokerctl login crm"
    advised = grant(state="misconfigured", advice="change what the error names, then: brokerctl reload")
    assert plain(facts.remedy(advised, NOW)) == "To fix: change what the error names, then: brokerctl reload."
    refused = grant(state="misconfigured", last_error="the provider answered 401; check client_id (at first: 503)")
    assert said(refused) == ["the provider answered 401 (at first: 503)"]
    assert plain(facts.remedy(refused, NOW)) == "To fix: check client_id."
    assert facts.remedy(grant(), NOW) is None


def test_what_comes_next() -> None:
    assert [plain(each) for each in facts.token(grant(), NOW)] == ["expires in 40 min", "renews in 19 min"]
    assert [plain(each) for each in facts.token(failing("a", NOW - 60), NOW)][1] == "next try in 1 min"
    assert [plain(each) for each in facts.token(grant(issued_at=None), NOW)] == ["no token"]
    assert plain(next(iter(facts.token(grant(expires_at=None), NOW)))) == "does not say when it expires"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"unstored": True}, "in memory only"),
        ({"interrupted": NOW - 120}, "missing for 2 min, since 03:08:00"),
        ({"pending_revocations": 2}, "2 tokens not yet revoked"),
        ({"scope_dropped": ["admin"]}, "did not grant the scope admin"),
        ({"notes": ["a lifetime of 9 years"]}, "9 years"),
        ({"refresh_expires_at": NOW + 86_400}, "The refresh token expires in 24 h"),
        ({"state": "revoked", "revoked_at": NOW - 7_200}, "Revoked for 2 h"),
    ],
)
def test_each_fact_has_its_sentence(more: dict[str, Any], words: str) -> None:
    assert words in " ".join(said(grant(**more)))


def test_a_refresh_token_that_lives_for_long_is_not_worth_a_sentence() -> None:
    assert said(grant(refresh_expires_at=NOW + 30 * 86_400)) == []


@pytest.mark.parametrize(
    ("daemon", "words"),
    [
        ({"locked": True}, "locked and serves nothing. To unlock: brokerctl unlock"),
        ({"store": "disk full", "store_since": NOW - 60}, "The store fails for 1 min, since 03:09:00: disk full"),
        ({"audit": "disk full", "audit_since": NOW - 60}, "The audit log fails for 1 min"),
        (
            {"fleet": asdict(replace(AWAY, since=NOW - 60))},
            "Fleet: etcd cannot be reached for 1 min, since 03:09:00 (https://10.0.0.1:2379: connection refused); tok",
        ),
    ],
)
def test_what_is_wrong_with_brokerd_itself(daemon: dict[str, Any], words: str) -> None:
    (found,) = facts.troubles(overview([], **daemon)["daemon"], [], NOW)
    assert words in plain(found)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "works"),
        ({"last_ok_at": None}, "not asked yet"),
        ({"failing_since": NOW - 600, "cause": "unreachable"}, "failing (unreachable) for 10 min, since 03:00:00"),
        (
            {"failing_since": NOW - 90, "breaker_open_until": NOW + 60},
            "failing for 1 min, since 03:08:30; asked again in 1 min",
        ),
        (
            {"unanswered_since": NOW - 30},
            f"has not answered for 30 s, since 03:09:30. To fix: {Event.PROVIDER_SLOW.remedy}",
        ),
    ],
)
def test_how_a_provider_is(more: dict[str, Any], words: str) -> None:
    found = provider(**more)
    assert unescape(plain(facts.about_provider(found, NOW))) == words
    said = [unescape(plain(each)) for each in facts.troubles(overview([])["daemon"], [found], NOW)]
    assert said == ([f"Provider idp: {words}"] if facts.is_down(found) else [])


def test_a_grant_that_has_no_token_while_its_provider_is_down_says_so() -> None:
    found = grant(issued_at=None, expires_at=None, next_renewal_at=NOW + 60)
    notes = [plain(each) for each in facts.notes(found, NOW, provider(breaker_open_until=NOW + 60))]
    assert notes == [
        "It has no token, and brokerd has not come to it yet.",
        "Its provider seems to be down, and is asked again in 1 min.",
    ]
