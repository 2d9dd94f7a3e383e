# What is odd about a token: the configured lifetime wins over one that is hard to believe, and status says so.
from __future__ import annotations

from brokerd.core.exchange.implausible_values import believed, notes
from brokerd.core.exchange.outcomes import Issued, IssuedToken, Misconfigured, Tokens
from brokerd.core.exchange.scope import CUT
from brokerd.core.grant.renewal import Pace
from brokerd.core.grant.tokens import AccessToken, new_access_token
from brokerd.core.secret import Secret
from tests.unit.core.values import NOW

ODD = Issued(
    Tokens(
        IssuedToken(Secret("a"), 0.0, lifetime_warning="the provider says that the token lives 0 s"),
        IssuedToken(Secret("r")),
    )
)


def served(tokens: Tokens) -> AccessToken:
    token = new_access_token(tokens, NOW, 0.5)
    assert token is not None
    return token


def test_the_configured_lifetime_wins_over_one_that_is_hard_to_believe() -> None:
    found = believed(ODD, Pace(lifetime=600.0, lifetime_named=True))
    assert isinstance(found, Issued)
    assert found.tokens.refresh_token == ODD.tokens.refresh_token
    token = served(found.tokens)
    assert token.lifetime is None
    assert list(notes(token, presented=True)) == [
        "the provider says that the token lives 0 s; the configured lifetime counts"
    ]


def test_without_one_what_the_provider_says_counts_and_the_key_is_named() -> None:
    found = believed(ODD, Pace())
    assert isinstance(found, Issued)
    token = served(found.tokens)
    assert token.lifetime == 0.0
    assert next(notes(token, presented=True)).endswith("; if that is wrong, write lifetime on the grant")


def test_a_lifetime_that_is_plain_is_not_touched() -> None:
    plain = Issued(Tokens(IssuedToken(Secret("a"), 60.0)))
    assert believed(plain, Pace(lifetime_named=True)) is plain
    refused = Misconfigured("no")
    assert believed(refused, Pace(lifetime_named=True)) is refused
    assert list(notes(served(plain.tokens), presented=True)) == []


def test_a_type_that_is_not_known_and_a_scope_that_was_cut_are_named() -> None:
    token = served(Tokens(IssuedToken(Secret("a")), token_type="mac", scope=("a", CUT)))
    said = list(notes(token, presented=False))
    assert len(said) == 2
    assert "token_type is mac" in said[0]
    assert "cut" in said[1]
