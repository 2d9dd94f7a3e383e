# What the histories show: refresh tokens that were sent twice, logins that were lost and why, dead tokens that were
# served, and how long grants were without a token. Pure; it knows nothing of brokerd's code.
from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.stress.fleet_torture.history import Line
from tests.stress.fleet_torture.timeline import NEVER, Timeline

ON_THE_WAY = 0.1  # seconds that a token or a request may be on its way; the provider counts from its arrival
STORES_WITHIN = 2.0  # seconds that a host may need to store an answer where nothing hinders it ...
REACHES_WITHIN = 10.0  # ... and after its store was out of reach
UNHINDERED = REACHES_WITHIN - STORES_WITHIN
NEAR_END, NEAR_END_SLACK = 0.1, 1.0  # of an access token's life, and seconds
MOST_REASONS = 12  # that are shown
GAVE_TOKENS = ("rotated", "again")


@dataclass
class Request:
    """One that came to the token endpoint, and what became of it."""

    id: int
    t: float
    host: str
    grant: str
    refresh: str | None
    kind: str
    outcome: str = "nothing"
    done: float = NEVER  # when the provider decided
    access: str = ""
    ends: float = 0.0
    next: str = ""
    login: int = -1
    arrived: float = NEVER  # when the host's kernel had the whole answer
    lost: float = NEVER  # when it was certain that no answer would come
    gone: float = NEVER  # when the host had ended the connection before its answer

    def take(self, line: Line) -> None:
        match line["what"]:
            case "outcome":
                self.done, self.outcome = line["t"], line["outcome"]
                if self.outcome in GAVE_TOKENS:
                    self.access, self.ends = line["access"], line["ends"]
                    self.next, self.login = line["next"], line["login"]
            case "arrived":
                self.arrived = line["t"]
            case "dropped":
                self.lost = line["t"]
            case "gone":
                self.gone = line["t"]

    @property
    def gave_tokens(self) -> bool:
        return self.outcome in GAVE_TOKENS


@dataclass
class Verdict:
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)  # logins, by the reason
    reasons: Counter[str] = field(default_factory=Counter)  # why a get had no token
    without: dict[str, float] = field(default_factory=dict)  # grant → longest time in which no host had a token


