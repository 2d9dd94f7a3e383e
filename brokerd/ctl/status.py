# The status command: what every grant is up to, as a table for people or as the contract's JSON.
from __future__ import annotations

import sys
import time

from brokerd_client import BrokerError

from brokerd.ctl.terminal import away, called, complain, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import Any

    from brokerd_client import Broker

UNKNOWN = 3  # the exit code
PAUSE = 1.0  # seconds between looks
WIDE = 2000  # columns where there is no terminal: nothing is wrapped
COLOURS = {
    "ready": "green",
    "renewing": "cyan",
    "retrying": "yellow",
    "misconfigured": "red",
    "needs_login": "red",
    "revoked": "magenta",
}


def status(broker: Broker, arguments: Namespace) -> int:
    """Show it once, or every second."""
    params = {"grants": arguments.grants} if arguments.grants else {}
    if arguments.watch and not (arguments.json or arguments.names) and sys.stdout is not None and sys.stdout.isatty():
        return _live(broker, params)
    while True:
        found = broker.call("status", **params)
        if arguments.verify:
            for grant in found["grants"]:
                grant["verified"] = _verified(broker, grant["name"])
        for line in _lines(found, arguments):
            write(line)
        if not arguments.watch:
            return _exit_code(found, arguments.grants)
        time.sleep(PAUSE)


def _exit_code(found: dict[str, Any], asked: list[str]) -> int:
    """3 where a grant that was asked for is not there."""
    shown = {grant["name"] for grant in found["grants"]}
    for name in dict.fromkeys(each for each in asked if each not in shown):
        complain(f"there is no grant {plain(name)!r} that you may see; all that you may see: brokerctl status")
    return 0 if shown.issuperset(asked) else UNKNOWN


def _verified(broker: Broker, grant: str) -> dict[str, Any]:
    """What the grant's provider says of its tokens. One that cannot be asked costs its own grants their answer only."""
    try:
        return dict(broker.call("verify", grant=grant))
    except BrokerError as error:
        return {"grant": grant, "access_token": None, "refresh_token": None, "detail": error.message}


def _lines(found: dict[str, Any], arguments: Namespace) -> list[str]:
    if arguments.names:
        return [plain(grant["name"]) for grant in found["grants"]]
    if arguments.grants and not found["grants"] and not arguments.json:
        return []  # each that was asked for is named on stderr
    return [_as_json(found) if arguments.json else _as_text(found)]


def _as_json(found: dict[str, Any]) -> str:
    import json

    return json.dumps(found)


def _as_text(found: dict[str, Any]) -> str:
    console = _console()
    with console.capture() as capture:
        console.print(_picture(found, time.time()))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _live(broker: Broker, params: dict[str, Any]) -> int:
    """Redraw until Ctrl-C; a daemon that is away for a while is a line in the picture."""
    from rich.live import Live
    from rich.text import Text

    picture = _picture(broker.call("status", **params), time.time())
    with Live(picture, console=_console(), auto_refresh=False) as live:
        while True:
            time.sleep(PAUSE)
            try:
                picture = _picture(broker.call("status", **params), time.time())
            except BrokerError as error:
                picture = Text(plain(error.message), style="red")
            live.update(picture, refresh=True)


def _console() -> Any:
    from rich.console import Console

    wide = None if sys.stdout is not None and sys.stdout.isatty() else WIDE
    return Console(markup=False, highlight=False, width=wide)


def _picture(found: dict[str, Any], now: float) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from brokerd.edge.clock import lasting

    daemon = found["daemon"]
    parts: list[Any] = []
    if found["grants"]:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("GRANT", "PROVIDER", "STATE", "EXPIRES", "NEXT RENEWAL"):
            table.add_column(name, no_wrap=name == "STATE", overflow="fold")
        table.add_column("NOTES", overflow="fold")
        for grant in found["grants"]:
            table.add_row(*_row(grant, now))
        parts.append(table)
    else:
        parts.append(Text("no grants that you may see"))
    running = f"brokerd {daemon['version']}, pid {daemon['pid']}, started {away(daemon['started_at'] - now)}"
    parts.append(Text(plain(running), style="dim"))
    if daemon["locked"]:
        parts.append(
            Text(called("the keys are locked and nothing is served; to serve again: brokerctl unlock"), style="red")
        )
    if (since := daemon.get("resealing_since")) is not None:
        words = f"key rotate --full has not come to its end {lasting(since, now)}; it goes on by itself"
        parts.append(Text(words, style="yellow"))
    for name, words in (("store", "store"), ("audit", "audit log")):
        if daemon.get(name):
            since = daemon.get(f"{name}_since")
            when = f" (failing {lasting(since, now)})" if since is not None else ""
            parts.append(Text(f"{words}: {plain(daemon[name])}{when}", style="red"))
    return Group(*parts)


def _row(grant: dict[str, Any], now: float) -> list[Any]:
    from rich.text import Text

    state = plain(grant["state"])
    cells = [Text(plain(grant["name"])), Text(plain(grant["provider"])), Text(state, style=COLOURS.get(state, ""))]
    cells += [Text(_moment(grant[key], now)) for key in ("expires_at", "next_renewal_at")]
    cells.append(Text("; ".join(_notes(grant, now))))
    return cells


def _failing(grant: dict[str, Any], now: float) -> str:
    """Since when, and how often."""
    from brokerd.edge.clock import lasting

    since, number = grant.get("failing_since"), grant["failures"]  # an older brokerd does not say since when
    times = f"{number} failures, the last: " if number > 1 else ""
    return f"failing {lasting(since, now)}: {times}" if since is not None else times


def _revoked(grant: dict[str, Any], now: float) -> str:
    """Since when."""
    from brokerd.edge.clock import lasting

    since = grant.get("revoked_at")  # an older brokerd does not say since when
    return f"revoked {lasting(since, now)}; " if since is not None else ""


def _moment(at: float | None, now: float) -> str:
    return "–" if at is None else away(at - now)


def _notes(grant: dict[str, Any], now: float) -> list[str]:
    """What a person should know besides, the most important first."""
    notes = []
    if verified := grant.get("verified"):
        notes.append(plain(verified["detail"]))
    if grant["unstored"]:
        notes.append("the newest tokens are in memory only")
    if grant["interrupted"] is not None:
        from brokerd.edge.clock import lasting

        notes.append(f"an exchange is unanswered {lasting(grant['interrupted'], now)}")
    notes += [plain(each) for each in grant.get("notes", ())]
    if number := grant.get("pending_revocations"):
        notes.append(f"{number} still to be revoked at the provider")
    if dropped := grant.get("scope_dropped"):
        notes.append(plain(f"its provider did not grant the scope {' '.join(dropped)}"))
    if (ends := grant["refresh_expires_at"]) is not None:
        notes.append(f"refresh token expires {away(ends - now)}")
    if grant["last_error"]:
        notes.append(plain(f"{_failing(grant, now)}{grant['last_error']}"))
    if grant["state"] == "revoked":
        again = " or ".join(f"brokerctl {command} {plain(grant['name'])}" for command in ("login", "import"))
        notes.append(called(f"{_revoked(grant, now)}nothing is served; to use it again: {again}"))
    if remedy := grant.get("remedy"):
        notes.append(f"to fix: {called(plain(remedy))}")
    return notes
