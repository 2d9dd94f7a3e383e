# What shared tokens are good for: how often Python reads one, whether a read is ever mixed of two tokens, and how soon
# a revocation is seen. As a program it is the reader: `python -m bench.shared_token reads|waits SOCKET GRANT …`.
from __future__ import annotations

import json
import mmap
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from brokerd_client import Broker

from bench.processes import Daemon, Failed, line, process
from brokerd.core.shared_token import SIZE, Content, SharedState, SharedTokenWriter

TORN = Path(__file__).with_name("torn.c")
COPIES = 20_000  # reads, at least, that find something new
PAUSE = 20e-6  # seconds from one writing to the next
LONGEST = 300.0  # seconds
TYPE = b"\x81\xaatoken_type\xa6Bearer"


@dataclass(frozen=True)
class Torn:
    """`copies`: reads for which something had changed; `torn`: those that were mixed of two."""

    reads: int
    copies: int
    torn: int
    seconds: float


def reads(daemon: Daemon, grant: str, rounds: int, seconds: float) -> tuple[float, float]:
    """How many gets one thread makes: from a shared token in a second of processor time, and over the socket in a
    second. Medians of turns."""
    words = (sys.executable, "-m", "bench.shared_token", "reads", daemon.socket, grant, str(seconds), str(rounds))
    with process(*words) as started:
        shared, asked = json.loads(line(started))
    return statistics.median(shared), statistics.median(asked)


def torn(folder: Path, number: int) -> tuple[Torn, Torn]:
    """So many reads by a C program while this process writes; and some by one that checks nothing. Raises Failed."""
    if shutil.which("cc") is None:
        raise Failed("it needs cc")
    program, memory = folder / "torn", folder / "memory"
    subprocess.run(["cc", "-std=gnu11", "-O2", "-o", program, TORN], check=True)
    memory.write_bytes(bytes(SIZE))
    return _read_by(program, memory, number, checked=True), _read_by(program, memory, 0, checked=False)


def _read_by(program: Path, memory: Path, number: int, *, checked: bool) -> Torn:
    contents = [
        Content(SharedState.TOKEN, at, 1e12, 1e12, bytes([97 + at % 26]) * (1 + 37 * at % 4_000), TYPE)
        for at in range(520)
    ]
    with memory.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as mapped:
        writer = SharedTokenWriter(memoryview(mapped))
        writer.write(contents[0])
        with process(str(program), str(memory), str(number), str(COPIES), str(int(checked))) as started:
            for _ in _until_ended(started):
                for content in contents:
                    writer.write(content)
                    until = time.perf_counter() + PAUSE
                    while time.perf_counter() < until:
                        pass
            found = json.loads(line(started))
        writer.close()
    return Torn(found["reads"], found["copies"], found["torn"], found["seconds"])


def _until_ended(started: subprocess.Popen[bytes]) -> Iterator[None]:
    deadline = time.monotonic() + LONGEST
    while started.poll() is None:
        if time.monotonic() > deadline:
            raise Failed(f"the reads took more than {LONGEST:g} s")
        yield


def revocations(daemon: Daemon, grants: Sequence[str]) -> list[float]:
    """For each grant: seconds from the moment before its revocation was asked for until a reader, which looks all the
    time, found nothing any more."""
    found = []
    for grant in grants:
        with process(sys.executable, "-m", "bench.shared_token", "waits", daemon.socket, grant) as started:
            line(started)  # it reads
            before = time.monotonic()
            daemon.call("revoke", grant=grant, local=True)
            found.append(float(line(started)) - before)
    return found


def main() -> None:
    what, socket, grant, *more = sys.argv[1:]
    with Broker(socket) as broker, Broker(socket, share=False) as asking:
        for _ in range(3):
            broker.get(grant)
        if what == "reads":
            seconds, rounds = float(more[0]), int(more[1])
            turns = [
                (_per_second(broker, grant, seconds, time.process_time), _per_second(asking, grant, seconds))
                for _ in range(rounds)
            ]
            print(json.dumps([*zip(*turns, strict=True)]), flush=True)
            return
        assert broker._shared is not None
        read = broker._shared._tokens[grant].read
        print("reads", flush=True)
        while read() is not None:
            pass
        print(time.monotonic(), flush=True)


def _per_second(broker: Broker, grant: str, seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    get, number, began, end = broker.get, 0, clock(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(100):
            get(grant)
        number += 100
    return number / (clock() - began)


if __name__ == "__main__":
    main()
