# The fleet command: the hosts of the fleet, who has an exchange under way, and how etcd is; or as JSON for programs.
from __future__ import annotations

import os
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from brokerd_client import Broker

from brokerd.core.grant.condition import Tone
from brokerd.ctl.status.look import Look, cells, look_of_output, padded
from brokerd.ctl.status.sentences import about_fleet
from brokerd.ctl.terminal import called, complain, plain, span, write, write_json

NO_FLEET = 3  # the exit code
FAILING, ACT = 4, 5  # exit codes with --exit-code, as those of status
ALONE = "this brokerd belongs to no fleet: its configuration has no table [store]; what that is: man brokerd.toml"
SKEWED = 1.0  # seconds between our clock and another host's that are worth a word
ADOPT = "etcd is another one than before, or was restored from a snapshot, so no stored token is sent"


def fleet(broker: Broker, arguments: Namespace) -> int:
    """Show it once."""
    found = broker.call("fleet")
    if arguments.json:
        write_json(found)
    if found["fleet"] is None:
        complain(ALONE)
        return NO_FLEET
    now = time.time()
    said = list(_troubles(found, now))
    if not arguments.json:
        for line in _lines(found, said, now, look_of_output(os.environ)):
            write(line)
    tones = {tone for tone, _ in said} if arguments.exit_code else set[Tone]()
    return ACT if Tone.BAD in tones else FAILING if Tone.WARN in tones else 0


def _troubles(found: Mapping[str, Any], now: float) -> Iterator[tuple[Tone, list[str]]]:
    if not found["etcd"]["adopted"]:
        yield Tone.BAD, [ADOPT, called("to fix: make sure that this etcd is the right one, then: brokerctl adopt")]
    yield from about_fleet({**found["etcd"], "fleet": found["fleet"]}, now)


def _lines(found: Mapping[str, Any], said: Sequence[tuple[Tone, list[str]]], now: float, look: Look) -> Iterator[str]:
    for tone, (first, *rest) in said:
        head, *more = look.wrapped(first, 2)
        yield f"{look.sign(tone)} {look.paint(head[2:], tone)}"
        yield from more
        for each in rest:
            yield from look.wrapped(each, 2)
    if said:
        yield ""
    etcd, members = found["etcd"], found["members"]
    number = f"{len(members)} host{'' if len(members) == 1 else 's'}"
    yield from look.wrapped(plain(f"fleet {found['fleet']}, {number}; this host is {found['host']}"), 0, 2)
    if etcd["reachable"]:
        about = f"etcd {etcd['endpoint']} answers; cluster {etcd['cluster']:x}, revision {etcd['revision']}"
        yield from look.wrapped(plain(about), 0, 2)
    yield ""
    yield from _table(("HOST", "RELEASE", "SCHEMA", "JOINED", "CLOCK"), [_member(each, now) for each in members], look)
    under_way = [(each["grant"], each["host"], _ago(each["since"], now)) for each in found["claims"]]
    yield from _listed("Exchanges under way", under_way, look)
    lost = [(e["grant"], e["host"], _ago(e["since"], now)) for e in found["open_exchanges"] if not e["claimed"]]
    yield from _listed("Interrupted: the stored token may have been sent, and no host knows the answer", lost, look)


def _listed(heading: str, rows: Sequence[tuple[str, ...]], look: Look) -> Iterator[str]:
    if rows:
        yield ""
        yield look.paint(heading, "heading")
        yield from _table(("GRANT", "HOST", "SINCE"), rows, look)


def _member(member: Mapping[str, Any], now: float) -> tuple[str, ...]:
    host = f"{member['host']} (this one)" if member["is_self"] else member["host"]
    return host, member["release"], str(member["schema"]), _ago(member["since"], now), _clock(member["clock"])


def _clock(ahead: float | None) -> str:
    if ahead is None:
        return ""
    return "same" if abs(ahead) < SKEWED else f"{span(ahead)} {'ahead' if ahead > 0 else 'behind'}"


def _ago(at: float, now: float) -> str:
    """By the other host's clock, which may be ahead of ours."""
    return f"{span(now - at)} ago" if at <= now else "now"


def _table(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]], look: Look) -> Iterator[str]:
    shown = [tuple(plain(each) for each in row) for row in rows]
    widths = [max(cells(each) for each in column) for column in zip(heading, *shown, strict=True)]
    for number, row in enumerate((heading, *shown)):
        line = "  ".join(padded(each, width) for each, width in zip(row, widths, strict=True)).rstrip()
        yield look.paint(line, "heading") if number == 0 else line
