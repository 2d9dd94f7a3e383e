# `brokerctl files FILE.toml`: builds what keeps files fresh and runs it. brokerd/files does the work.
from __future__ import annotations

import hashlib
import os
from argparse import Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio
from brokerd_client.on_trio import Broker

from brokerd.core.validation import ConfigError
from brokerd.ctl import EXITS, OUR_BUG, TRY_AGAIN, socket_of
from brokerd.ctl.terminal import Failed, complain, plain, write
from brokerd.edge.files.kept_files import FilesInUse, KeptFiles
from brokerd.edge.system.log import Log, say
from brokerd.edge.systemd.notify import notify
from brokerd.files.check import checked, warnings
from brokerd.files.service import FilesService
from brokerd.setup.check import in_order, located

T = TypeVar("T")
OF_SYSTEM = Path("/var/lib/brokerd-files")


def files(arguments: Namespace) -> int:
    """Until it is ended; `--once`: until every file was written."""
    path = Path(arguments.file).absolute()
    if arguments.check:
        return _check(path)
    try:
        checked(path)
        kept = KeptFiles(_state(arguments.state_dir, path))
    except ConfigError as error:
        raise Failed("\nbrokerctl: ".join(_in_lines(error))) from None
    except FilesInUse as error:
        raise Failed(str(error)) from None
    except OSError as error:
        raise Failed(f"{error.filename}: {error.strerror}; name another state directory: --state-dir DIR") from None
    log = Log("info", "brokerctl", arguments.log_format)
    service = FilesService(
        lambda: checked(path),
        kept,
        say,
        notify,
        lambda error: plain(located(error)),
        user=arguments.user,
    )
    try:
        if not arguments.once:
            trio.run(_within_broker, arguments, service.run)
            return 0
        codes = trio.run(_within_broker, arguments, service.once)
    finally:
        log.close()
        kept.close()
    if codes:
        complain(service.line())
    found = {TRY_AGAIN if code == "io" else EXITS.get(code, OUR_BUG) for code in codes}
    return max(found, default=0)


async def _within_broker(arguments: Namespace, work: Callable[[Broker], Awaitable[T]]) -> T:
    async with Broker(socket_of(arguments)) as broker:
        return await work(broker)


def _check(path: Path) -> int:
    try:
        found = checked(path)
    except ConfigError as error:
        for line in _in_lines(error):
            complain(line)
        return EXITS["misconfigured"]
    for each in warnings(path, found):
        complain(f"warning: {plain(located(each))}")
    write(f"{path}: {len(found)} file{'' if len(found) == 1 else 's'}, no mistakes")
    return 0


def _in_lines(error: ConfigError) -> list[str]:
    return [plain(located(each)) for each in in_order((error, *error.others))]


def _state(named: str | None, path: Path) -> Path:
    """Where it is remembered what was written: named, or systemd's StateDirectory=, or a folder for this FILE.toml."""
    if found := named or os.environ.get("STATE_DIRECTORY"):
        return Path(found).absolute()
    name = f"{path.stem}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
    return (OF_SYSTEM if os.geteuid() == 0 else Path.home() / ".local/state/brokerd-files") / name
