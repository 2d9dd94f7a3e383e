# brokerctl status of many grants: what is wrong with brokerd and its providers, then a row for each grant, the worst
# first, and at the end the counts. Text only, a few microseconds for each grant: there may be ten thousand.
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

from brokerd_client.errors import BrokerError

from brokerd.core.grant.condition import ORDER, PROBLEMS, Grant, Tone, counts, kind_of, order, serves, shown_state
from brokerd.ctl.status.bar import bar
from brokerd.ctl.status.look import UNWRAPPED, Look, cells, padded
from brokerd.ctl.status.sentences import about_daemon, about_grant, about_provider, is_down
from brokerd.ctl.terminal import called, plain, span

Answer = Mapping[str, Any]  # of the method `status`
GAP = "  "
INDENT = 4  # columns before the sentences about a grant
IN_FULL = 20  # so many problems are told in full; if there are more, each is one line
NAME_LEAST = 12  # columns
UNKNOWN = "expiry unknown"
MOST_NAMES = 0.9  # so many names fit into their column; the others are above their row
WIDE = 110  # columns from which there is room for when refresh tokens end
BARS = ((150, 30), (100, 20), (76, 12), (58, 8), (0, 0))  # columns of the terminal, and of the bar


class Table(NamedTuple):
    """The widths of the columns; 0: it is left out."""

    look: Look
    name: int
    state: int
    token: int
    provider: int
    refresh: bool


def overview(found: Answer, now: float, look: Look, *, problems: bool = False) -> list[str]:
    """The lines. `problems`: of the grants only those that have one."""
    return [*troubles(found, now, look), *body(found, now, look, problems=problems), *ending(found, now, look)]


def troubles(found: Answer, now: float, look: Look) -> list[str]:
    """What is wrong with brokerd itself, and which providers are down."""
    lines = troubles_of_daemon(found["daemon"], now, look)[:-1]
    for provider in found.get("providers", ()):
        if is_down(provider):
            lines += _marked(look, Tone.WARN, about_provider(provider, now))
    return [*lines, ""] if lines else []


def troubles_of_daemon(daemon: Mapping[str, Any], now: float, look: Look) -> list[str]:
    """What is wrong with brokerd itself, and an empty line; nothing if all is well."""
    lines = [line for shown, words in about_daemon(daemon, now) for line in _marked(look, shown, words)]
    return [*lines, ""] if lines else []


def body(found: Answer, now: float, look: Look, *, problems: bool = False) -> list[str]:
    """The heading and the grants."""
    shown = sorted(((order(grant, now), grant) for grant in found["grants"]), key=itemgetter(0))
    rows = [(ORDER[place], grant) for (place, *_), grant in shown]
    number = sum(how_bad in PROBLEMS for how_bad, _ in rows)
    if problems:
        rows = [each for each in rows if each[0] in PROBLEMS]
    if not rows:
        return ["no grant has a problem" if found["grants"] else "there are no grants that you may see"]
    table = _table([grant for _, grant in rows], look)
    lines = [look.paint(_heading(table), "heading")]
    for how_bad, grant in rows:
        lines += _row(grant, now, table, how_bad)
        lines += _sentences(grant, now, look, None if number <= IN_FULL else 1)
    return lines


def ending(found: Answer, now: float, look: Look) -> list[str]:
    """brokerd, and the counts."""
    daemon = found["daemon"]
    age = span(now - daemon["started_at"])
    about = plain(f"brokerd {daemon['version']}, pid {daemon['pid']}, started {age} ago")
    if (fleet := daemon.get("fleet")) is not None:
        about = plain(f"{about}; {fleet['host']} of the fleet {fleet['fleet']}")
    return [look.paint(about, "dim"), *look.wrapped(counts(found["grants"]), 0)]


def _marked(look: Look, shown: Tone, words: Sequence[str]) -> Iterator[str]:
    """A sentence behind its sign, and what to do on a line of its own."""
    first, *rest = (line for each in words for line in look.wrapped(each, 2))
    yield f"{look.sign(shown)} {look.paint(first[2:], shown)}"
    yield from rest


