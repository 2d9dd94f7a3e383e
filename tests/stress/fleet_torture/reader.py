# A reader: asks one host's brokerd for every grant's token again and again, and presents each to the provider. It runs
# with that host's clocks, as a program of that host.
from __future__ import annotations

import contextlib
import http.client
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from brokerd_client.blocking import Broker
from brokerd_client.errors import BrokerError

from tests.stress.fleet_torture.history import History

WAIT = 1.0  # seconds that a get waits for the provider
PATIENCE = 2.0  # seconds more until a broker that says nothing is given up


def main() -> None:
    """With a JSON file that says: host, socket, provider [host, port], history, grants {name at brokerd: name at the
    provider}, pace."""
    config: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    history = History(Path(config["history"]))
    chance = random.Random(config["host"])
    # One of the two reads tokens in memory that brokerd shares.
    brokers = [Broker(config["socket"], PATIENCE, share=False), Broker(config["socket"], PATIENCE)]
    names: list[str] = list(config["grants"])
    resource: http.client.HTTPConnection | None = None
    while True:
        chance.shuffle(names)
        began = time.monotonic()
        for name in names:
            found: dict[str, Any] = {"host": config["host"], "grant": config["grants"][name]}
            found["asked"] = time.monotonic()
            try:
                token = chance.choice(brokers).get(name, wait=WAIT).value
            except BrokerError as error:
                history.say("get", **found, error=error.code, words=error.message[:160])
                time.sleep(0.02)
                continue
            found["got"] = time.monotonic()
            for attempt in (1, 2):
                try:
                    resource = resource or http.client.HTTPConnection(*config["provider"], timeout=20)
                    resource.request("GET", "/resource", headers={"Authorization": f"Bearer {token}"})
                    known = json.loads(resource.getresponse().read())
                    break
                except (OSError, http.client.HTTPException):
                    with contextlib.suppress(Exception):
                        resource.close()
                    resource = None
                    if attempt == 2:
                        raise
            history.say("get", **found, holder=known.pop("grant", None), **known)
        time.sleep(max(0.05, config["pace"] - (time.monotonic() - began)))


if __name__ == "__main__":
    main()
