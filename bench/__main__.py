# `make bench`: what a fetch costs as a ratio to a bare server and a bare Python on this very machine, and what ten
# thousand grants cost; then the aims, and whether they were met. Nothing fails for being slow.
from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from bench import hundred_thousand, peer, processes, proxied
from bench.crowd import ALLOWED, KINDS
from bench.evidence import evidence
from bench.fetches import by_library, fetches, starts, table
from bench.fleet import in_a_fleet, seen
from bench.grants import GRANT, cost, named, one
from bench.http_costs import over_http
from bench.pressure import pressure
from bench.processes import Daemon, Failed
from bench.shared_token import reads, revocations, torn
from brokerd import __version__
from tests.free_port import free_port

KEPT_LEAST, FRESH_LEAST = 1.0, 0.85  # of the bare server's gets per second
LIBRARY_LEAST = 0.8  # of the gets per second of a bare Python client at the bare server
FLEET_SEEN = 0.1  # seconds until another host serves a new token
FLEET_LEAST = 0.95  # of the gets per second of a daemon that is in no fleet
EVIDENCE_LEAST = 0.7  # of the gets per second without attestation and audit log
HTTP_MOST = 2.0  # times the server's time for a get over MessagePack
LIBRARY_KEPT, LIBRARY_FRESH = 4.0, 1.2  # times the tokens per second of oidc-agent's C library
READS_LEAST = 1_000_000  # gets a second from a shared token
SEEN_WITHIN = 0.010  # seconds until a revocation is seen there
TORN_OF = 1_000_000_000  # reads, none of which may be mixed of two tokens; a quick run takes a 100th
PYTHON_MOST = 2.0  # times `python -c pass`
PRESSURE_MOST = 5.0  # times the p99 while nothing else happens
MANY, MEMORY_MOST, START_MOST = 10_000, 150.0, 3.0  # grants, MB, seconds
MOST_MEMORY, MOST_START = 400.0, 8.0  # MB and seconds, with a hundred thousand grants
TOKENS_LEAST = 300.0  # in a second of one core's time, over TLS, each durable
SCRAPE_MOST = 0.3  # seconds
STATUS_MOST = 1.0  # seconds, on an idle machine
PROXY_LEAST = 0.3  # of nginx's requests per second
BULK_LEAST = 0.5  # of nginx's bytes per second
BULK = 1 << 30  # bytes of a large body; a quick run takes a 64th
PARTS = (
    "fetches",
    "library",
    "http",
    "proxy",
    "starts",
    "peer",
    "pressure",
    "shared",
    "evidence",
    "fleet",
    "many",
    "grants",
)
WHOLE = {"rounds": 9, "seconds": 1.0, "starts": 40, "grants": 100_000}
QUICK = {"rounds": 3, "seconds": 0.3, "starts": 10, "grants": 1_000}


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each start would compile brokerd again
    given = {name: value for name, value in vars(parser().parse_args()).items() if value is not None}
    settings = (QUICK if given.pop("quick") else WHOLE) | given
    say(machine(), "")
    try:
        with tempfile.TemporaryDirectory(prefix="brokerd-bench-") as folder, processes.providers() as urls:
            aims = list(run(Path(folder), urls, **settings))
    except Failed as error:
        sys.exit(f"bench: {error}")
    say("aims", *(f"  {'met   ' if met else 'MISSED'}  {words}" for met, words in aims))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m bench", description="Measure brokerd beside a bare trio server.")
    for name, words in (
        ("rounds", "turns of brokerd and the bare server"),
        ("seconds", "that one turn takes"),
        ("starts", "of brokerctl and of python"),
        ("grants", "in one daemon"),
    ):
        default = f"(default: {WHOLE[name]:g}; quick: {QUICK[name]:g})"
        made.add_argument(f"--{name}", type=type(WHOLE[name]), metavar="N", help=f"{words} {default}")
    made.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    made.add_argument("--quick", action="store_true", help="fewer and shorter, hence noisier")
    return made


