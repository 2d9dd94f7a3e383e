# `python -m tests.servers`: all five providers in a process of their own, for the demo, benchmarks and tests of the
# whole. One line of JSON on stdout says where; ends on SIGTERM and when stdin closes, so give it a pipe.
from __future__ import annotations

import argparse
import json
import os
import signal
import ssl
from functools import partial
from pathlib import Path

import trio

from tests.servers import fleet
from tests.servers.control import Control
from tests.servers.http import Mount, Server

STDIN = 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: the system chooses")
    parser.add_argument("--lifetime", type=float, help="of access tokens, in seconds")
    parser.add_argument("--refresh-lifetime", type=float, help="of refresh tokens, in seconds (ten lifetimes)")
    parser.add_argument("--tls", nargs=2, type=Path, metavar=("CERT", "KEY"), help="serve https")
    parser.add_argument(
        "--separate", action="store_true", help="a port for each provider: one that is down refuses connections"
    )
    arguments = parser.parse_args()
    tls = None
    if arguments.tls:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*arguments.tls)
    trio.run(
        partial(
            run,
            arguments.port,
            lifetime=arguments.lifetime,
            refresh_lifetime=arguments.refresh_lifetime,
            tls=tls,
            separate=arguments.separate,
        )
    )


async def run(
    port: int,
    *,
    lifetime: float | None,
    refresh_lifetime: float | None,
    tls: ssl.SSLContext | None,
    separate: bool,
) -> None:
    providers = fleet(lifetime, refresh_lifetime=refresh_lifetime).by_name
    mounts: dict[str, Mount] = {provider.prefix: provider for provider in providers.values()}
    control = Control(providers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal, nursery.cancel_scope)
        nursery.start_soon(_end_with_stdin, nursery.cancel_scope)
        if separate:
            for prefix, mount in mounts.items():
                await nursery.start(Server({prefix: mount}, tls).run)
            mounts = {}
        server: Server = await nursery.start(Server({**mounts, "": control}, tls, port).run)
        ready = {
            "url": server.url,
            "port": server.port,
            "pid": os.getpid(),
            "providers": {name: provider.base_url for name, provider in providers.items()},
        }
        print(json.dumps(ready), flush=True)


async def _end_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


async def _end_with_stdin(scope: trio.CancelScope) -> None:
    # os.read, not sys.stdin: a thread left behind must not hold sys.stdin's lock when the interpreter ends.
    while await trio.to_thread.run_sync(os.read, STDIN, 4096, abandon_on_cancel=True):
        pass
    scope.cancel()


if __name__ == "__main__":
    main()
