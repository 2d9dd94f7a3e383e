# The picture of a grant: its last and coming hours as a small SVG. All grants share one axis, so that an outage is the
# same band in every row. Pure: numbers in, SVG out; no text of others is in it but what markup.py has escaped.
from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brokerd.core.shortened import shortened
from brokerd.server.page import words
from brokerd.server.page.markup import Html, joined, tag, text

WIDTH, HEIGHT, CELLS = 540, 28, 9  # the units of the picture; the page scales it
MIDDLE = HEIGHT / 2
EDGE = 4.0  # units that a mark needs on both sides
LONGEST = 160  # characters of a reason that a mark's title shows
NARROWEST = 3.0  # units of a band that can be seen


@dataclass(frozen=True, slots=True)
class Axis:
    """What a picture shows, in Unix seconds: CELLS times `step`, from a whole step of the daemon's time zone on."""

    start: float
    step: float
    now: float

    @property
    def end(self) -> float:
        return self.start + CELLS * self.step

    def x(self, at: float) -> float:
        """Where a moment stands; one outside stands at the border."""
        return round(WIDTH * min(1.0, max(0.0, (at - self.start) / (self.end - self.start))), 1)

    def shows(self, at: float | None) -> bool:
        return at is not None and self.start <= at <= self.end

    def labels(self) -> Iterable[str]:
        """The time at the beginning of each cell; at midnight the day."""
        for number in range(CELLS):
            there = time.localtime(self.start + number * self.step)
            yield time.strftime("%a" if (there.tm_hour, there.tm_min) == (0, 0) else "%H:%M", there)


def axis(now: float, step: float) -> Axis:
    """The last six steps at least, and the coming two."""
    offset = time.localtime(now).tm_gmtoff
    start = (now + offset - 6 * step) // step * step - offset
    return Axis(start, step, now)


def backdrop(on: Axis) -> Html:
    """What all pictures have in common, once in a page: the cells, the future, now, and how an outage is filled."""
    cell = WIDTH / CELLS
    grid = "".join(f"M{round(number * cell, 1):g} 0v{HEIGHT}" for number in range(1, CELLS))
    x = on.x(on.now)
    stripes = '<pattern id="stripes" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    return Html(
        f'<svg class="unseen" width="0" height="0" aria-hidden="true"><defs>{stripes}<path class="stripe" d="M0 0v5"/>'
        f'</pattern><symbol id="backdrop" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f'<rect class="future" x="{x}" width="{round(WIDTH - x, 1)}" height="{HEIGHT}"/>'
        f'<path class="grid" d="{grid}"/><path class="now" d="M{x} 0v{HEIGHT}"/></symbol></defs></svg>'
    )


def picture(grant: Mapping[str, Any], on: Axis, provider: Mapping[str, Any] | None = None) -> Html:
    """The picture of one grant, as `overview` shows the grant and its provider."""
    down = () if provider is None else _down(provider, on)
    history = [
        row for row in grant["history"] if not succeeded(row) or (row["outcome"] == "issued" and not row["target"])
    ]
    shapes = joined(
        *down, *_bands(grant, history, on), *_life(grant, history, on), *_exchanges(history, on), *_next(grant, on)
    )
    label = tag("title", summary(grant, history, on.now))
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
    return Html(
        f'<svg class="line" {size}>{label}<use href="#backdrop" width="{WIDTH}" height="{HEIGHT}"/>{shapes}</svg>'
    )


def summary(grant: Mapping[str, Any], history: Sequence[Mapping[str, Any]], now: float) -> str:
    """The picture in words, for those who do not see it."""
    parts = []
    if (last := _newest(history, True)) is not None:
        parts.append(f"last success {words.away(last['last'], now)}")
    if (since := grant["failing_since"]) is not None:
        parts.append(f"failing since {words.clock(since, now)}")
    elif (failed := _newest(history, False)) is not None:
        parts.append(f"last failure {words.away(failed['last'], now)}")
    if (ends := grant["expires_at"]) is not None:
        parts.append(f"{'expires' if ends > now else 'expired'} {words.away(ends, now)}")
    if (at := grant["next_renewal_at"]) is not None:
        parts.append(f"next exchange {words.away(max(at, now), now)}")
    return "; ".join(parts) or "nothing has happened yet"


def succeeded(row: Mapping[str, Any]) -> bool:
    return row["outcome"] in ("issued", "done")


def _newest(history: Iterable[Mapping[str, Any]], success: bool) -> Mapping[str, Any] | None:
    return next((row for row in history if succeeded(row) is success), None)


def _down(provider: Mapping[str, Any], on: Axis) -> Iterable[Html]:
    """Since when the provider fails, whether the grant has noticed or not."""
    if (since := provider["failing_since"]) is not None:
        x, width = on.x(since), max(NARROWEST, on.x(on.now) - on.x(since))
        said = tag("title", f"the provider fails since {words.clock(since, on.now)}")
        yield Html(f'<rect class="down" x="{x}" y="0" width="{width:.1f}" height="{HEIGHT}">{said}</rect>')


