# What systemd's address says, and when the kernel says the same. Forged connections: tests/scenario/credentials.
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerd.core.access.credential import CredentialRequest, NotSystemd, read_address
from brokerd.core.access.policy import Caller, Evidence


@pytest.mark.parametrize(
    ("address", "unit", "grant", "is_json"),
    [
        (b"\0f683e0250bc32b88/unit/a.service/ix-prod", "a.service", "ix-prod", False),
        (b"\x000/unit/a.service/ix.json", "a.service", "ix", True),
        (b"\x00ab/unit/b@x\\x2dy.service/ix.prod.json", "b@x\\x2dy.service", "ix.prod", True),
        (b"\x00ab/unit/_c:d.mount/a", "_c:d.mount", "a", False),
    ],
)
def test_an_address_of_systemd_names_unit_and_credential(address: bytes, unit: str, grant: str, is_json: bool) -> None:
    found = read_address(address)
    assert (found.unit, found.grant, found.is_json) == (unit, grant, is_json)


@given(st.binary(max_size=108) | st.text(max_size=108))
def test_any_other_address_is_refused_or_is_what_it_says(address: bytes | str) -> None:
    try:
        found = read_address(address)
    except NotSystemd:
        pass
    else:
        assert isinstance(address, bytes)
        assert address.partition(b"/")[2] == f"unit/{found.unit}/{found.name}".encode()


@pytest.mark.parametrize(
    ("uid", "evidence", "words"),
    [
        (0, Evidence(unit="portal.service"), ""),
        (1_000, Evidence(unit="user@1000.service", user_unit="portal.service"), ""),
        (1_000, Evidence(unit="portal.service"), "its process is in that unit, and its uid is 1000: it is not systemd"),
        (0, Evidence(unit="other.service"), "its process is in other.service"),
        (1_000, Evidence(unit="user@1000.service", user_unit="job.service"), "its process is in job.service"),
        (1_000, Evidence(unit="user@1000.service"), "its process is in user@1000.service"),
        (0, Evidence(), "its process is in no unit"),
        (0, Evidence(unread={"unit": "could not be read: x"}), "the unit of its process could not be read: x"),
    ],
)
def test_the_kernel_must_say_the_same(uid: int, evidence: Evidence, words: str) -> None:
    caller = Caller(7, uid, frozenset(), evidence=evidence)
    request = CredentialRequest("portal.service", "ix")
    if not words:
        request.check(caller)
    else:
        with pytest.raises(NotSystemd) as caught:
            request.check(caller)
        assert str(caught.value) == f"its address names portal.service; {words}"
