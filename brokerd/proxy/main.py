# brokerd-proxy(8): the command line. It builds what forwards requests, and runs it.
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

import trio
from brokerd_client.on_trio import Broker

from brokerd import __version__
from brokerd.config.metadata import EndpointSettings
from brokerd.config.proxies import ProxySettings, read
from brokerd.core.validation import ConfigError, as_one
from brokerd.edge.system import descriptors, hardening
from brokerd.edge.system.log import LEVELS, Log, say
from brokerd.edge.systemd.notify import notify
from brokerd.edge.systemd.socket import CannotListen
from brokerd.proxy.service import ProxyService
from brokerd.setup.check import in_order, located

EXIT_CONFIGURATION = 2


def main() -> None:
    """The command `brokerd-proxy`."""
    arguments = parser().parse_args()
    path = Path(arguments.file).absolute()

    def load() -> tuple[ProxySettings | EndpointSettings, ...]:
        found, errors = read(path)
        if errors:
            raise as_one(errors)
        return found

    hardening.harden()
    service = ProxyService(load, say, notify, located)
    try:
        if arguments.check:
            found = load()
            sys.stdout.write(f"{path}: {len(found)} {'proxy' if len(found) == 1 else 'proxies'}, no mistakes\n")
            return
        service.open(os.environ, descriptors.raise_limit())
    except ConfigError as error:
        _complain(*map(located, in_order((error, *error.others))))
    except CannotListen as error:
        _complain(str(error))
    output = Log(arguments.log_level, "brokerd-proxy")
    try:
        trio.run(_run, service, arguments.socket)
    finally:
        output.close()


def _complain(*lines: str) -> NoReturn:
    for line in lines:
        sys.stderr.write(f"brokerd-proxy: {line}\n")
    sys.exit(EXIT_CONFIGURATION)


async def _run(service: ProxyService, socket: str | None) -> None:
    async with Broker(socket) as broker:
        await service.run(broker)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="brokerd-proxy", description="Forwards requests of local programs to an API and adds the token."
    )
    made.add_argument("file", metavar="FILE.toml", help="what to forward, for whom: brokerd-proxy.toml(5)")
    made.add_argument("--check", action="store_true", help="check FILE.toml, then exit: 0 if it can be used, 2 if not")
    made.add_argument("--socket", metavar="PATH", help="brokerd's socket (default: as for brokerctl)")
    made.add_argument("--log-level", choices=LEVELS, default="info", help="how much to log (default: %(default)s)")
    made.add_argument("--version", action="version", version=f"brokerd-proxy {__version__}")
    return made


if __name__ == "__main__":
    main()
