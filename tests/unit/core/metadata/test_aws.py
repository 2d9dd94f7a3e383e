# The endpoints of AWS: what is answered, and what is refused.
from __future__ import annotations

import json

import pytest

from brokerd.core.metadata.answers import Asked, Given, NotGiven
from brokerd.core.metadata.aws import CREDENTIALS, TOKEN, TOKEN_TTL, Container, Instance

KEYS = Given("session", 1_800_000_000.5, {"access_key_id": "AKID", "secret_access_key": "SECRET"})
WHOLE = {
    "AccessKeyId": "AKID",
    "SecretAccessKey": "SECRET",
    "Token": "session",
    "Expiration": "2027-01-15T08:00:00Z",
}
INSTANCE = Instance("aws", "reader", "eu-central-1", b"k" * 32)
NOW, UID = 1_799_999_000.0, 1000


def asked(path: str = "/", method: str = "GET", **headers: str) -> Asked:
    return Asked(method, path, {}, {name.replace("_", "-"): value for name, value in headers.items()})


def session(ttl: str = "60", *, now: float = NOW, uid: int = UID) -> str:
    answer = INSTANCE.check(Asked("PUT", "/latest/api/token", {}, {TOKEN_TTL: ttl}), uid, now)
    assert answer is not None
    assert answer.headers[TOKEN_TTL] == ttl
    return answer.body.decode()


def within(token: str, path: str) -> Asked:
    return Asked("GET", path, {}, {TOKEN: token})


def test_a_container_gets_all_four_values() -> None:
    container = Container("aws", "the word")
    assert container.check(asked(authorization="the word")) is None
    assert json.loads(container.answer(asked(), KEYS, NOW).body) == WHOLE


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": ""}, {"authorization": "the wor"}, {"authorization": "the word\n"}]
)
def test_a_container_must_say_its_word(headers: dict[str, str]) -> None:
    with pytest.raises(NotGiven) as refused:
        Container("aws", "the word").check(Asked("GET", "/", {}, headers))
    assert refused.value.status == 401
    assert "the word" not in str(refused.value)


@pytest.mark.parametrize(
    "given",
    [
        Given("secret", None, {"access_key_id": "AKID"}),
        Given("session", None, KEYS.fields),
        Given("session", 1.0, {"access_key_id": "", "secret_access_key": "SECRET"}),
        Given("session", 1.0, {}),
    ],
)
def test_a_grant_without_temporary_keys_is_an_error_and_no_empty_value(given: Given) -> None:
    for kind in (Container("aws"), INSTANCE):
        with pytest.raises(NotGiven, match="the grant aws has no temporary keys") as refused:
            kind.answer(asked(), given, NOW)
        assert refused.value.status == 500


def test_an_instance_has_a_session_a_role_and_its_keys() -> None:
    token = session()
    role = INSTANCE.check(within(token, CREDENTIALS), UID, NOW)
    assert role is not None
    assert role.body == b"reader"
    assert INSTANCE.check(within(token, CREDENTIALS + "reader"), UID, NOW) is None
    found = json.loads(INSTANCE.answer(asked(), KEYS, NOW).body)
    assert found == {"Code": "Success", "LastUpdated": "2027-01-15T07:43:20Z", "Type": "AWS-HMAC", **WHOLE}
    region = INSTANCE.check(within(token, "/latest/meta-data/placement/region"), UID, NOW)
    assert region is not None
    assert region.body == b"eu-central-1"


def test_without_a_session_there_is_nothing() -> None:
    """Version 1 of IMDS is not spoken."""
    for token in ("", "x", "####", session()[:-4] + "AAAA", session("1", now=NOW - 1), session(uid=UID + 1)):
        with pytest.raises(NotGiven, match="IMDSv2") as refused:
            INSTANCE.check(within(token, CREDENTIALS + "reader"), UID, NOW)
        assert refused.value.status == 401


@pytest.mark.parametrize("ttl", ["", "0", "21601", "-1", "1.5", "٣", "9" * 5_000])
def test_a_session_has_a_sensible_end(ttl: str) -> None:
    with pytest.raises(NotGiven, match="1 to 21600 seconds"):
        session(ttl)


def test_other_roles_and_methods_are_refused() -> None:
    with pytest.raises(NotGiven, match="one role") as refused:
        INSTANCE.check(within(session(), CREDENTIALS + "admin"), UID, NOW)
    assert refused.value.status == 404
    with pytest.raises(NotGiven, match="expected the method GET"):
        INSTANCE.check(Asked("POST", CREDENTIALS, {}, {TOKEN: session()}), UID, NOW)
    with pytest.raises(NotGiven, match="expected the method PUT"):
        INSTANCE.check(within("", "/latest/api/token"), UID, NOW)
