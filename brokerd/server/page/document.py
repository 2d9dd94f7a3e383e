# The page as HTML: its sections, and the rows of its tables. live.js replaces what has an id, and the rows of grants;
# so a fragment has the same elements as the page.
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from brokerd.core.grant import condition
from brokerd.core.grant.condition import ORDER, Grant, Tone
from brokerd.core.timing.duration import in_words
from brokerd.server.page import facts, words
from brokerd.server.page.markup import Html, foreign, joined, tag
from brokerd.server.page.timeline import Axis, backdrop, legend, picture

SCALES = {"2h": 1_200, "12h": 7_200, "3d": 43_200}  # by what `as` says in the query: seconds of a cell
NORMAL = "12h"
PROBLEMS, OTHERS = "problems", "others"
TABLES = {  # of grants: the title, and what is said if it is empty
    PROBLEMS: ("Problems", "No grant has a problem."),
    OTHERS: ("Other grants", "There is no other grant that you may see."),
}
Found = Mapping[str, Any]  # the answer of the method `overview`


def head(on: Axis, scale: str, problems: int) -> Html:
    """All before the tables of grants. The title, which a tab shows, says whether to look."""
    title = f"brokerd: {words.number(problems, 'problem')}" if problems else "brokerd"
    return Html(
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">{tag("title", title)}'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
        '<link rel="icon" href="page/icon.svg"><link rel="stylesheet" href="page/style.css">'
        '<script src="page/live.js" defer></script></head>\n'
        f'<body data-scale="{scale}" data-start="{on.start:.0f}">'
        '<a class="skip" href="#main">Skip to the grants</a>\n'
    )


def top(found: Found, on: Axis) -> Html:
    """What one look must see: the counts, and what is wrong with brokerd itself."""
    now = on.now
    trouble = [tag("li", each) for each in facts.troubles(found["daemon"], found["providers"], now)]
    return joined(
        Html("<header><h1>brokerd</h1>"),
        tag("p", condition.counted(found["states"]), id="counts", role="status", class_=_worst(found["states"])),
        tag("ul", *trouble, id="trouble", role="alert"),
        tag("p", "as of ", words.moment(now, now), f" {words.zone(now)}", id="made"),
        tag("p", id="old", role="status"),
        tag("div", backdrop(on), id="drawn"),
        tag("noscript", tag("p", "Without JavaScript this page does not change. Load it again for newer facts.")),
        Html("</header>\n"),
    )


def _worst(states: Mapping[str, int]) -> str:
    tones = [condition.kind_of(state).tone for state, number in states.items() if number]
    return min(tones, key=ORDER.index, default=Tone.OFF)


def tools(scale: str) -> Html:
    """The filter, which live.js shows, and other scales of the pictures."""
    scales = [
        tag("a", each, href=f"?as={each}", aria_current="true" if each == scale else None, aria_label=f"show {each}")
        for each in SCALES
    ]
    sections = [
        tag("a", each, href=f"#{each.lower()}") for each in ("Problems", "Others", "Providers", "Events", "Daemon")
    ]
    box = Html('<input id="filter" type="search" autocomplete="off" spellcheck="false">')
    field = joined(tag("label", "Filter ", box), " ", tag("span", id="shown", role="status"))
    return joined(
        tag("nav", *sections, aria_label="Sections"),
        tag("div", tag("div", field, id="tools", hidden=True), tag("nav", *scales, aria_label="Hours"), class_="tools"),
    )


def table(kind: str, number: int, on: Axis) -> tuple[Html, Html]:
    """A table of grants, before and after its rows."""
    labels = tag("span", *(tag("span", each) for each in on.labels()), class_="axis", aria_hidden="true")
    hours = joined(tag("span", "Last and coming hours", class_="unseen"), labels)
    heads = (("grant", "Grant"), ("state", "State"), ("hours", hours), ("token", "Token"))
    cells = [tag("th", words, scope="col", role="columnheader", class_=name) for name, words in heads]
    head = tag("thead", tag("tr", *cells, role="row"), role="rowgroup")
    title, empty = TABLES[kind]
    heading = tag("h2", f"{title} (", tag("span", f"{number}", class_="number"), ")", id=f"{kind}-title")
    return (
        Html(
            f'<section id="{kind}" aria-labelledby="{kind}-title">{heading}'
            f'<table class="grants" role="table" aria-labelledby="{kind}-title">{head}\n'
        ),
        Html(f'</table><p class="empty">{empty}</p></section>\n'),
    )


