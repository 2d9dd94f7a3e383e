# Whether brokerd can serve: /livez, /readyz and brokerd_ready. One row for each check. A grant that fails is no reason
# against all the others; /readyz/GRANT is about one grant.
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from brokerd.broker.broker import TokenBroker
from brokerd.server.methods.status import not_adopted, trouble_of_disk
from brokerd.telemetry.event_log import EventLog

WITHHELD = "to see why, on this machine: brokerctl status"


class ReadinessCheck(NamedTuple):
    """`why` it failed, in words that name the remedy; None: it is well."""

    name: str
    why: Callable[[TokenBroker, EventLog], str | None]


class Checked(NamedTuple):
    name: str
    why: str | None


def _too_long_alone(broker: TokenBroker) -> str | None:
    """Why nothing is served although tokens live."""
    if broker.fleet is None:
        return None
    state = broker.fleet.etcd_state()
    if state.reachable or state.serves_until is None or state.serves_until > broker.now().wall:
        return None
    return f"etcd has been away for longer than [store] offline allows: {state.trouble}"


CHECKS = (
    ReadinessCheck("renewals", lambda broker, _: None if broker.schedule.runs else "the loop that renews tokens hangs"),
    ReadinessCheck("unlocked", lambda broker, _: "brokerd is locked; brokerctl unlock" if broker.locked else None),
    ReadinessCheck("store-adopted", lambda broker, _: not_adopted(broker)),
    ReadinessCheck("store-writable", lambda broker, _: trouble_of_disk(broker)[0]),
    ReadinessCheck("fleet", lambda broker, _: _too_long_alone(broker)),
    ReadinessCheck("audit", lambda _, events: events.forbids_serving),
    ReadinessCheck("running", lambda broker, _: "brokerd stops" if broker.stopping else None),
)


def checked(broker: TokenBroker, events: EventLog) -> list[Checked]:
    return [Checked(each.name, each.why(broker, events)) for each in CHECKS]


def is_ready(found: Iterable[Checked]) -> bool:
    return all(each.why is None for each in found)


def as_text(found: list[Checked], *, reasons: bool = True) -> str:
    """One line for each check, as the probes of Kubernetes show them. `reasons`: whoever reads it may know why."""
    lines = []
    for name, why in found:
        words = why if reasons else WITHHELD
        lines.append(f"[+]{name} ok\n" if why is None else f"[-]{name} failed: {words}\n")
    return "".join(lines) + ("ready\n" if is_ready(found) else "not ready\n")
