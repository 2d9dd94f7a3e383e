# Which grants there are (broker/grant_registry.py).
from __future__ import annotations

from typing import Any

from brokerd.broker.grant_registry import GrantRegistry


class Grant:
    def __init__(self, name: str, fingerprint: str, *, is_busy: bool) -> None:
        self.name, self.fingerprint, self.is_busy = name, fingerprint, is_busy


def grant(name: str, fingerprint: str = "f", *, busy: bool = False) -> Any:
    return Grant(name, fingerprint, is_busy=busy)


def test_a_busy_grant_that_left_is_kept_until_it_is_done() -> None:
    registry, idle, busy = GrantRegistry(), grant("idle"), grant("busy", busy=True)
    registry.replace({"idle": idle, "busy": busy})
    registry.replace({})
    assert list(registry.all()) == [busy]
    registry.release(busy)
    assert list(registry.all()) == [busy]
    busy.is_busy = False
    registry.release(busy)
    assert list(registry.all()) == []


def test_a_grant_that_comes_back_while_it_is_busy_is_the_same_one() -> None:
    registry, busy = GrantRegistry(), grant("app", busy=True)
    registry.replace({"app": busy})
    registry.replace({})
    assert registry.take_back("app", "another") is None
    assert registry.take_back("app", "f") is busy
    registry.replace({"app": busy})
    assert list(registry.all()) == [busy]


def test_a_grant_that_left_while_records_were_read_is_the_same_one_whatever_was_read() -> None:
    registry, app = GrantRegistry(), grant("app", busy=True)
    registry.replace({"app": app})
    registry.replace({})
    with registry.reading():
        app.is_busy = False  # it is stored, perhaps after its record was read
        registry.release(app)
        assert registry.take_back("app", "f") is app
        registry.replace({"app": app})
    assert registry.holds(app)
    with registry.reading():
        registry.replace({})
        assert list(registry.all()) == [app]
    assert list(registry.all()) == []


def test_a_grant_that_somebody_will_change_is_kept_until_everybody_let_go() -> None:
    registry, app = GrantRegistry(), grant("app")
    registry.replace({"app": app})
    registry.keep(app)
    registry.keep(app)
    registry.let_go(app)
    registry.replace({})
    assert list(registry.all()) == [app]
    registry.let_go(app)
    assert list(registry.all()) == []


def test_a_grant_that_was_replaced_is_not_the_one_of_its_name() -> None:
    registry, before, after, other = GrantRegistry(), grant("app"), grant("app", "g"), grant("other")
    registry.replace({"app": before, "other": other})
    registry.replace_one(after)
    assert not registry.holds(before)
    assert registry.holds(after)
    assert registry.holds(other)


def test_an_emptied_registry_can_be_restored() -> None:
    registry, app = GrantRegistry(), grant("app")
    registry.replace({"app": app})
    before = registry.empty()
    assert not registry.holds(app)
    assert list(registry.all()) == [app]
    registry.restore(before)
    assert registry.holds(app)
    assert list(registry.all()) == [app]
