# The load on oidc-agent by its own C library, which makes a connection, agrees on a key and decrypts the answer for
# each token. `python -m bench.oidc_library` takes Loads and prints Measureds, as bench/load.py does.
from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context

from bench.load import WARM_UP, Load, Measured

LIBRARY = "liboidc-agent.so.4"  # Debian: liboidc-agent4
HINT = b"bench"  # what oidc-agent could show its user
FORKS = 0.01  # seconds that the start of one client may take


class TokenResponse(ctypes.Structure):
    """struct token_response of oidc-agent/api.h."""

    _fields_ = (("token", ctypes.c_char_p), ("issuer", ctypes.c_char_p), ("expires_at", ctypes.c_long))


def library() -> ctypes.CDLL:
    """Raises OSError if it is not installed."""
    loaded = ctypes.CDLL(LIBRARY)
    loaded.getTokenResponse.restype = TokenResponse
    loaded.getTokenResponse.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p]
    loaded.secFreeTokenResponse.argtypes = [TokenResponse]
    loaded.secFreeTokenResponse.restype = None
    return loaded


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(asdict(measure(Load(**json.loads(line))))), flush=True)


def measure(load: Load) -> Measured:
    """Each client is a process of its own, because the library is not made for threads. Raises RuntimeError if there is
    no token."""
    os.environ["OIDC_SOCK"] = load.socket
    with ProcessPoolExecutor(load.clients, get_context("fork")) as pool:
        begin = time.perf_counter() + FORKS * load.clients
        turns = list(pool.map(ask, *zip(*[(load, begin)] * load.clients, strict=True)))
    latencies = sorted(one for each in turns for one in each.latencies)
    number, took = len(latencies), max(each.took for each in turns)
    return Measured(
        number / took,
        latencies[number // 2],
        latencies[number * 99 // 100],
        number + sum(each.warming for each in turns),
        sum(each.worked for each in turns) / took,
    )


@dataclass(frozen=True)
class Turn:
    """One client's: seconds of each answer, how many came before, how long it asked and how long it computed."""

    latencies: list[float]
    warming: int
    took: float
    worked: float


def ask(load: Load, begin: float) -> Turn:
    """Ask again and again from that moment on (time.perf_counter, which all processes share), and at least once on a
    busy machine. Raises RuntimeError."""
    loaded, account, clock = library(), load.grant.encode(), time.perf_counter
    latencies: list[float] = []
    while clock() < begin:
        time.sleep(max(0.0, begin - clock()))
    counted = begin + load.seconds * WARM_UP
    warming, worked, until = 0, time.process_time(), counted + load.seconds
    while (began := clock()) < until or len(latencies) == warming:
        answer = loaded.getTokenResponse(account, 60, None, HINT)
        if not answer.token:
            raise RuntimeError("expected a token of oidc-agent, found none")
        loaded.secFreeTokenResponse(answer)
        latencies.append(clock() - began)
        if began < counted:
            warming, worked = warming + 1, time.process_time()
    return Turn(latencies[warming:], warming, began - counted, time.process_time() - worked)


if __name__ == "__main__":
    main()
