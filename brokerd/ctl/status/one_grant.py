# brokerctl status GRANT: everything about one grant, what comes next and why, and its last exchanges.
from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from brokerd.core.grant.condition import Grant, Tone, kind_of, serves, shown_state, tone
from brokerd.core.grant.history import SUCCESSES
from brokerd.ctl.status.bar import bar
from brokerd.ctl.status.look import UNWRAPPED, Look
from brokerd.ctl.status.overview import troubles_of_daemon
from brokerd.ctl.status.sentences import about_grant, about_provider, is_down
from brokerd.ctl.terminal import away, called, plain, span

INDENT = 12  # columns before what a label is about
BAR_LONGEST = 40


def one_grant(found: Mapping[str, Any], now: float, look: Look) -> list[str]:
    """The lines. The answer has this grant alone."""
    (grant,) = found["grants"]
    how_bad, state = tone(grant, now), kind_of(shown_state(grant)).words
    lines = [*troubles_of_daemon(found["daemon"], now, look)]
    lines += [
        f"{look.sign(how_bad)} {look.paint(plain(grant['name']), 'heading')}: {look.paint(plain(state), how_bad)}"
    ]
    for words in about_grant(grant, now):
        found_lines = look.wrapped(called(words.text) if words.is_remedy else words.text, 2, 2)
        lines += [look.paint(line, "remedy") if words.is_remedy else line for line in found_lines]
    lines += ["", *_token(grant, now, look, how_bad), *_provider(grant, found, now, look)]
    lines += _renewer(grant, found["daemon"].get("fleet"), look)
    lines += _next(grant, now, look)
    if grant.get("history") is not None:
        lines += ["", look.paint("Last exchanges, the newest first", "heading"), *_history(grant["history"], now, look)]
    return lines


def _token(grant: Grant, now: float, look: Look, how_bad: Tone) -> Iterator[str]:
    issued, ends, refresh = grant["issued_at"], grant["expires_at"], grant["refresh_expires_at"]
    if not serves(grant, now):
        yield from _labelled("token", "none is served now", look)
    elif ends is None:
        yield from _labelled("token", f"expiry unknown; issued {_moment(issued, now)}", look)
    else:
        width = min(BAR_LONGEST, 20 if look.columns == UNWRAPPED else look.columns - INDENT - 14)
        yield f"{'token':<{INDENT}}{bar(grant, now, look, max(width, 8), how_bad)} {span(ends - now)} left"
        yield from _labelled("", f"issued {_moment(issued, now)}; expires {_moment(ends, now)}", look)
    if grant.get("scope"):
        yield from _labelled("scope", plain(" ".join(grant["scope"])), look)
    if grant.get("fields"):
        yield from _labelled("fields", plain(" ".join(grant["fields"])), look)
    if grant.get("variants"):
        yield from _labelled(
            "downscoped", f"{grant['variants']} living tokens for other scopes, audiences or resources", look
        )
    if number := grant.get("shared"):
        what = "connection reads" if number == 1 else "connections read"
        yield from _labelled("shared", f"{number} {what} it in memory (shared tokens)", look)
    if refresh is not None:
        verb = "expires" if refresh > now else "expired"
        yield from _labelled("refresh", f"the refresh token {verb} {_moment(refresh, now)}", look)


def _provider(grant: Grant, found: Mapping[str, Any], now: float, look: Look) -> Iterator[str]:
    about = next((each for each in found.get("providers", ()) if each["name"] == grant["provider"]), None)
    if about is None:
        yield from _labelled("provider", plain(grant["provider"]), look)
    elif is_down(about):
        first, *rest = about_provider(about, now)
        yield from _labelled("provider", first.removeprefix("provider "), look)
        for words in rest:
            yield from _labelled("", words, look)
    else:
        answers = "" if about["latency_p50"] is None else f"; it answers in {about['latency_p50'] * 1000:.0f} ms"
        yield from _labelled("provider", plain(f"{grant['provider']}{answers}"), look)


def _renewer(grant: Grant, fleet: Mapping[str, Any] | None, look: Look) -> Iterator[str]:
    """Which host of the fleet renews it by itself. If that one is away, another one does it a little later."""
    if fleet is None:
        return
    name = grant["renewer"]
    words = "not known yet" if name is None else f"{name}, this host" if name == fleet["host"] else name
    yield from _labelled("renewed by", plain(f"{words} (fleet {fleet['fleet']})"), look)


def _next(grant: Grant, now: float, look: Look) -> Iterator[str]:
    """What comes next and why. An older brokerd says only when."""
    coming = grant.get("next") or {"operation": None, "at": grant["next_renewal_at"], "detail": None, "target": None}
    what, at, detail = coming["operation"], coming["at"], coming["detail"]
    parts = [plain(what)] if what else []
    parts += [plain(f"for {coming['target']}")] if coming["target"] else []
    parts += [_moment(at, now)] if at is not None else [] if what else ["nothing is planned"]
    yield from _labelled("next", f"{' '.join(parts)}{f': {plain(called(detail))}' if detail else ''}", look)


def _history(rows: list[dict[str, Any]], now: float, look: Look) -> Iterator[str]:
    if not rows:
        yield "  none that brokerd remembers"
    wide = max((len(_clock(row[key], now)) for row in rows for key in ("at", "last")), default=0)
    indent = wide + 4 if look.columns >= 60 else 4
    for row in rows:
        is_good = row["outcome"] in SUCCESSES
        words = look.paint(f"{plain(row['outcome']):<13}", Tone.GOOD if is_good else Tone.WARN)
        what = f"{_clock(row['last'], now):>{wide}}  {plain(row['operation']):<6}  {words}"
        yield f"  {what}  {row['seconds']:7.3f} s"
        more = [f"for {plain(row['target'])}"] if row["target"] else []
        more += [f"{row['count']} times since {_clock(row['at'], now)}"] if row["count"] > 1 else []
        more += [plain(row["reason"])] if row["reason"] else []
        more += [f"request {plain(row['request_id'])}"] if row["request_id"] and not is_good else []
        for each in more:
            yield from (look.paint(part, "dim") for part in look.wrapped(each, indent, 2))


def _labelled(label: str, words: str, look: Look) -> Iterator[str]:
    first, *rest = look.wrapped(words, INDENT)
    yield f"{label:<{INDENT}}{first[INDENT:]}"
    yield from rest


def _moment(at: float, now: float) -> str:
    """Relative and absolute: "in 3m 20s, at 19:11:40"."""
    return f"{away(at - now)}, at {_clock(at, now)}"


def _clock(at: float, now: float) -> str:
    """A moment as a clock shows it, with the date if it is not today's."""
    day, today = (time.strftime("%Y-%m-%d", time.localtime(each)) for each in (at, now))
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    return clock if day == today else f"{day} {clock}"