class Judge:
    def __init__(self, lines: list[Line]) -> None:
        self.lines = lines
        runs = [line for line in lines if line["what"] == "run"]
        assert len(runs) == 1, "the history is not of one run"
        self.run = runs[0]
        self.limit: float = self.run["answer_timeout"]
        self.timeline = Timeline.of(lines, self.run["nodes"])
        self.requests = requests(lines)
        self.gets = [line for line in lines if line["what"] == "get"]
        self.issued_by = {each.next: each for each in self.requests if each.outcome == "rotated"}
        self.served: dict[str, list[Line]] = defaultdict(list)  # access token → gets that brought it alive
        for line in self.gets:
            if line.get("alive"):
                self.served[line["access"]].append(line)
        self.found = Verdict()

    def judge(self) -> Verdict:
        for refresh, sent in self._by_refresh().items():
            self._sent_twice(refresh, sent)
            self._logins_lost(refresh, sent)
        self._dead_tokens()
        self._recovery()
        self._without_token()
        self._machinery()
        return self.found

    # -- refresh tokens

    def _by_refresh(self) -> dict[str, list[Request]]:
        found: dict[str, list[Request]] = defaultdict(list)
        for each in self.requests:
            if each.refresh is not None:
                found[each.refresh].append(each)
        return {refresh: sent for refresh, sent in found.items() if len(sent) > 1}

    def open_until(self, request: Request) -> float:
        """Until when its outcome could still be a success for whoever sent it."""
        killed = self.timeline.killed(request.host, request.t)
        return min(request.t + self.limit - ON_THE_WAY, killed, request.arrived, request.lost, request.gone)

    def _sent_twice(self, refresh: str, sent: list[Request]) -> None:
        for index, later in enumerate(sent):
            for earlier in sent[:index]:
                if later.t < self.open_until(earlier):
                    self._violation(
                        f"{refresh} of {earlier.grant} was sent twice while the first outcome could still be a success",
                        earlier,
                        later,
                    )
                elif earlier.gave_tokens and earlier.done < later.done and not self.why_lost(earlier, later):
                    self._violation(
                        f"{refresh} of {earlier.grant} was sent again although its replacement had come", earlier, later
                    )
            self.found.counts["refresh tokens sent again"] += index > 0
            if index and self._too_early(sent[index - 1], later):
                self.found.counts["of these, before the living access token was near its end"] += 1

    def _too_early(self, earlier: Request, later: Request) -> bool:
        """Whether it was sent again before its access token was near its end, and beyond the grace."""
        if earlier.arrived < later.t or earlier.refresh not in self.issued_by:
            return False  # what arrived was an answer
        grant, living = later.grant, self.issued_by[earlier.refresh]
        near = living.ends - NEAR_END * self.run["lives"][grant] - NEAR_END_SLACK
        return later.t < near and later.t - earlier.t >= self.run["graces"].get(grant, 0.0)

    def why_lost(self, earlier: Request, later: Request) -> str:
        """Why nobody could know the new tokens of the earlier request when the later one was sent; nothing: they were
        known."""
        others = [get for get in self.served[earlier.access] if get["host"] != earlier.host and get["got"] < later.t]
        if others:
            return ""  # another host served them: they were in the common store
        host, limit = earlier.host, earlier.t + self.limit
        killed = self.timeline.killed(host, earlier.t)
        if killed < min(earlier.arrived, earlier.lost, later.t):
            return "killed before the answer"
        if earlier.lost < NEVER:
            return "answer lost by the provider"
        if earlier.gone < limit - 1.0:
            return ""  # the host gave up, though the answer could still come
        if earlier.arrived > min(limit, later.t):
            return "answer lost on its way"
        return self._why_not_stored(host, earlier.arrived, killed, later.t)

    def _why_not_stored(self, host: str, arrived: float, killed: float, later: float) -> str:
        """Why a host could not store what had arrived; nothing: it could."""
        end = min(killed, later)
        spans = self.timeline.able_to_store(host, arrived, end)
        hindered = spans != [(arrived, end)]
        if any(until - since >= REACHES_WITHIN - (since == arrived) * UNHINDERED for since, until in spans):
            return ""
        if killed < later:
            return "killed between answer and store"
        return "cut off or paused between answer and store" if hindered else ""

    def _logins_lost(self, refresh: str, sent: list[Request]) -> None:
        for killer in (each for each in sent if each.outcome == "reuse"):
            used = next(each for each in sent if each.outcome == "rotated")
            earlier, later = sorted((used, killer), key=lambda each: each.t)
            if earlier is used:
                reason = self.why_lost(earlier, later)
            else:  # the provider was late, and did the later one first
                killed = self.timeline.killed(earlier.host, earlier.t)
                reason = "killed before the answer" if killed < later.t else ""
            self.found.lost[reason or "UNEXPLAINED"] += 1
            if not reason:
                self._violation(f"the login of {killer.grant} was lost, and nothing explains it", earlier, later)

    # -- access tokens

    def _dead_tokens(self) -> None:
        for get in self.gets:
            self.found.counts[f"gets: {get.get('error') or 'a token'}"] += 1
            if "error" in get:
                grant = get["grant"].partition("@")[0]
                self.found.reasons[get.get("words", get["error"]).replace(grant, "GRANT")] += 1
            if "error" in get or get["alive"]:
                if get.get("holder", get["grant"]) != get["grant"]:
                    self.found.violations.append(f"a token of another grant was served: {get}")
                continue
            dead = get["asked"] - (get["since"] or 0.0)
            if get["why"] == "unknown":
                self.found.violations.append(f"a token that the provider never made was served: {get}")
            elif get["why"] == "killed":
                self.found.counts["tokens served whose login the provider had ended"] += 1
            elif dead > ON_THE_WAY:
                self.found.counts["dead tokens served"] += 1
                self.found.violations.append(f"a token was served {dead:.3f} s after its end: {get}")

    def _recovery(self) -> None:
        calm = next((line["t"] for line in self.lines if line["what"] == "calm"), None)
        if calm is None:
            self.found.violations.append("the run did not come to its end")
            return
        seen: dict[tuple[str, str], float] = {}
        for get in self.gets:
            if get.get("alive") and get["asked"] >= calm:
                seen.setdefault((get["grant"], get["host"]), get["got"] - calm)
        slowest = 0.0
        for grant, hosts in self.run["grants"].items():
            for host in hosts:
                took = seen.get((grant, host), NEVER)
                slowest = max(slowest, took)
                if took > self.run["recovers_within"]:
                    when = "never" if took == NEVER else f"only {took:.0f} s"
                    self.found.violations.append(f"{host} had a token of {grant} {when} after everything was healed")
        self.found.counts["seconds after the last healing until every grant had a token on every host"] = (
            -1 if slowest == NEVER else round(slowest)
        )

    def _without_token(self) -> None:
        by_grant: dict[str, list[Line]] = defaultdict(list)
        for get in self.gets:
            by_grant[get["grant"]].append(get)
        for grant, gets in by_grant.items():
            longest, last, failed = 0.0, None, False
            for get in gets:
                if not get.get("alive"):
                    failed = True
                    continue
                if failed and last is not None:
                    longest = max(longest, get["asked"] - last)
                last, failed = get["asked"], False
            self.found.without[grant] = longest

    # -- the rest

    def _machinery(self) -> None:
        counts = self.found.counts
        for line in self.lines:
            what = line["what"]
            if what == "fault":
                counts[f"fault: {line['kind']}"] += 1
            elif what in ("ended by itself", "traceback", "not ready"):
                self.found.violations.append(f"{line['host']}: {what}: {line}")
        counts["renewals"] = sum(each.outcome == "rotated" and each.refresh is not None for each in self.requests)
        for host in self.run["hosts"]:
            counts[f"renewals by {host}"] = sum(each.host == host and each.gave_tokens for each in self.requests)
            if not any(get["host"] == host and get.get("alive") for get in self.gets):
                self.found.violations.append(f"{host} never served a token: nothing was tried")

    def _violation(self, words: str, earlier: Request, later: Request) -> None:
        machines = {earlier.host, later.host, *self.run["nodes"]}
        story = [
            line
            for line in self.lines
            if line.get("id") in (earlier.id, later.id)
            or (
                earlier.t - 60 < line["t"] < later.t + 5
                and line["what"] not in ("get", "request")
                and (line.get("host") or line.get("node")) in machines
            )
        ]
        self.found.violations.append("\n    ".join([words, *map(str, story)]))


