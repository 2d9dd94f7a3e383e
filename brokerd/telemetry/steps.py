# The steps of an exchange for a person who follows it (brokerctl trace): each has a name, words, and facts. No secret
# is among them. What of requests and answers is shown is decided in dialects/shown_messages.py.
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from brokerd.core.exchange.outcomes import NAMES, Done, Issued, Outcome
from brokerd.core.grant.record import Record
from brokerd.core.grant.renewal import Operation, Plan
from brokerd.core.grant.tokens import alive
from brokerd.core.secret import SecretSource
from brokerd.core.timing.breaker import Breaker
from brokerd.core.timing.moment import Moment, seconds_until

WAYS = {
    Operation.RENEW: "asks for a token with the refresh token",
    Operation.ISSUE: "asks for a token with the grant's credentials",
    Operation.REVOKE: "tells the provider that tokens are revoked",
    Operation.VERIFY: "asks the provider whether tokens are active",
    Operation.LOGIN: "stores what a login brought",
}


ENDED = "ended"  # the last step of an exchange


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    words: str
    facts: Mapping[str, object] = field(default_factory=dict)


def begins(record: Record, plan: Plan, now: Moment, *, asker: str | None) -> Step:
    """`asker`: who wants it now; None: the schedule says that it is due."""
    why = "; ".join(_reasons(record, now, asker))
    about = {"operation": str(plan.operation), "why": why, "generation": record.generation}
    return Step("begin", f"brokerd {WAYS[plan.operation]}, because {why}", about)


def _reasons(record: Record, now: Moment, asker: str | None) -> Iterable[str]:
    token = record.access_token
    if asker is not None:
        yield asker
    if token is None or not alive(token, now):
        yield "the grant has no living token"
    elif token.expires is not None and token.lifetime:
        left = max(0.0, seconds_until(token.expires, now))
        yield f"its token has {left:.0f} s left of {token.lifetime:.0f} s"
    if record.failures:
        yield f"the last {record.failures} tries failed" if record.failures > 1 else "the last try failed"


def waits(seconds: float, breaker: Breaker, record: Record, now: Moment) -> Step:
    """Nothing may be sent yet."""
    if breaker.wait(now) > 0:
        why = f"the provider seems to be down ({breaker.failures} failures in a row), and is tested again then"
    elif record.failures:
        why = f"the last try failed, and this one may begin then: {record.error or 'no reason is known'}"
    else:
        why = "an exchange of this grant has just ended"
    return Step("wait", f"waits for {seconds:.1f} s: {why}", {"seconds": round(seconds, 3), "why": why})


def joins(exchange: str) -> Step:
    return Step("join", f"waits for an exchange that is under way: {exchange}", {"exchange": exchange})


def credentials(sources: Mapping[str, SecretSource], *, read: bool) -> Step:
    """`read`: now; else they are in memory."""
    found = {name: _place(source) for name, source in sorted(sources.items())}
    listed = ", ".join(f"{name} ({place})" for name, place in found.items()) or "none"
    return Step("credentials", f"credentials {'read' if read else 'known already'}: {listed}", {"credentials": found})


def _place(source: SecretSource) -> str:
    """Where a secret comes from. The arguments of a command may be secret."""
    if source.command is not None:
        return f"command {source.command[0]}"
    for kind in ("file", "credential", "env", "grant"):
        if (name := getattr(source, kind)) is not None:
            return f"{kind} {name}"
    return "the configuration"


def held(seconds: float) -> Step:
    """Law 7."""
    words = f"not sent: the same request failed before; the next try is in {seconds:.0f} s"
    return Step("held", words, {"seconds": round(seconds, 3)})


def queued(concurrency: int) -> Step:
    words = f"waits until fewer than {concurrency} requests to this provider are under way (concurrency)"
    return Step("queue", words, {"concurrency": concurrency})


def journalled(generation: int) -> Step:
    words = f"journal written: the refresh token of generation {generation} is about to be sent"
    return Step("journal", words, {"generation": generation})


def stage(name: str, doing: str) -> Step:
    """How far the HTTP client has come."""
    return Step("transfer" if name == "request" else name, doing)


def sends(shown: Mapping[str, object]) -> Step:
    return Step("request", f"{shown['method']} {shown['url']}", shown)


def answers(shown: Mapping[str, object], seconds: float) -> Step:
    words = f"answer {shown['status']} after {seconds * 1000:.0f} ms, {shown['bytes']} bytes"
    return Step("answer", words, {**shown, "seconds": round(seconds, 4)})


def unanswered(reason: str, *, sent: bool) -> Step:
    then = "the provider may have got the request" if sent else "the provider got nothing"
    return Step("unanswered", f"no answer: {reason}; {then}", {"reason": reason, "sent": sent})


def concluded(outcome: Outcome, record: Record, *, unstored: bool, remedy: str | None) -> Step:
    """What it meant, and what the record says now."""
    name = NAMES[type(outcome)]
    reason = None if isinstance(outcome, Issued | Done) else outcome.reason
    words = f"{name}{f': {reason}' if reason else ''}; the grant is {record.state} now"
    kept = "NOT stored: the store cannot be written" if unstored else "stored"
    words += f", generation {record.generation}, {kept}{f'; to fix: {remedy}' if remedy else ''}"
    facts = {"outcome": name, "reason": reason, "state": str(record.state), "generation": record.generation}
    return Step("outcome", words, {**facts, "stored": not unstored, "remedy": remedy})


def ends(waiting: int, expires_in: float | None, next_look: float | None, *, postponed: bool) -> Step:
    """`waiting`: requests that waited for it; `next_look`: seconds until the grant is looked at next. `postponed`:
    nothing was sent, and who waited waits on."""
    if postponed:
        return Step(
            "postponed", "nothing was sent; who waited for it waits for the next exchange", {"waiting": waiting}
        )
    token = "no token to serve" if expires_in is None else f"its token lives for {expires_in:.0f} s more"
    then = "nothing is planned" if next_look is None else f"the next renewal is in {max(0.0, next_look):.0f} s"
    words = f"ended: {token}; {then}; requests that waited for it: {waiting}"
    return Step(ENDED, words, {"waiting": waiting, "expires_in": expires_in, "next_renewal_in": next_look})
