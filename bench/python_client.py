# What the client library costs: one program asks brokerd by the library, another asks the bare server with a socket and
# msgpack alone. `python -m bench.python_client library|bare` takes Loads and prints Measureds, as bench/load.py does.
from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import msgpack
from brokerd_client import Broker

from bench.load import WARM_UP, Load, Measured

READ = 64 * 1024


@contextmanager
def library(load: Load) -> Iterator[Callable[[], object]]:
    with Broker(load.socket, share=False) as broker:
        yield lambda: broker.get(load.grant).value


@contextmanager
def bare(load: Load) -> Iterator[Callable[[], object]]:
    pack, unpacker = msgpack.Packer().pack, msgpack.Unpacker()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(load.socket)

        def get() -> object:
            sock.sendall(pack((0, 1, "get", ({"grant": load.grant, "wait": 10.0},))))
            while True:
                unpacker.feed(sock.recv(READ))
                for message in unpacker:
                    return message[3]["value"]

        yield get


def measure(load: Load, get: Callable[[], object]) -> Measured:
    """One client on a kept connection."""
    clock = time.perf_counter
    latencies: list[float] = []

    def run(seconds: float) -> None:
        until = clock() + seconds
        while (began := clock()) < until or not latencies:
            get()
            latencies.append(clock() - began)

    run(load.seconds * WARM_UP)
    before = len(latencies)
    latencies.clear()
    began, worked = clock(), time.process_time()
    run(load.seconds)
    took, worked = clock() - began, time.process_time() - worked
    latencies.sort()
    number = len(latencies)
    return Measured(
        number / took, latencies[number // 2], latencies[number * 99 // 100], before + number, worked / took
    )


def main() -> None:
    client = {"library": library, "bare": bare}[sys.argv[1]]
    for line in sys.stdin:
        load = Load(**json.loads(line))
        with client(load) as get:
            print(json.dumps(asdict(measure(load, get))), flush=True)


if __name__ == "__main__":
    main()
