from __future__ import annotations

import copy
import pickle

import pytest
from brokerd_client import BrokerError, Gone, ProtocolError, Token, UnknownGrant, errors
from brokerd_client.errors import from_map
from brokerd_client.messages import read_event, read_token, read_tokens

from tests.unit.client.vectors import vectors

PLAIN = {"grant": "ix", "value": "s3cret", "token_type": "Bearer", "expires_at": 5}


def test_a_token_carries_its_header() -> None:
    token = read_token(PLAIN)
    assert (token.value, token.token_type, token.expires_at, token.grant) == ("s3cret", "Bearer", 5, "ix")
    assert token.header == {"Authorization": "Bearer s3cret"}


def test_a_token_is_presented_as_its_provider_wants_it() -> None:
    assert read_token({**PLAIN, "present": "X-Auth: k={access_token}"}).header == {"X-Auth": "k=s3cret"}


def test_text_made_of_a_token_never_shows_it() -> None:
    token = read_token(PLAIN)
    for text in (repr(token), str(token), f"{token}", "%s" % token, repr([token]), repr(Gone)):  # noqa: UP031
        assert "s3cret" not in text


def test_a_token_is_frozen_and_is_not_pickled() -> None:
    token = read_token(PLAIN)
    with pytest.raises(AttributeError):
        token.value = "other"
    with pytest.raises(AttributeError):
        del token.value
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copied(token)


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {},
        {**PLAIN, "value": None},
        {**PLAIN, "grant": 7},
        {**PLAIN, "token_type": None},
        {**PLAIN, "expires_at": "soon"},
        {**PLAIN, "present": 7},
        {**PLAIN, "scope": "a"},
        {**PLAIN, "scope": [7]},
        {**PLAIN, "fields": ["a"]},
        {**PLAIN, "fields": {"a": 7}},
        {**PLAIN, "fields": {7: "a"}},
        {**PLAIN, "present": "no colon {access_token}"},
    ],
)
def test_what_is_no_token_is_a_protocol_error_that_shows_nothing(found: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_token(found)
    assert "s3cret" not in str(caught.value)


def test_every_error_of_the_vectors_has_a_class() -> None:
    messages = [vector.values[0]["message"] for vector in vectors("good")]
    errors_found = [message[2] for message in messages if message[0] == 1 and message[2]]
    assert len(errors_found) > 10
    for found in errors_found:
        error = from_map(found)
        assert type(error) is not BrokerError
        assert error.as_map() == found
        assert str(error) == error.message


def test_an_error_of_a_newer_daemon_keeps_its_code() -> None:
    error = from_map({"code": "tired", "message": "asleep", "retry_after": 3})
    assert type(error) is BrokerError
    assert (error.code, error.retry_after, error.grant) == ("tired", 3, None)
    assert BrokerError("x").code == "internal"


@pytest.mark.parametrize("found", [None, "text", {}, {"code": 1, "message": "x"}, {"code": "denied"}])
def test_what_is_no_error_is_a_protocol_error(found: object) -> None:
    with pytest.raises(ProtocolError):
        raise from_map(found)


def test_an_error_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(UnknownGrant("no grant x", grant="x", retry_after=2.0)))
    assert (type(error), error.message, error.grant, error.retry_after) == (UnknownGrant, "no grant x", "x", 2.0)


def test_every_code_of_the_protocol_has_an_error_class_of_its_name() -> None:
    for code, kind in errors._CLASSES.items():
        assert kind.__name__ == "".join(word.title() for word in code.split("_"))
        assert kind.code == code


def test_many_tokens_come_by_grant() -> None:
    tokens = read_tokens(["ix", "no"], [{"token": PLAIN}, {"error": {"code": "denied", "message": "x"}}])
    assert isinstance(tokens["ix"], Token)
    assert isinstance(tokens["no"], errors.Denied)
    for wrong in (None, [], [{"token": PLAIN}], [{"token": PLAIN}, None], [{"token": PLAIN}, {}]):
        with pytest.raises(ProtocolError):
            read_tokens(["ix", "no"], wrong)


def test_an_event_is_a_token_or_says_why_there_is_none() -> None:
    gone = read_event("gone", {"grant": "ix", "code": "revoked", "message": "over"})
    assert isinstance(gone, Gone)
    assert (gone.grant, type(gone.error)) == ("ix", errors.Revoked)
    assert isinstance(read_event("token", dict(PLAIN)), Token)
    assert read_event("news", {}) is None
    with pytest.raises(ProtocolError):
        read_event("gone", {"code": "revoked", "message": "over"})


def test_a_token_carries_the_fields_that_belong_to_it_and_shows_none() -> None:
    token = read_token({**PLAIN, "fields": {"access_key_id": "k3y"}})
    assert token.fields == {"access_key_id": "k3y"}
    assert read_token(PLAIN).fields == {}
    assert "k3y" not in f"{token!r} {token}"