def machine() -> str:
    """What it is measured on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    load = ", ".join(f"{each:.2f}" for each in os.getloadavg())
    return (
        f"brokerd {__version__}, Python {platform.python_version()}, Linux {platform.release()}, "
        f"{len(os.sched_getaffinity(0))} cores ({model}), load average {load}"
    )


def run(
    folder: Path,
    urls: Mapping[str, str],
    rounds: int,
    seconds: float,
    starts: int,
    grants: int,
    only: Sequence[str] = PARTS,
) -> Iterator[tuple[bool, str]]:
    """Says what it finds; yields the aims, and whether they are met. `only`: these parts."""
    folder.chmod(0o711)  # the crowd passes through
    for name in ("one", "many", "grants", "proxy", "peer", "shared", "fleet"):
        (folder / name).mkdir(mode=0o711)
    with processes.brokerd(folder / "one", one(urls) + ALLOWED) as daemon:
        parts = {
            "fetches": partial(about_fetches, daemon, folder, rounds, seconds),
            "library": partial(about_library, daemon, folder, rounds, seconds),
            "http": partial(about_http, daemon, rounds, seconds),
            "proxy": partial(about_proxy, daemon, folder, rounds, seconds),
            "starts": partial(about_starts, daemon, starts),
            "peer": partial(about_peer, daemon, folder, rounds, seconds, starts),
            "pressure": partial(about_pressure, daemon, rounds, seconds),
        }
        for name in PARTS:
            if name in only and name in parts:
                yield from parts[name]()
    if "shared" in only:
        yield from about_shared(folder, urls, rounds, seconds)
    if "evidence" in only:
        yield from about_evidence(folder, one(urls), rounds, seconds)
    if "fleet" in only:
        yield from about_fleet(folder / "fleet", urls, rounds, seconds)
    if "many" in only:
        yield from about_many(folder / "many", urls, min(grants, MANY), seconds)
    if "grants" in only:
        yield from about_grants(folder / "grants", grants)


def about_fetches(daemon: Daemon, folder: Path, rounds: int, seconds: float) -> Iterator[tuple[bool, str]]:
    rows = fetches(daemon, GRANT, folder, rounds, seconds)
    busy = max(turn.busy for row in rows for turn in (*row.subject, *row.yardstick))
    say(
        table(rows),
        f"medians of {rounds} turns of {seconds:g} s; CPU: the server's, for one get; "
        f"the load was computing for {busy:.0%} of its time at most",
        "",
    )
    for row in rows:
        ratio, least = row.ratio("per_second"), KEPT_LEAST if "kept" in row.name else FRESH_LEAST
        yield ratio >= least, f"get, {row.name}: {ratio:.2f} of the bare server's speed; {least:g} or better"


def about_library(daemon: Daemon, folder: Path, rounds: int, seconds: float) -> Iterator[tuple[bool, str]]:
    row = by_library(daemon, GRANT, folder, rounds, seconds)
    say(table([row], "brokerd, by the library", "bare trio server, bare client"), "")
    ratio = row.ratio("per_second")
    words = f"get, {row.name}: {ratio:.2f} of a bare Python client's at the bare server; {LIBRARY_LEAST:g} or better"
    yield ratio >= LIBRARY_LEAST, words


def about_shared(folder: Path, urls: Mapping[str, str], rounds: int, seconds: float) -> Iterator[tuple[bool, str]]:
    number, where = TORN_OF if rounds >= WHOLE["rounds"] else TORN_OF // 100, folder / "shared"
    revoked = [f"revoked-{each}" for each in range(3 * rounds)]
    with processes.brokerd(where, named(urls, [GRANT, *revoked])) as daemon:
        shared, asked = reads(daemon, GRANT, rounds, seconds)
        say(
            f"gets by the Python library: {shared:,.0f} from a shared token in a second of processor time, "
            f"{asked:,.0f} over the socket in a second"
        )
        yield shared >= READS_LEAST, f"get from a shared token: {shared:,.0f}/s; {READS_LEAST:,} or better"
        seen = [1e3 * each for each in revocations(daemon, revoked)]
    middle, worst = statistics.median(seen), max(seen)
    say(f"a revocation is seen after {middle:.2f} ms, {worst:.2f} ms at most, of {len(seen)}; asking for it included")
    words = f"a revocation is seen in a shared token after {middle:.2f} ms; under {1e3 * SEEN_WITHIN:g} ms"
    yield middle < 1e3 * SEEN_WITHIN, words
    try:
        found, unchecked = torn(where, number)
    except Failed as error:
        say(f"torn reads: NOT MEASURED: {error}", "")
        return
    say(
        f"of {found.reads:,} reads in C in {found.seconds:.1f} s, {found.copies:,} of something new, {found.torn} were "
        f"torn; of {unchecked.copies:,} without the checks, {unchecked.torn:,}",
        "",
    )
    yield found.torn == 0 < unchecked.torn, f"torn reads of a shared token: {found.torn} of {found.reads:,}; none"


def about_http(daemon: Daemon, rounds: int, seconds: float) -> Iterator[tuple[bool, str]]:
    rows = over_http(daemon, GRANT, rounds, seconds)
    say(table(rows, "HTTP", "MessagePack"), "")
    for row in rows:
        ratio = row.ratio("computed")
        yield ratio <= HTTP_MOST, f"get, {row.name}: {ratio:.2f} times the CPU of MessagePack; {HTTP_MOST:g} or better"


def about_proxy(daemon: Daemon, folder: Path, rounds: int, seconds: float) -> Iterator[tuple[bool, str]]:
    size = BULK if rounds >= WHOLE["rounds"] else BULK // 64
    try:
        with proxied.proxies(daemon, GRANT, folder / "proxy", free_port(), os.geteuid(), size) as found:
            rows = proxied.requests(found, rounds, seconds)
            beside = proxied.beside(daemon, GRANT, found, rounds, seconds)
            before = proxied.memory(found)
            speeds = list(proxied.bulk(found, folder / "proxy", max(1, rounds // 3)))
            grown = proxied.memory(found) - before
    except Failed as error:
        say(f"brokerd-proxy: NOT MEASURED: {error}", "")
        return
    busy = max(turn.busy for row in rows for turn in (*row.subject, *row.yardstick))
    upstream = statistics.median(turn.computed for row in rows for turn in row.direct)
    say(
        table(rows, "brokerd-proxy", "nginx"),
        f"the upstream computed {1e6 * upstream:.0f} µs for a request, the load for {busy:.0%} of its time at most",
        proxied.latencies(rows),
        table([beside], "under load", "idle"),
    )
    for words, ours, theirs in speeds:
        say(f"{size >> 20} MiB {words}: {ours / 1e6:.0f} MB/s, nginx {theirs / 1e6:.0f} MB/s")
    say(f"memory grew by {grown:.1f} MB meanwhile", "")
    for row in rows:
        ratio = row.ratio("per_second")
        yield ratio >= PROXY_LEAST, f"{row.name}: {ratio:.2f} of nginx's requests a second; {PROXY_LEAST:g} or better"
    for words, ours, theirs in speeds:
        said = f"proxied, a large body {words}: {ours / theirs:.2f} of nginx's speed; {BULK_LEAST:g} or better"
        yield ours / theirs >= BULK_LEAST, said


def about_evidence(folder: Path, grants: str, rounds: int, seconds: float) -> Iterator[tuple[bool, str]]:
    if os.geteuid() != 0:
        say("what evidence costs: NOT MEASURED: only root can be another user", "")
        return
    rows = list(evidence(folder, grants, GRANT, rounds, seconds))
    say(table(rows, "uid, exe, sha256, unit; audit log", "uid; none"), "")
    for row in rows:
        ratio = row.ratio("per_second")
        words = f"get with evidence, {row.name}: {ratio:.2f} of the speed without; {EVIDENCE_LEAST:g} or better"
        yield ratio >= EVIDENCE_LEAST, words


def about_fleet(folder: Path, urls: Mapping[str, str], rounds: int, seconds: float) -> Iterator[tuple[bool, str]]:
    names = [f"seen-{number}" for number in range(3 * rounds)]
    try:
        rows = list(in_a_fleet(folder, one(urls), GRANT, rounds, seconds))
        (folder / "seen").mkdir(mode=0o711)
        times = sorted(seen(folder / "seen", named(urls, names), names))
    except Failed as error:
        say(f"what a fleet costs: NOT MEASURED: {error}", "")
        return
    say(table(rows, "in a fleet of three etcds", "its own store alone"))
    median, most = (1_000 * each for each in (statistics.median(times), times[-1]))
    say(f"another host serves a new token after {median:.0f} ms (median of {len(times)}; at most {most:.0f} ms)", "")
    for row in rows:
        ratio = row.ratio("per_second")
        yield (
            ratio >= FLEET_LEAST,
            f"get in a fleet, {row.name}: {ratio:.2f} of the speed without; {FLEET_LEAST:g} or better",
        )
    yield most <= 1_000 * FLEET_SEEN, f"a new token on another host: {most:.0f} ms; {1_000 * FLEET_SEEN:g} or less"


def about_starts(daemon: Daemon, times: int) -> Iterator[tuple[bool, str]]:
    try:
        pairs = starts(daemon, GRANT, times)
    except Failed as error:
        say(f"brokerctl get: NOT MEASURED: {error}", "")
        return
    get, nothing = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    say(f"brokerctl get {get:.0f} ms, python -c pass {nothing:.0f} ms: {ratio:.2f}; medians of {times} pairs", "")
    yield ratio <= PYTHON_MOST, f"brokerctl get: {ratio:.2f} times bare Python; {PYTHON_MOST:g} or better"


def about_peer(daemon: Daemon, folder: Path, rounds: int, seconds: float, starts: int) -> Iterator[tuple[bool, str]]:
    """Beside the nearest tool of others."""
    token = cast("dict[str, str]", daemon.call("get", grant=GRANT))["value"]
    try:
        with peer.oidc_agent(folder / "peer", token) as agent:
            rows = peer.beside_library(daemon, GRANT, agent, rounds, seconds)
            plain = peer.beside_json(daemon, GRANT, agent, rounds, seconds)
            pairs = peer.programs(daemon, GRANT, agent, str(processes.BIN / "brokerctl"), starts)
    except Failed as error:
        say(f"oidc-agent: NOT MEASURED: {error}", "")
        return
    say(table(rows, "brokerd", "oidc-agent's C library"), table(plain, "brokerd", "oidc-agent, plain JSON"))
    get, theirs = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
    say(f"brokerctl get {get:.0f} ms, oidc-token {theirs:.1f} ms; medians of {starts} pairs", "")
    for row in rows:
        ratio, least = row.ratio("per_second"), LIBRARY_FRESH if row.name.startswith("fresh") else LIBRARY_KEPT
        yield ratio >= least, f"get, {row.name}: {ratio:.2f} times oidc-agent's C library; {least:g} or better"


def about_pressure(daemon: Daemon, rounds: int, seconds: float) -> Iterator[tuple[bool, str]]:
    if os.geteuid() != 0:
        say("a get under pressure: NOT MEASURED: only root can be another user", "")
        return
    say(f"a get beside other users' connections: {KINDS}")
    for name, fresh in (("kept connection", False), ("fresh connections", True)):
        found = pressure(daemon, GRANT, rounds, seconds, fresh=fresh)
        cells = []
        for field in ("p50", "p99"):
            idle, loaded, ratio = found.middle(field)
            cells.append(f"{field} {1e6 * idle:,.0f} µs alone, {1e6 * loaded:,.0f} µs beside them: {ratio:.2f} times")
        did = ", ".join(f"{number:,} {what}" for what, number in found.did.items())
        say(f"  {name:18} {'; '.join(cells)}; medians of {rounds} pairs ({did})")
        if not fresh:
            yield ratio <= PRESSURE_MOST, f"p99 of a get under pressure: {ratio:.2f} times; {PRESSURE_MOST:g} or better"
    say("")


def about_many(folder: Path, urls: Mapping[str, str], number: int, seconds: float) -> Iterator[tuple[bool, str]]:
    say(f"{number:,} grants")
    for name in ("first start, nothing stored", "second start, all stored"):
        found = cost(folder, urls, number, seconds)
        say(
            f"  {name:28} ready after {found.ready_after:.2f} s ({found.computed:.2f} s of CPU); "
            f"all have tokens after {found.settled_after:.1f} s; then {found.rss:.0f} MB, at most {found.peak:.0f} MB"
        )
        if (scrape := found.scrapes) is not None:
            ratio = scrape.beside / scrape.alone
            say(
                f"  {'':28} a scrape takes {1e3 * scrape.seconds:.0f} ms ({scrape.size / 1e6:.1f} MB); p99 of a get "
                f"{1e6 * scrape.alone:,.0f} µs alone, {1e6 * scrape.beside:,.0f} µs beside {scrape.times} scrapes: "
                f"{ratio:.2f} times"
            )
            words = f"{name}: a scrape of the metrics takes {scrape.seconds:.2f} s; under {SCRAPE_MOST:g} s"
            yield scrape.seconds < SCRAPE_MOST, words
            words = f"{name}: p99 of a get beside scrapes without end: {ratio:.2f} times; {PRESSURE_MOST:g} or better"
            yield ratio <= PRESSURE_MOST, words
        words = f"{name}: brokerctl status takes {found.status:.2f} s; under {STATUS_MOST:g} s"
        yield found.status < STATUS_MOST, words
        yield found.ready_after < START_MOST, f"{name}: ready after {found.ready_after:.2f} s; under {START_MOST:g} s"
        yield found.peak < MEMORY_MOST, f"{name}: {found.peak:.0f} MB at most; under {MEMORY_MOST:g} MB"
    say("")


def about_grants(folder: Path, number: int) -> Iterator[tuple[bool, str]]:
    say(f"{number:,} grants, one core, TLS")
    first, second = hundred_thousand.starts(folder, number)
    for name, found in (("first start, nothing stored", first), ("second start, all stored", second)):
        say(f"  {name:28} ready after {found.ready_after:.2f} s ({found.computed:.2f} s of CPU); {found.peak:.0f} MB")
        words = f"{number:,} grants, {name}: ready after {found.ready_after:.2f} s; under {MOST_START:g} s"
        yield found.ready_after < MOST_START, words
        words = f"{number:,} grants, {name}: {found.peak:.0f} MB at most; under {MOST_MEMORY:g} MB"
        yield found.peak < MOST_MEMORY, words
    speed = first.per_computed or 0.0
    say(f"  {first.per_second or 0:,.0f} new tokens a second, {speed:,.0f} in a second of computing; each is durable")
    words = f"{speed:,.0f} new tokens in a second of one core over TLS, durable; {TOKENS_LEAST:g} or better"
    yield speed >= TOKENS_LEAST, words
    steps = ", ".join(f"{grants:,}: {microseconds:.2f} µs" for grants, microseconds in hundred_thousand.steps())
    say(f"  a step of the schedule, by the number of grants: {steps}", "")


def say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
