# What a scrape of the metrics costs, and what a get costs while somebody scrapes without end, beside a get alone.
from __future__ import annotations

import socket
import statistics
import threading
import time
from dataclasses import dataclass

from bench.load import Load
from bench.processes import Daemon, Failed, generator

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: brokerd\r\nConnection: close\r\n\r\n"
TIMES = 5
WITHIN = 30.0  # seconds


@dataclass(frozen=True)
class Scrapes:
    """Seconds and bytes of one scrape; the p99 of a get alone and beside scrapes, in seconds; how many these were."""

    seconds: float
    size: int
    alone: float
    beside: float
    times: int


def scrapes(daemon: Daemon, grant: str, seconds: float) -> Scrapes:
    """Raises Failed."""
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        size = _scrape(daemon.http_socket)
        took.append(time.perf_counter() - began)
    load = Load(daemon.socket, grant, 1, fresh=False, seconds=seconds)
    ended, done = threading.Event(), list[int]()

    def scrape_on() -> None:
        while not ended.is_set():
            done.append(_scrape(daemon.http_socket))

    with generator() as client:
        alone = client.measure(load).p99
        scraper = threading.Thread(target=scrape_on)
        scraper.start()
        try:
            beside = client.measure(load).p99
        finally:
            ended.set()
            scraper.join()
    return Scrapes(statistics.median(took), size, alone, beside, len(done))


def _scrape(path: str) -> int:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(WITHIN)
        sock.connect(path)
        sock.sendall(REQUEST)
        found = bytearray()
        while piece := sock.recv(1 << 20):
            found += piece
    if not found.startswith(b"HTTP/1.1 200 ") or b"brokerd_grant_ready{" not in found:
        raise Failed(f"a scrape failed: {bytes(found[:200])!r}")
    return len(found)
