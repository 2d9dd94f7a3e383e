# Who is let in and how much he may ask for: limits per user, and operators whom they do not meet.
from __future__ import annotations

import math

import pytest

from brokerd.core.access.admission import (
    ARREARS,
    ARRIVAL,
    BURST,
    EACH,
    FOR_OPERATORS,
    KNOWN,
    SPARE_LEAST,
    WARN_AGAIN,
    Account,
    Admission,
    Limits,
)
from brokerd.core.errors import Code, Failure

OWN, PORTAL, SHOP = 990, 1_000, 1_001
LIMITS = Limits(connections=10, connections_per_user=6, waiting_per_user=4, rate_per_user=100.0)


def entered(admission: Admission, uid: int, times: int) -> Account:
    for _ in range(times):
        account = admission.account(uid, 0.0)
        assert admission.enter(account, 0.0) is None
    return account


def refused(admission: Admission, uid: int) -> Failure:
    failure = admission.enter(admission.account(uid, 0.0), 0.0)
    assert failure is not None
    assert failure.code is Code.LIMIT
    assert failure.retry_after
    return failure


def test_a_user_has_his_share_of_the_connections_and_the_others_have_theirs() -> None:
    admission = Admission(LIMITS, OWN)
    portal = entered(admission, PORTAL, 6)
    assert "at most 6 connections of a user; close some, or raise [daemon] max_connections_per_user" in str(
        refused(admission, PORTAL)
    )
    entered(admission, SHOP, 4)
    assert "all 10 connections are taken" in str(refused(admission, SHOP))
    admission.leave(portal)
    entered(admission, SHOP, 1)


def test_operators_are_let_in_whatever_is_taken_and_owe_nothing() -> None:
    admission = Admission(LIMITS, OWN)
    entered(admission, PORTAL, 6)
    entered(admission, SHOP, 4)
    for uid in (0, OWN):
        account = entered(admission, uid, 50)
        account.charge(1e9, 0.0)
        account.wait(100_000)
        assert account.delay(0.0) == 0.0
        assert admission.account(uid, 0.0) is not account


def test_who_asks_more_than_his_rate_is_heard_later_and_his_debt_outlives_his_connections() -> None:
    admission = Admission(LIMITS, OWN)
    account = entered(admission, PORTAL, 1)
    account.charge(BURST, 50.0)  # more than a connection's own charge was paid off by then
    assert account.delay(50.0) == 0.0
    account.charge(200, 50.0)
    assert account.delay(50.0) == pytest.approx(2.0)
    admission.leave(account)
    assert admission.account(PORTAL, 51.0).delay(51.0) == pytest.approx(1.0)
    assert account.delay(52.0) == 0.0
    account.charge(BURST, 1_000.0)  # what he did not ask for meanwhile is not saved up beyond a burst
    assert account.delay(1_000.0) == 0.0
    account.charge(100, 1_000.0)
    assert account.delay(1_000.0) == pytest.approx(1.0)


def test_a_connection_is_charged_and_who_is_in_arrears_makes_no_new_one() -> None:
    admission = Admission(Limits(rate_per_user=100.0), OWN)
    for uid in (0, PORTAL):  # an operator is never charged
        for _ in range(math.ceil((BURST + ARREARS * 100.0) / ARRIVAL)):
            admission.leave(entered(admission, uid, 1))
    admission.leave(entered(admission, 0, 1))
    assert "more requests and connections than allowed; close some, or raise [daemon] max_rate_per_user" in str(
        refused(admission, PORTAL)
    )
    assert admission.account(PORTAL, 0.0).connections == 0
    entered(admission, SHOP, 1)
    assert admission.enter(admission.account(PORTAL, 0.0), ARRIVAL / 100.0) is None


def test_waiting_requests_of_all_his_connections_are_counted_together() -> None:
    account = entered(Admission(LIMITS, OWN), PORTAL, 2)
    account.wait(3)
    with pytest.raises(Failure, match="at most 4 waiting requests of a user, found 3"):
        account.wait(2)
    account.wait(1)
    account.answered(3)
    account.wait(2)


def test_the_log_hears_of_a_refused_user_once_a_minute() -> None:
    account = Account()
    said = [now for now in range(0, 200, 5) if account.is_worth_logging(float(now))]
    assert said == [0, WARN_AGAIN, 2 * WARN_AGAIN, 3 * WARN_AGAIN]


def test_users_who_have_and_owe_nothing_are_forgotten() -> None:
    admission = Admission(LIMITS, OWN)
    connected = entered(admission, PORTAL, 1)
    owing = admission.account(SHOP, 0.0)
    owing.charge(BURST + 100_000, 0.0)
    seen = [admission.account(uid, 0.0) for uid in range(2_000, 2_000 + KNOWN)]
    assert admission.account(PORTAL, 0.0) is connected
    assert admission.account(SHOP, 0.0) is owing
    assert admission.account(2_000, 0.0) is not seen[0]


@pytest.mark.parametrize(
    ("descriptors", "connections"),
    [
        (524_288, 4_096),
        (1_024, (1_024 - 128) // EACH - FOR_OPERATORS),
        (256, (256 - SPARE_LEAST) // EACH - FOR_OPERATORS),
        (20, 1),
    ],
)
def test_descriptors_are_kept_for_the_daemon_itself_and_for_operators(descriptors: int, connections: int) -> None:
    found = Limits().within(descriptors)
    assert found.connections == connections
    assert found.connections_per_user == max(1, connections // 2)
    assert Limits(connections_per_user=100_000).within(descriptors).connections_per_user == connections
    assert math.isfinite(found.rate_per_user)
    taken = EACH * (found.connections + FOR_OPERATORS + found.shared_tokens)
    assert found.shared_tokens == 1 or taken <= descriptors - (descriptors - EACH * (connections + FOR_OPERATORS)) // 2
