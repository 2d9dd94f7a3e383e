# What a person can do about a grant that fails, where its error does not say it.
from __future__ import annotations

import pytest

from brokerd.core.exchange.outcomes import Cause, Declined, Issued, Misconfigured, RetryLater, Tokens
from brokerd.core.grant.advice import advice, after

CLOCK = "the provider answered 400 invalid_grant (this machine's clock is 3600 s behind the provider's)"


@pytest.mark.parametrize(
    ("error", "cause", "words"),
    [
        (
            "idp.example:443: connection refused",
            Cause.UNREACHABLE,
            "keeps this machine from the provider: brokerctl doctor",
        ),
        ("the provider answered 503", Cause.UNAVAILABLE, "ask the provider's operator"),
        ("the provider answered 500", Cause.FAILED, "brokerctl trace app; brokerd tries again by itself"),
        ("the provider answered 400 invalid_scope", None, "change what the error names, then: brokerctl reload"),
        ("idp.example:443: the certificate expired on 2026-11-01", Cause.UNREACHABLE, "for a new certificate"),
        (CLOCK, None, "set the clock of this machine: timedatectl status; then: brokerctl refresh app"),
    ],
)
def test_each_failure_has_its_advice(error: str, cause: Cause | None, words: str) -> None:
    assert words in (advice("app", error, cause) or "")


def test_what_says_it_itself_needs_none() -> None:
    assert advice("app", "invalid_client; check client_secret (/etc/brokerd/secrets/app)", None) is None
    assert advice("app", "the store cannot be written", Cause.POSTPONED) is None


def test_only_failures_are_followed_by_advice() -> None:
    assert after("app", RetryLater("timed out", Cause.UNANSWERED))
    assert after("app", Misconfigured("invalid_scope"))
    assert after("app", Issued(Tokens())) is None
    assert after("app", Declined("invalid_scope")) is None