def grant_row(grant: Grant, on: Axis, provider: facts.Provider | None = None) -> Html:
    """One grant: a row, and a second one if there is something to say about it. `provider`: its own."""
    now = on.now
    tone, kind = condition.tone(grant, now), condition.kind_of(condition.shown_state(grant))
    sign = tag("span", tone.sign, class_="sign", aria_hidden="true")
    first = tag(
        "tr",
        tag("th", foreign(grant["name"]), tag("small", foreign(grant["provider"])), scope="row", role="rowheader"),
        tag("td", sign, kind.words, class_="state", role="cell"),
        tag("td", picture(grant, on, provider), class_="hours", role="cell"),
        tag("td", *(tag("span", each) for each in facts.token(grant, now)), class_="token", role="cell"),
        role="row",
    )
    said = [tag("p", each) for each in facts.notes(grant, now, provider)]
    if (remedy := facts.remedy(grant, now)) is not None:
        said.append(tag("p", remedy, class_="remedy"))
    second = tag("tr", tag("td", *said, colspan=4, role="cell"), class_="notes", role="row") if said else None
    rank = 2 * condition.order(grant, now)[0] + condition.order(grant, now)[1]
    place = PROBLEMS if condition.is_problem(grant, now) else OTHERS
    return joined(
        tag(
            "tbody",
            first,
            second,
            class_=tone,
            data_grant=grant["name"],
            data_rank=rank,
            data_in=place,
            role="rowgroup",
        ),
        Html("\n"),
    )


def providers(found: Found, now: float) -> Html:
    rows = [_provider(each, now) for each in found["providers"]]
    body = _plain_table(("Provider", "State", "Answers within", "Exchanges"), rows)
    return _section("providers", "Providers", body if rows else tag("p", "There is none that you may see."))


def _provider(provider: facts.Provider, now: float) -> Html:
    tone = Tone.OFF if provider["last_ok_at"] is None else Tone.GOOD
    if facts.is_down(provider):
        tone = Tone.WARN if provider["breaker_open_until"] is None else Tone.BAD
    sign = tag("span", tone.sign, class_="sign", aria_hidden="true")
    return tag(
        "tr",
        tag("th", foreign(provider["name"]), scope="row"),
        tag("td", sign, facts.about_provider(provider, now)),
        tag("td", _latency(provider)),
        tag("td", f"{provider['busy']} of {provider['concurrency']} at once; {provider['queued']} wait"),
        class_=tone,
    )


def _latency(provider: Mapping[str, Any]) -> str:
    half, most = provider["latency_p50"], provider["latency_p99"]
    if half is None or most is None:
        return "–"
    return f"{_seconds(half)} (half), {_seconds(most)} (99 %) of the last {provider['latency_of']}"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def events(found: Found, now: float) -> Html:
    shown: Sequence[Mapping[str, Any]] = found["events"]
    rows = [_event(each, now) for each in shown]
    body = _plain_table(("Time", "Event", "Grant", "What"), rows)
    return _section("events", "Last events", body if rows else tag("p", "There is none that you may see."))


def _event(event: Mapping[str, Any], now: float) -> Html:
    times = f" ({event['count']} times, the last then)" if event["count"] > 1 else ""
    about = [foreign(each) for each in (event["provider"], event["reason"] or event["outcome"]) if each]
    if event.get("who"):
        about.append(joined("by ", foreign(event["who"])))
    return tag(
        "tr",
        tag("td", words.moment(event["at"], now)),
        tag("td", foreign(event["event"].replace("_", " ")), times),
        tag("td", foreign(event["grant"] or "–")),
        tag("td", Html("; ".join(about))),
    )


def daemon(found: Found, now: float) -> Html:
    """What brokerd says about itself."""
    own = found["daemon"]
    started = own["started_at"]
    pairs = (
        ("Version", joined(own["version"])),
        (
            "Runs",
            joined(f"as process {own['pid']} since ", words.moment(started, now), f", {in_words(now - started)}"),
        ),
        ("Locked", joined("yes" if own["locked"] else "no")),
        ("Store", _health(own, "store", now)),
        ("Audit log", _health(own, "audit", now)),
    )
    rows = [part for name, value in pairs for part in (tag("dt", name), tag("dd", value))]
    if own["resealing_since"] is not None:
        said = joined("not finished", facts.since(own["resealing_since"], now), "; it goes on by itself")
        rows += [tag("dt", "New keys"), tag("dd", said)]
    return _section("daemon", "brokerd itself", tag("dl", *rows))


def _health(own: Mapping[str, Any], key: str, now: float) -> Html:
    if own[key] is None:
        return joined("in order")
    return joined("fails", facts.since(own[f"{key}_since"], now), ": ", foreign(own[key]))


def marks() -> Html:
    pairs = [tag("li", shape, said) for shape, said in legend()]
    signs = [tag("li", tag("span", tone.sign, class_=f"sign {tone}"), said) for tone, said in SIGNS.items()]
    return _section("legend", "What the marks mean", tag("ul", *signs, *pairs, class_="legend"))


SIGNS = {
    Tone.BAD: "somebody must act, or there is no token",
    Tone.WARN: "it fails, and the living token is still served",
    Tone.GOOD: "it works",
    Tone.OFF: "switched off by a person",
}


def _section(name: str, title: str, body: Html) -> Html:
    heading = tag("h2", title, id=f"{name}-title")
    return joined(tag("section", heading, body, id=name, aria_labelledby=f"{name}-title"), Html("\n"))


def _plain_table(columns: Iterable[str], rows: Iterable[Html]) -> Html:
    heads = tag("thead", tag("tr", *(tag("th", each, scope="col") for each in columns)))
    return tag(
        "div", tag("table", heads, tag("tbody", *rows)), class_="wide", tabindex="0", role="region", aria_label="table"
    )
