# brokerctl log-level: how much the running daemon logs.
from __future__ import annotations

import time
from argparse import Namespace

from brokerd_client import Broker

from brokerd.ctl.terminal import Failed, away, plain, write


def log_level(broker: Broker, arguments: Namespace) -> int:
    """Show the level, or set it."""
    params = {} if arguments.level is None else {"level": arguments.level}
    if arguments.lasting is not None:
        params["for"] = _seconds(arguments.lasting)
        if arguments.level is None:
            raise Failed("expected a level before --for, such as: brokerctl log-level debug --for 10m")
    found = broker.call("log_level", **params)
    level, at_start = plain(found["level"]), plain(found["at_start"])
    if found["until"] is not None:
        words = f"{level}; {at_start} again {away(found['until'] - time.time())}, or after a restart"
    else:
        words = level if level == at_start else f"{level}; {at_start} again after a restart"
    write(words)
    return 0


def _seconds(text: str) -> float:
    from brokerd.core.timing.duration import Duration

    try:
        return float(Duration.read(float(text) if text.replace(".", "", 1).isdigit() else text))
    except ValueError:
        raise Failed('--for: expected a time, such as "90s", "10m" or "2h"') from None
