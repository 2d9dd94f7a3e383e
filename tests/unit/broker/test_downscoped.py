# How often a provider is asked for downscoped tokens (broker/downscoped.py).
from __future__ import annotations

from brokerd.broker.downscoped import BURST, DECLINED_FOR, DECLINED_MOST, DownscopedRequests
from brokerd.core.grant.target import Target
from tests.unit.core.values import NOW

READ, WRITE = Target(("read",)), Target(("write",))


def test_a_refusal_is_remembered_for_a_while() -> None:
    requests = DownscopedRequests()
    requests.refuse(READ, "invalid_scope", NOW)
    assert requests.wait(READ, NOW.after(10)) == DECLINED_FOR - 10
    assert requests.wait(WRITE, NOW) <= 0
    assert requests.refusal(READ, NOW.after(DECLINED_FOR)) is None
    for number in range(DECLINED_MOST):
        requests.refuse(Target((f"s{number}",)), "no", NOW)
    assert requests.refusal(READ, NOW) is None
    requests.forget()
    assert requests.refusal(Target(("s9",)), NOW) is None


def test_downscoped_tokens_are_requested_at_once_until_they_are_many() -> None:
    requests = DownscopedRequests()
    for _ in range(BURST):
        assert requests.wait(READ, NOW) <= 0
        requests.begin(NOW)
    requests.begin(NOW)
    assert requests.wait(READ, NOW) == 1.0
    assert requests.wait(READ, NOW.after(1)) <= 0
