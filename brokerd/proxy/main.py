# brokerd-proxy(8): the command line. It builds what forwards requests, and runs it.
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import trio
from brokerd_client.on_trio import Broker

from brokerd import __version__
from brokerd.config.metadata import EndpointSettings
from brokerd.config.proxies import ProxySettings, read
from brokerd.core.ports import TransportError
from brokerd.core.validation import ConfigError, as_one
from brokerd.edge.http.connection import check as http_check
from brokerd.edge.system import descriptors, hardening
from brokerd.edge.system.log import FORMATS, LEVELS, Log, say
from brokerd.edge.systemd.notify import notify
from brokerd.edge.systemd.socket import CannotListen
from brokerd.proxy.service import ProxyService
from brokerd.proxy.upstreams import http_settings
from brokerd.setup.check import in_order, located, match_nobody

PROGRAM = "brokerd-proxy"
EXIT_CONFIGURATION = 2


def main() -> None:
    """The command `brokerd-proxy`."""
    arguments = parser().parse_args()
    path = Path(arguments.file).absolute()
    hardening.harden()
    if arguments.check:
        sys.exit(check(path))
    output = Log(arguments.log_level, PROGRAM, arguments.log_format)
    service = ProxyService(partial(load, path), say, notify, located)
    try:
        service.open(os.environ, descriptors.raise_limit())
        trio.run(_run, service, arguments.socket)
    except ConfigError as error:
        for each in in_order((error, *error.others)):
            output.cannot_start(located(each))
        sys.exit(EXIT_CONFIGURATION)
    except CannotListen as error:
        output.cannot_start(str(error))
        sys.exit(EXIT_CONFIGURATION)
    finally:
        output.close()


def load(path: Path) -> tuple[ProxySettings | EndpointSettings, ...]:
    """Raises ConfigError."""
    found, errors = read(path)
    if errors:
        raise as_one(errors)
    return found


def check(path: Path) -> int:
    """Print every mistake of the file and of what it names, or that there is none. The exit code."""
    found, read_errors = read(path)
    errors = [*read_errors, *unusable(path, found)]
    for each in found:
        for words in match_nobody(each.callers):
            sys.stderr.write(f"{PROGRAM}: warning: {path}: {each.name}: caller: {words}\n")
    for error in in_order(errors):
        sys.stderr.write(f"{PROGRAM}: {located(error)}\n")
    if not errors:
        sys.stdout.write(f"{path}: {len(found)} {'proxy' if len(found) == 1 else 'proxies'}, no mistakes\n")
    return EXIT_CONFIGURATION if errors else 0


def unusable(path: Path, found: Iterable[ProxySettings | EndpointSettings]) -> Iterator[ConfigError]:
    """What is wrong with the certificates of proxies, and with the proxy that the environment names."""
    for each in found:
        if isinstance(each, ProxySettings):
            try:
                http_check(http_settings(each))
            except TransportError as error:
                yield ConfigError(error.reason, key=f"proxies.{each.name}", file=str(path))


async def _run(service: ProxyService, socket: str | None) -> None:
    async with Broker(socket) as broker:
        await service.run(broker)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=PROGRAM, description="Forwards requests of local programs to an API and adds the token."
    )
    made.add_argument("file", metavar="FILE.toml", help="what to forward, for whom: brokerd-proxy.toml(5)")
    made.add_argument(
        "--check",
        action="store_true",
        help="check FILE.toml and the files it names, then exit: 0 if they can be used, 2 if not",
    )
    made.add_argument("--socket", metavar="PATH", help="brokerd's socket (default: as for brokerctl)")
    made.add_argument("--log-level", choices=LEVELS, default="info", help="how much to log (default: %(default)s)")
    words = "how a line of the log is written (default: %(default)s)"
    made.add_argument("--log-format", choices=FORMATS, default=FORMATS[0], help=words)
    version = f"{PROGRAM} {__version__}"
    made.add_argument("--version", action="version", version=version, help="print the version, then exit")
    return made


if __name__ == "__main__":
    main()
