# An application in the box: asks for a token so many times a second, on a connection that it keeps or on a new one each
# time, until a file is there. It tells how often it got one and how long it waited at most; what fails ends it.
from __future__ import annotations

import sys
import time
from pathlib import Path

from brokerd_client import Broker


def main(stop: Path, rate: float, keeps: bool) -> str:
    """`rate`: fetches a second. A fetch that had to wait is no reason to ask less often: what was missed is made up."""
    begun, done, longest = time.monotonic(), 0, 0.0
    broker = Broker()
    while not stop.exists():
        now = time.monotonic()
        assert broker.get("app").value
        longest = max(longest, time.monotonic() - now)
        done += 1
        if not keeps:
            broker.close()
            broker = Broker()
        time.sleep(max(0.0, begun + done / rate - time.monotonic()))
    broker.close()
    return f"{done} {longest:.3f}"


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "keeps"))
