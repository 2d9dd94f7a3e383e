# What the kernel and the daemon say of the daemon: memory, descriptors, threads, tasks; whether they are flat.
from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass, field, replace

import trio

from tests.stress.soak.world import Soaked, World

IDLE, BETWEEN = 20.0, 0.1  # seconds for which an idle daemon is looked at, and between looks: the least of each number
# is the idle one. Longer than connections to providers are kept, and threads.
WARM_UP = 0.1  # the share of a life in which memory may grow: caches, and the allocator's arenas
GROWTH_MOST = 3.0  # MB between the first and the last quarter of the longest life
LASTING = 120.0  # seconds of a life from which on its memory, and the threads that are kept for a while, are judged
MORE_MOST = {"fds": 0, "threads": 1, "tasks": 0}  # than at the beginning: a thread is kept for the next renewal


@dataclass(frozen=True)
class Sample:
    """`at`: seconds on the monotonic clock; `rss` in MB; `connections`: to providers, `fds`: all other descriptors."""

    at: float
    pid: int
    rss: float
    fds: int
    connections: int
    threads: int
    tasks: int


@dataclass
class Life:
    """One process."""

    samples: list[Sample] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.samples[-1].at - self.samples[0].at

    @property
    def warm(self) -> list[Sample]:
        begins = self.samples[0].at + WARM_UP * self.seconds
        return [sample for sample in self.samples if sample.at >= begins]

    @property
    def quarters(self) -> tuple[float, float]:
        """The median memory of the first and the last quarter."""
        warm = [sample.rss for sample in self.warm]
        quarter = max(1, len(warm) // 4)
        return statistics.median(warm[:quarter]), statistics.median(warm[-quarter:])

    @property
    def slope(self) -> float:
        """Of a line through its memory: MB per hour."""
        warm = self.warm
        if len(warm) < 3:
            return 0.0
        found = statistics.linear_regression([sample.at for sample in warm], [sample.rss for sample in warm])
        return found.slope * 3600


async def look(brokerd: Soaked) -> Sample:
    """The daemon now, as the one connection sees it that asks for the tasks."""
    tasks = (await brokerd.call("status", grants=[]))["daemon"]["tasks"]
    lines = brokerd.proc("status").read_text().splitlines()
    says = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.split()}
    fds, connections = _descriptors(brokerd)
    memory, threads = int(says["VmRSS"]) / 1024, int(says["Threads"])
    return Sample(time.monotonic(), brokerd.pid, memory, fds, connections, threads, tasks)


async def idle(brokerd: Soaked, scale: float) -> Sample:
    """The least of each number that is seen while nobody calls; renewals go on."""
    seen = []
    for _ in range(int(scale * IDLE / BETWEEN)):
        seen.append(await look(brokerd))
        await trio.sleep(BETWEEN)
    return replace(
        seen[-1], **{name: min(getattr(sample, name) for sample in seen) for name in (*MORE_MOST, "connections")}
    )


def _descriptors(brokerd: Soaked) -> tuple[int, int]:
    """Open descriptors: TCP connections, and all others."""
    tcp = {line.split()[9] for line in brokerd.proc("net/tcp").read_text().splitlines()[1:]}
    all_of_them = list(brokerd.proc("fd").iterdir())
    connections = 0
    for descriptor in all_of_them:
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            connections += str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]") in tcp
    return len(all_of_them) - connections, connections


def lives(samples: list[Sample]) -> list[Life]:
    found: dict[int, Life] = {}
    for sample in samples:
        found.setdefault(sample.pid, Life()).samples.append(sample)
    return sorted(found.values(), key=lambda life: life.seconds)


def judge(world: World, samples: list[Sample], first: Sample, last: Sample) -> list[str]:
    """The lines of the table; what crosses a bound is noted in the world."""
    longest = lives(samples)[-1]
    lasting = longest.seconds >= LASTING
    before, after = longest.quarters
    peak = max(samples, key=lambda sample: sample.rss)
    lines = [
        f"{'':12}{'idle before':>14}{'most':>10}{'idle after':>14}{'bound':>12}",
        f"{'RSS, MB':12}{first.rss:14.1f}{peak.rss:10.1f}{last.rss:14.1f}",
    ]
    for name, more in MORE_MOST.items():
        was, now = getattr(first, name), getattr(last, name)
        most = max(getattr(sample, name) for sample in samples)
        lines.append(f"{name:12}{was:14}{most:10}{now:14}{f'+{more}':>12}")
        if now > was + more and (lasting or name != "threads"):
            world.breaks(f"{name}: {was} idle at first, {now} idle at the end")
    kept = len(world.services)  # one at each provider may wait for the next request
    most = max(sample.connections for sample in samples)
    lines.append(f"{'connections':12}{first.connections:14}{most:10}{last.connections:14}{kept:>12}")
    if last.connections > kept:
        world.breaks(f"{last.connections} connections to {kept} providers while idle")
    lines.append(
        f"RSS over the longest life ({longest.seconds:.0f} s, {len(longest.samples)} samples): first quarter "
        f"{before:.2f} MB, last quarter {after:.2f} MB, bound +{GROWTH_MOST:g} MB; slope {longest.slope:+.2f} MB/h"
    )
    if lasting and after - before > GROWTH_MOST:
        world.breaks(f"memory grew by {after - before:.2f} MB between the first and the last quarter of a life")
    return lines