def _table(grants: Sequence[Grant], look: Look) -> Table:
    columns = WIDE if look.columns == UNWRAPPED else look.columns
    state = max(len(kind_of(shown_state(grant)).words) for grant in grants)
    provider = max(len(grant["provider"]) for grant in grants)
    refresh = columns >= WIDE and any(grant["refresh_expires_at"] is not None for grant in grants)
    token = next(width for least, width in BARS if columns >= least) + len(" 23h 59m ")
    lengths = sorted(max(len("GRANT"), len(grant["name"])) for grant in grants)
    if look.columns == UNWRAPPED:
        return Table(look, lengths[-1], state, token, provider, refresh)
    name = max(NAME_LEAST, lengths[int(MOST_NAMES * (len(lengths) - 1))])
    left = columns - 2 - 3 * len(GAP) - state - token - len("NEXT IN")
    left -= len(GAP) + len("REFRESH TOKEN") if refresh else 0
    has_room = left - len(GAP) - provider >= min(name, 2 * NAME_LEAST)
    left -= len(GAP) + provider if has_room else 0
    return Table(look, max(NAME_LEAST, min(name, left)), state, token, provider if has_room else 0, refresh)


def _heading(table: Table) -> str:
    parts = [f"  {'GRANT':<{table.name}}", f"{'STATE':<{table.state}}", f"{'TOKEN':<{table.token}}", "NEXT IN"]
    parts += ["REFRESH TOKEN"] if table.refresh else []
    return GAP.join([*parts, "PROVIDER"] if table.provider else parts)


def _row(grant: Grant, now: float, table: Table, how_bad: Tone) -> Iterator[str]:
    look = table.look
    name, state = plain(grant["name"]), _state(look, shown_state(grant), table.state, how_bad)
    if cells(name) > table.name:  # nothing of a name is cut: people copy it
        yield f"{_sign(look, how_bad)} {name}"
        first = " " * (2 + table.name)
    else:
        first = f"{_sign(look, how_bad)} {padded(name, table.name)}"
    parts = [first, state, _token(grant, now, table, how_bad), f"{_next(grant, now, look):<7}"]
    if table.refresh:
        ends = grant["refresh_expires_at"]
        parts.append(f"{'' if ends is None else span(ends - now) if ends > now else 'expired':<13}")
    if table.provider:
        parts.append(_provider(look, grant["provider"]))
    yield GAP.join(parts).rstrip()


# What many rows have in common is made once.


@cache
def _sign(look: Look, how_bad: Tone) -> str:
    return look.sign(how_bad)


@cache
def _state(look: Look, state: str, width: int, how_bad: Tone) -> str:
    return look.paint(padded(plain(kind_of(state).words), width), how_bad)


@cache
def _provider(look: Look, name: str) -> str:
    return look.paint(plain(name), "dim")


def _token(grant: Grant, now: float, table: Table, how_bad: Tone) -> str:
    look, ends = table.look, grant["expires_at"]
    if not serves(grant, now):
        return look.paint(f"{'no token':<{table.token}}", how_bad if how_bad is Tone.BAD else "dim")
    if ends is None:
        return f"{'unknown' if table.token < len(UNKNOWN) else UNKNOWN:<{table.token}}"
    left = f"{span(ends - now):<8}"
    width = table.token - len(left) - 1
    return f"{bar(grant, now, look, width, how_bad)} {left}" if width else f"{left} "


def _next(grant: Grant, now: float, look: Look) -> str:
    at = grant["next_renewal_at"]
    if at is None:
        return "–" if look.utf8 else "-"
    return span(at - now) if at > now else "now"


def _sentences(grant: Grant, now: float, look: Look, lines: int | None) -> Iterator[str]:
    for words in about_grant(grant, now):
        if words.is_remedy:
            yield from (look.paint(line, "remedy") for line in look.wrapped(called(words.text), INDENT, 2))
        else:
            yield from look.wrapped(words.text, INDENT, 2, lines)


def error_lines(error: BrokerError, look: Look) -> list[str]:
    """Instead of everything else, while the daemon does not answer."""
    return [look.paint(line, Tone.BAD) for line in look.wrapped(plain(error.message), 0)]
