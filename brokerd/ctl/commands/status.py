# The status command: the state of every grant for people, or as JSON for programs.
from __future__ import annotations

import gc
import json
import os
import sys
import time
from argparse import Namespace
from typing import Any

from brokerd_client import Broker, BrokerError

from brokerd.core.grant.condition import Tone, is_problem, tone
from brokerd.ctl.status.look import look_of_output
from brokerd.ctl.status.overview import overview
from brokerd.ctl.status.sentences import about_daemon, is_down
from brokerd.ctl.terminal import Failed, complain, plain, write

UNKNOWN = 3  # the exit code
FAILING, ACT = 4, 5  # exit codes with --exit-code
PAUSE = 1.0  # seconds between two calls


def status(broker: Broker, arguments: Namespace) -> int:
    """Show it once, or every second."""
    if arguments.exit_code and arguments.watch:
        raise Failed("--watch never ends by itself, so it has no --exit-code; leave one of them out")
    ask: dict[str, Any] = {"grants": arguments.grants} if arguments.grants else {}
    if len(arguments.grants) == 1 and not arguments.names:
        ask["history"] = True
    is_text = not (arguments.json or arguments.names)
    if arguments.watch and is_text and sys.stdout is not None and sys.stdout.isatty():
        from brokerd.ctl.status.screen import watch

        return watch(lambda: broker.call("status", **ask), problems=arguments.problems)
    if not arguments.watch:
        gc.disable()  # all objects of a large answer live until the end, so looking for garbage only takes time
    while True:
        found = broker.call("status", **ask)
        if arguments.verify:
            for grant in found["grants"]:
                grant["verified"] = _verified(broker, grant["name"])
        if lines := _lines(found, arguments):
            write("\n".join(lines))
        if not arguments.watch:
            code = _exit_code(found, time.time()) if arguments.exit_code else 0
            return _missing(found, arguments.grants) or code
        time.sleep(PAUSE)


def _missing(found: dict[str, Any], named: list[str]) -> int:
    """3 if a grant that was named does not exist."""
    shown = {grant["name"] for grant in found["grants"]}
    for name in dict.fromkeys(each for each in named if each not in shown):
        words = f"there is no grant {plain(name)!r} that you may see"
        complain(f"{words}; to list those that you may see: brokerctl status")
    return 0 if shown.issuperset(named) else UNKNOWN


def _exit_code(found: dict[str, Any], now: float) -> int:
    """The worst of all that is shown."""
    tones = {tone(grant, now) for grant in found["grants"]} | {shown for shown, _ in about_daemon(found["daemon"], now)}
    if Tone.BAD in tones:
        return ACT
    return FAILING if Tone.WARN in tones or any(map(is_down, found.get("providers", ()))) else 0


def _verified(broker: Broker, grant: str) -> dict[str, Any]:
    """What the provider says about the grant's tokens. If it cannot be asked, only its own grants have no answer."""
    try:
        return dict(broker.call("verify", grant=grant))
    except BrokerError as error:
        return {"grant": grant, "access_token": None, "refresh_token": None, "detail": error.message}


def _lines(found: dict[str, Any], arguments: Namespace) -> list[str]:
    now = time.time()
    if arguments.problems and (arguments.json or arguments.names):
        found = {**found, "grants": [grant for grant in found["grants"] if is_problem(grant, now)]}
    if arguments.names:
        return [plain(grant["name"]) for grant in found["grants"]]
    if arguments.json:
        return [json.dumps(found)]
    if arguments.grants and not found["grants"]:
        return []  # stderr names each of them
    look = look_of_output(os.environ)
    if len(arguments.grants) == 1:
        from brokerd.ctl.status.one_grant import one_grant

        return one_grant(found, now, look)
    return overview(found, now, look, problems=arguments.problems)
