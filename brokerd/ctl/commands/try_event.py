# brokerctl test-event: whether the commands of [[on_event]] work, tried without waiting for trouble.
from __future__ import annotations

from argparse import Namespace

from brokerd_client import Broker

from brokerd.ctl.terminal import Failed, plain, write


def try_event(broker: Broker, arguments: Namespace) -> int:
    """Run the commands of an event now."""
    found = broker.call("test_event", event=arguments.event)
    name, runs = plain(found["event"]), found["runs"]
    if not runs:
        raise Failed(f"no command runs for {name}; add it to events of an [[on_event]] table: brokerd.toml(5)")
    for run in runs:
        command, reason = plain(run["command"]), run["reason"]
        write(f"{command}: {'ended with status 0' if reason is None else f'FAILED: {plain(reason)}'}")
        for line in run["output"]:
            write(f"  {plain(line)}")
    if failed := sum(run["reason"] is not None for run in runs):
        raise Failed(f"{name}: {failed} of {len(runs)} command{'s' if len(runs) > 1 else ''} failed")
    return 0
