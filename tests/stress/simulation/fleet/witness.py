# What the providers and etcd saw of a fleet, and what must be true of that: written from the design, not from brokerd's
# code. It knows which token was sent by whom and when, and what became of it; nothing of brokerd's records.
from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from tests.stress.simulation.laws import Broken
from tests.stress.simulation.providers import Reply

if TYPE_CHECKING:
    from tests.stress.simulation.fleet.host import Host, Process
    from tests.stress.simulation.fleet.world import World

EPSILON = 0.5  # seconds
ANSWER_TIMEOUT = 300.0  # seconds: so long a sender waits for the answer to a stored token
DIFFERENCE = 120.0  # seconds by which the clocks of two hosts may differ
LEVEL = 20.0  # seconds within which a host that reaches etcd has heard of a change
WINDOW, MOST = 60.0, 30  # so many requests for one grant in so many seconds, from all hosts together

TWICE = "law 1: no refresh token is sent twice while the first outcome may still come"
CLAIMED = "law 1: no host takes a claim that another one has"
UNKNOWN = "law 3: after an unknown outcome a refresh token waits for the end of the living token"
DEAD = "law 3: no replaced refresh token is sent again"
REJECTED = "law 4: a rejected refresh token is tried once more, and no more"
EXPIRED = "law 5: no expired token is served"
REVOKED = "law 10: what was revoked on one host is served by none that reaches etcd"
RESTORED = "law 15: after a restore nothing is spent until somebody has adopted it"
HAMMER = "law 6: the fleet's requests are bounded"
LOST = "no login is lost whose new tokens a host has got and could keep"
SAME = "once everything is well all hosts serve the same newest token"


@dataclass(eq=False)
class Sending:
    """A stored refresh token that left a host. `ended`: how it ended there: "", "success", "rejected", "unused",
    "unknown". `stored`: the revision in which its host wrote to the record afterwards. `excused`: it left after a pause
    between the last look and the first byte, or an operator has adopted an older state since."""

    grant: str
    process: Process
    at: float
    ended: str = ""
    stored: int = 0
    excused: bool = False
    reply: Reply | None = None

    @property
    def host(self) -> Host:
        return self.process.host

    def is_under_way(self, now: float) -> bool:
        return not self.ended and not self.process.dead and now < self.at + ANSWER_TIMEOUT


@dataclass
class Seen:
    """Of one grant. `revoked`: when its revocation was stored, on which host; `by_hand`: refreshes that people asked
    for, each of which may send a rejected token once more."""

    sent: dict[str, list[Sending]] = field(default_factory=dict)
    # The access token that came with a refresh token, when at the earliest it may have been issued, and who asked.
    came_with: dict[str, tuple[str, float, Host | None]] = field(default_factory=dict)
    revoked: float = inf
    imports: int = 0
    by_hand: int = 0
    lately: deque[float] = field(default_factory=deque)
    claimed: dict[str, float] = field(default_factory=dict)  # when each host last claimed it


