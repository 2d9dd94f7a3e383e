# The static dialect: credentials become a token and its fields, no request is sent, and nothing else can be done.
from __future__ import annotations

from dataclasses import replace

import pytest

from brokerd.core.exchange.outcomes import Issued, Misconfigured
from brokerd.core.grant.record import PendingRevocation
from brokerd.core.grant.renewal import Ability
from brokerd.core.grant.target import Target
from brokerd.core.secret import SecretSource
from brokerd.core.validation import ConfigError
from brokerd.dialects.answer_values import LONGEST_TOKEN
from brokerd.dialects.static import Static
from tests.unit.dialects.exchange_driver import UNFIT, drive, view

STATIC = Static()


def test_the_token_is_a_credential_and_every_other_one_a_field_of_it() -> None:
    requests, found = drive(STATIC.issue(view({"token": "key-1", "access_key_id": "id-1", "note": "a b"})))
    assert requests == []
    assert isinstance(found, Issued)
    assert found.tokens.access_token is not None
    assert (found.tokens.access_token.value.reveal(), found.tokens.access_token.lifetime) == ("key-1", None)
    fields = {name: each.reveal() for name, each in found.tokens.fields.items()}
    assert fields == {"access_key_id": "id-1", "note": "a b"}


@pytest.mark.parametrize(
    "value", [*UNFIT.values(), "two words", "k\N{LATIN SMALL LETTER E WITH ACUTE}y", "x" * (LONGEST_TOKEN + 1)]
)
def test_what_no_header_can_carry_is_no_token_and_is_not_shown(value: str) -> None:
    seen = replace(view({"token": value}), sources={"token": SecretSource(file="/etc/brokerd/secrets/key")})
    _, found = drive(STATIC.issue(seen))
    assert isinstance(found, Misconfigured)
    assert found.reason == (
        "token (/etc/brokerd/secrets/key): expected one line of visible ASCII without blanks, at most 256 KiB; "
        "write the token there, alone"
    )


def test_a_token_of_256_kib_is_one() -> None:
    assert isinstance(drive(STATIC.issue(view({"token": "x" * LONGEST_TOKEN})))[1], Issued)


def test_fields_that_are_too_large_are_an_error() -> None:
    _, found = drive(STATIC.issue(view({"token": "key-1", "a": "x" * 65_536})))
    assert isinstance(found, Misconfigured)
    assert "static: the fields have 65537 bytes together" in found.reason


def test_nothing_can_be_done_with_it_but_reading_it() -> None:
    seen = view({"token": "key-1"}, access="key-1")
    assert STATIC.ability(seen) == Ability(issue=True, renew=False)
    assert STATIC.ability(replace(seen, target=Target(("read",)))) == Ability(issue=False, renew=False)
    assert "a grant of its own" in str(STATIC.lacks(seen))
    assert STATIC.revoke(seen, PendingRevocation(access_token=seen.access_token)) is None
    assert STATIC.endpoints == {}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), 'credentials.token: this credential is the token, and it is missing; write token = { file = "…" }'),
        (("token", "a b"), "credentials: expected names of letters"),
        (("token", "refresh_token"), "credentials: refresh_token: remove it"),
    ],
)
def test_its_credentials_are_checked(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        STATIC.check(frozenset(names), {})
    assert str(caught.value).startswith(words)
