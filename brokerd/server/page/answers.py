# The answers of HTTP that make the page: the whole of it, the fragment that live.js asks for, and its files. All of
# them have headers that allow a browser nothing but what is ours.
from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import trio

from brokerd.core.grant import condition
from brokerd.core.grant.condition import Grant
from brokerd.server.http.messages import Written
from brokerd.server.page import document
from brokerd.server.page.document import OTHERS, PROBLEMS, SCALES, Found
from brokerd.server.page.markup import Html
from brokerd.server.page.timeline import Axis, axis

HTML = "text/html; charset=utf-8"
HEADERS = {
    "Content_Security_Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer_Policy": "no-referrer",
    "Cross_Origin_Opener_Policy": "same-origin",
    "Cross_Origin_Resource_Policy": "same-origin",
}
TURN = 10  # grants that are drawn before other callers have their turn: they take about 3 ms


async def page(found: Found, scale: str = document.NORMAL) -> Written:
    """The whole page."""
    on = axis(time.time(), SCALES[scale])
    ordered = sorted(found["grants"], key=lambda grant: condition.order(grant, on.now))
    number = sum(condition.is_problem(grant, on.now) for grant in ordered)
    pieces = [
        document.head(on, scale, number),
        document.top(found, on),
        document.tools(scale),
        Html('<main id="main">\n'),
    ]
    for kind, grants in ((PROBLEMS, ordered[:number]), (OTHERS, ordered[number:])):
        begin, end = document.table(kind, len(grants), on)
        pieces += [begin, *await _rows(grants, found, on), end]
    pieces += [*_rest(found, on), document.marks(), Html("</main></body>\n</html>\n")]
    return _written(pieces)


async def fragment(found: Found, scale: str = document.NORMAL) -> Written:
    """The named grants, and all that is not a grant."""
    on = axis(time.time(), SCALES[scale])
    rows = await _rows(found["grants"], found, on)
    begin = Html(f'<!doctype html>\n<body data-start="{on.start:.0f}">')
    return _written([begin, document.top(found, on), Html("<table>"), *rows, Html("</table>"), *_rest(found, on)])


async def _rows(grants: Iterable[Grant], found: Found, on: Axis) -> list[Html]:
    rows, providers = [], {each["name"]: each for each in found["providers"]}
    for number, grant in enumerate(grants, 1):
        rows.append(document.grant_row(grant, on, providers.get(grant["provider"])))
        if number % TURN == 0:
            await trio.lowlevel.checkpoint()
    return rows


def _rest(found: Found, on: Axis) -> list[Html]:
    return [document.providers(found, on.now), document.events(found, on.now), document.daemon(found, on.now)]


def _written(pieces: Iterable[Html]) -> Written:
    return Written(HTML, "".join(pieces).encode(), HEADERS)


def asset(name: str, content_type: str) -> Callable[[object], Written]:
    """What answers with a file of this folder."""
    written = Written(content_type, Path(__file__).with_name(name).read_bytes(), HEADERS)
    return lambda _found: written