def requests(lines: Iterable[Line]) -> list[Request]:
    found: dict[int, Request] = {}
    for line in lines:
        if line["what"] == "request":
            found[line["id"]] = Request(
                line["id"], line["t"], line["host"], line["grant"], line["refresh"], line["kind"]
            )
        elif "id" in line:
            found[line["id"]].take(line)
    return list(found.values())


def report(found: Verdict) -> Iterator[str]:
    for name, count in sorted(found.counts.items()):
        yield f"{count:9}  {name}"
    yield f"{found.lost.total():9}  logins lost"
    for reason, count in found.lost.most_common():
        yield f"{count:9}    {reason}"
    longest = sorted(((seconds, grant) for grant, seconds in found.without.items()), reverse=True)
    if longest:
        middle = longest[len(longest) // 2][0]
        worst, grant = longest[0]
        yield f"longest time in which no host had a token: {worst:.1f} s ({grant}); median of all grants {middle:.1f} s"
    yield "why gets had no token:"
    for reason, count in found.reasons.most_common(MOST_REASONS):
        yield f"{count:9}  {reason}"
    for each in found.violations[:30]:
        yield f"VIOLATION: {each}"
    if len(found.violations) > 30:
        yield f"… and {len(found.violations) - 30} more"
    yield f"{len(found.violations)} violations"
