# When which machine was dead, paused or cut off, from the lines of the history. It knows nothing of brokerd's code.
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.stress.fleet_torture.history import Line

STORE, WEB = "store", "web"
ENDS = {"started": "dead", "resumed": "paused", "mended": "cut"}
BEGINS = {"killed": "dead", "paused": "paused", "cut": "cut"}
NEVER = float("inf")
AGREES_WITHIN = 8.0  # seconds until the nodes have another leader, and hosts have found it


@dataclass(frozen=True)
class Trouble:
    machine: str
    kind: str  # "dead", "paused", or "cut from" a net
    begin: float
    end: float = NEVER


@dataclass
class Timeline:
    nodes: tuple[str, ...] = ()
    troubles: dict[str, list[Trouble]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, lines: Iterable[Line], nodes: Iterable[str]) -> Timeline:
        made = cls(tuple(nodes))
        open_: dict[tuple[str, str], float] = {}
        for line in lines:
            what, machine = line["what"], line.get("host") or line.get("node")
            if what in BEGINS:
                open_.setdefault((machine, _kind(BEGINS[what], line)), line["t"])
            elif what in ENDS and (begin := open_.pop((machine, _kind(ENDS[what], line)), None)) is not None:
                made.troubles[machine].append(Trouble(machine, _kind(ENDS[what], line), begin, line["t"]))
        for (machine, kind), begin in open_.items():
            made.troubles[machine].append(Trouble(machine, kind, begin))
        return made

    def killed(self, host: str, since: float) -> float:
        """When it was killed next; never: infinity."""
        return min((each.begin for each in self._of(host, "dead") if each.begin >= since), default=NEVER)

    def paused(self, host: str, at: float) -> bool:
        return any(each.begin <= at < each.end for each in self._of(host, "paused"))

    def able_to_store(self, host: str, begin: float, end: float) -> list[tuple[float, float]]:
        """The spans between these moments in which it ran and reached a majority of the store's nodes, which had had
        time to agree on a leader."""
        spans = [(each.begin, each.end) for each in self.troubles[host] if each.kind != f"cut from {WEB}"]
        spans += self._without_majority()
        spans += [(each.begin, each.begin + AGREES_WITHIN) for node in self.nodes for each in self.troubles[node]]
        found, free = [], begin
        for since, until in sorted(spans):
            if since >= end:
                break
            if since > free:
                found.append((free, since))
            free = max(free, until)
        return [*found, (free, end)] if free < end else found

    def _without_majority(self) -> Iterator[tuple[float, float]]:
        marks = sorted(
            (moment, step, node)
            for node in self.nodes
            for each in self.troubles[node]
            for moment, step in ((each.begin, 1), (each.end, -1))
        )
        hurt: dict[str, int] = defaultdict(int)
        since: float | None = None
        for moment, step, node in marks:
            hurt[node] += step
            lost = 2 * sum(count > 0 for count in hurt.values()) >= len(self.nodes)
            if lost and since is None:
                since = moment
            elif not lost and since is not None:
                yield since, moment
                since = None
        if since is not None:
            yield since, NEVER

    def _of(self, machine: str, kind: str) -> Iterator[Trouble]:
        return (each for each in self.troubles[machine] if each.kind == kind)


def _kind(kind: str, line: Line) -> str:
    return f"cut from {line['net']}" if kind == "cut" else kind