def _bands(grant: Mapping[str, Any], history: Iterable[Mapping[str, Any]], on: Axis) -> Iterable[Html]:
    """Where it failed for longer than a moment: rows of equal failures, and since the first failure until now."""
    spans = [(row["at"], row["last"], _said(row, on.now)) for row in history if not succeeded(row) and row["count"] > 1]
    if (since := grant["failing_since"]) is not None:
        spans.append((since, on.now, f"failing since {words.clock(since, on.now)}"))
    for begin, end, said in spans:
        if end >= on.start and (width := on.x(end) - on.x(begin)) >= NARROWEST:
            box = f'x="{on.x(begin)}" y="2" width="{width:.1f}" height="{HEIGHT - 4}"'
            yield Html(f'<rect class="outage" fill="url(#stripes)" {box}>{tag("title", said)}</rect>')


def _life(grant: Mapping[str, Any], history: Iterable[Mapping[str, Any]], on: Axis) -> Iterable[Html]:
    """The living token as a bar, solid until now; before it, a line since the oldest success that is known."""
    issued, ends, now = grant["issued_at"], grant["expires_at"], on.now
    times = [row["at"] for row in history if succeeded(row)]
    oldest, newest = min(times, default=now), issued or max(times, default=now)
    if oldest < newest > on.start:
        yield Html(f'<path class="before" d="M{on.x(oldest)} {MIDDLE:g}H{on.x(newest)}"/>')
    if issued is None or (ends is not None and ends < on.start):
        return
    last = on.end if ends is None else ends
    yield _bar("lived", issued, min(now, last), on)
    if last > now:
        yield _bar("lives", max(now, issued), last, on)
    if on.shows(ends):
        yield Html(f'<path class="ends" d="M{on.x(last)} 5v18"/>')
    elif last >= on.end:
        yield Html(f'<path class="beyond" d="M{WIDTH - 7} 9l5 5l-5 5"/>')


def _bar(kind: str, begin: float, end: float, on: Axis) -> Html:
    return Html(f'<rect class="{kind}" x="{on.x(begin)}" y="10" width="{on.x(end) - on.x(begin):.1f}" height="8"/>')


def _exchanges(history: Iterable[Mapping[str, Any]], on: Axis) -> Iterable[Html]:
    """A stroke for each success, a cross for each failure; equal failures have one at both ends."""
    strokes = []
    for row in history:
        if succeeded(row):
            if on.shows(row["last"]):
                strokes.append(f"M{on.x(row['last'])} 7v14")
            continue
        crosses = "".join(
            f"M{_inside(on.x(at)) - 3:.1f} {MIDDLE - 3:g}l6 6m0-6l-6 6"
            for at in dict.fromkeys((row["at"], row["last"]))
            if on.shows(at)
        )
        if crosses:
            yield Html(f'<path class="failed" d="{crosses}">{tag("title", _said(row, on.now))}</path>')
    if strokes:
        yield Html(f'<path class="ok" d="{"".join(strokes)}"/>')


def _next(grant: Mapping[str, Any], on: Axis) -> Iterable[Html]:
    """An open circle at the next exchange."""
    if on.shows(at := grant["next_renewal_at"]):
        x = _inside(on.x(max(at, on.now)))
        yield Html(f'<circle class="next" cx="{x:g}" cy="{MIDDLE:g}" r="4"/>')


def _inside(x: float) -> float:
    """A mark at the border is whole."""
    return min(WIDTH - EDGE, max(EDGE, x))


def _said(row: Mapping[str, Any], now: float) -> str:
    when = words.clock(row["at"], now)
    if row["count"] > 1:
        when = f"{row['count']} times, {when} to {words.clock(row['last'], now)}"
    reason = shortened(row["reason"] or row["outcome"], LONGEST)
    return f"{row['operation']} failed, {when}: {reason}"


def legend() -> Iterable[tuple[Html, str]]:
    """Each mark, and what it means."""
    middle = f"{MIDDLE:g}"
    marks = (
        ('<path class="ok" d="M20 7v14"/>', "a token was issued or renewed"),
        (f'<path class="failed" d="M17 {MIDDLE - 3:g}l6 6m0-6l-6 6"/>', "an exchange failed"),
        ('<rect class="outage" fill="url(#stripes)" x="4" y="2" width="32" height="24"/>', "failing all that time"),
        (f'<rect class="down" x="4" y="0" width="32" height="{HEIGHT}"/>', "its provider has failed since then"),
        (f'<path class="before" d="M4 {middle}H36"/>', "earlier tokens"),
        ('<rect class="lived" x="4" y="10" width="32" height="8"/>', "the token's life so far"),
        ('<rect class="lives" x="4" y="10" width="32" height="8"/>', "its life to come"),
        (f'<circle class="next" cx="20" cy="{middle}" r="4"/>', "the next renewal or try"),
        ('<path class="ends" d="M20 5v18"/>', "the token expires"),
        ('<path class="beyond" d="M17 9l5 5l-5 5"/>', "it lives longer than the picture shows"),
        (f'<path class="now" d="M20 0v{HEIGHT}"/>', "now"),
    )
    for shape, said in marks:
        yield Html(f'<svg class="mark" viewBox="0 0 40 {HEIGHT}" aria-hidden="true">{shape}</svg>'), text(said)