class Witness:
    """One for each life of a fleet. The first law that is broken is kept in `verdict`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.verdict: Broken | None = None
        self.checked: Counter[str] = Counter()
        self.seen = {grant: Seen() for grant in world.grants}
        self.newest: dict[str, str] = {}  # the access token that each grant got last
        self.all_asked: dict[str, list[float]] = {grant: [] for grant in world.grants}
        self.restored: float = inf  # when etcd was put back to another state, until somebody adopted that

    def hold(self, law: str, holds: bool, what: str) -> None:
        self.checked[law] += 1
        if not holds and self.verdict is None:
            self.verdict = Broken(law, what, self.world.time())
            self.world.say("witness", f"BROKEN: {law}: {what}")
            self.world.over.set()

    # -- at the providers

    def asked(self, process: Process, grant: str) -> None:
        """A request for tokens leaves."""
        now, lately = self.world.time(), self.seen[grant].lately
        lately.append(now)
        self.all_asked[grant].append(now)
        while lately[0] < now - WINDOW:
            lately.popleft()
        self.hold(HAMMER, len(lately) <= MOST, f"{grant}: {len(lately)} requests in a minute")

    def sends(self, process: Process, grant: str, token: str, *, excused: bool) -> Sending:
        """The first byte of a stored refresh token leaves."""
        seen, now = self.seen[grant], self.world.time()
        sending = Sending(grant, process, now, excused=excused)
        before = seen.sent.setdefault(token, [])
        if not excused:
            for each in before:
                self._may_be_sent_again(sending, each, token)
            rejections = sum(each.ended == "rejected" for each in before)
            self.hold(REJECTED, rejections <= 1 + seen.by_hand, f"{grant}: {token} by {process.host.name}")
            claimed = seen.claimed.get(process.host.name, -inf)
            self.hold(RESTORED, claimed < self.restored, f"{grant}: {token} by {process.host.name}")
            late = self._knows_since(process.host, seen.revoked)
            self.hold(REVOKED, not late, f"{grant}: {token} was sent by {process.host.name}")
        before.append(sending)
        return sending

    def _may_be_sent_again(self, again: Sending, first: Sending, token: str) -> None:
        grant, now, host = first.grant, again.at, again.host
        provider = self.world.provider_of(grant)
        known = provider.refresh[token]
        what = (
            f"{grant}: {token} by {host.name}, after {first.host.name} at {first.at:.2f} ({first.ended or 'under way'})"
        )
        if first.ended == "unused" or first.excused or now <= (known.used or first.at) + provider.setup.grace + EPSILON:
            return
        self.hold(TWICE, not first.is_under_way(now), what)
        if first.ended == "success":
            self.hold(DEAD, not first.stored and first.process is not again.process, what)
        if first.ended == "rejected":
            return
        value, asked, asker = self.seen[grant].came_with.get(token, ("", 0.0, None))
        if (access := provider.access.get(value)) is not None:
            life = provider.setup.lifetime
            left = min(access.expires, asked + life) - now
            # If one of the two hosts did not hear of etcd all the time, wall clocks say how old the token is at most.
            is_dated = all(each.calm_since < access.expires - life for each in (host, asker or host))
            doubt = 0.0 if is_dated else 2 * DIFFERENCE
            self.hold(UNKNOWN, left <= life / 10 + LEVEL + doubt, f"{what}: the living token has {left:.2f} s left")

    def done(self, grant: str, sending: Sending | None, reply: Reply) -> None:
        """The provider did something with a request."""
        access, refresh = reply.body.get("access_token"), reply.issued
        if access is not None:
            self.newest[grant] = str(access)
        if refresh is not None and access is not None:
            asked, asker = (sending.at, sending.host) if sending else (self.world.time(), None)
            self.seen[grant].came_with[refresh] = str(access), asked, asker
        if sending is not None:
            sending.reply = reply

    # -- at etcd

    def wrote(self, host: str, kind: str, grant: str, revision: int) -> None:
        """A transaction of that host was carried out which wrote such a key."""
        seen = self.seen[grant]
        if kind == "claim":
            seen.claimed[host] = self.world.time()
        if kind != "record":
            return
        for sendings in seen.sent.values():
            for each in sendings:
                if each.host.name == host and each.ended == "success" and not each.process.dead and not each.stored:
                    each.stored = revision

    def claims_over(self, host: str, grant: str, other: str | None) -> None:
        """That host has put a claim, or something else; `other`: who had the claim until then."""
        self.hold(CLAIMED, other in (None, host), f"{grant}: {host} has put its claim over that of {other}")

    def restore(self, revision: int) -> None:
        """etcd has lost all that came after that revision."""
        self.restored = self.world.time()
        for seen in self.seen.values():
            for sendings in seen.sent.values():
                for each in sendings:
                    each.excused = each.excused or each.stored > revision or not each.stored

    # -- at the callers

    def served(self, process: Process, grant: str, value: str) -> None:
        host, seen = process.host, self.seen[grant]
        token = self.world.provider_of(grant).access[value]
        left = token.expires - self.world.true()
        self.hold(EXPIRED, left > -EPSILON, f"{grant}: {value} by {host.name}, died {-left:.2f} s ago")
        known = self._knows_since(host, seen.revoked)
        self.hold(
            REVOKED, not known, f"{grant}: {value} by {host.name}, revoked {self.world.time() - seen.revoked:.2f} s ago"
        )

    def _knows_since(self, host: Host, when: float) -> bool:
        """Whether a host must have heard by now of what etcd got at that time."""
        now = self.world.time()
        return now > max(when, host.calm_since) + LEVEL

    def importing(self, grant: str) -> None:
        self.seen[grant].imports += 1
        self.seen[grant].revoked = inf

    def revoked(self, grant: str, imports: int) -> None:
        """The revocation that was begun after so many imports is stored."""
        if self.seen[grant].imports == imports:
            self.seen[grant].revoked = self.world.time()

    def explains(self, grant: str, *, lost: bool) -> None:
        """A login that was lost is one of which an answer was, or which somebody had ended."""
        seen, killed = self.seen[grant], grant in self.world.killed
        unheard = any(each.reply is not None and not each.stored for sent in seen.sent.values() for each in sent)
        is_new = not seen.imports
        self.hold(LOST, not lost or unheard or killed or is_new, f"{grant} needs a login, and nothing explains that")
