# The commands backup and restore. The daemon hands a copy of its store over, and writes no file for anybody.
from __future__ import annotations

import os

from brokerd.ctl.terminal import Failed, called, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from typing import BinaryIO

    from brokerd_client import Broker

NEXT = "start brokerd, then brokerctl adopt: until then no refresh token is sent"


def backup(broker: Broker, arguments: Namespace) -> int:
    """Write a consistent copy of the store, while the daemon runs."""
    from pathlib import Path

    path = Path(arguments.file)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Failed(f"{plain(str(path))} is there already and was left as it is; name another file") from None
    except OSError as error:
        raise Failed(f"{plain(str(path))} cannot be made: {error.strerror}; name a file in a writable folder") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            size = _copy(broker, file)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    write(f"{plain(str(path))}: {size} bytes; worth nothing without the key, of which you keep a copy elsewhere")
    return 0


def _copy(broker: Broker, file: BinaryIO) -> int:
    import base64
    import hashlib

    from brokerd.edge.backup import header

    answer = broker.call("backup")
    size, digest, found, done = answer["size"], answer["sha256"], hashlib.sha256(), 0
    file.write(header(size, digest))
    while True:
        data = base64.b64decode(answer["data"])
        file.write(data)
        found.update(data)
        done += len(data)
        if done >= size or not data:
            break
        answer = broker.call("backup", offset=done)
    if found.hexdigest() != digest:
        raise Failed("what came is not what brokerd has sent; try again", 4)
    return int(size)


def restore(arguments: Namespace) -> int:
    """Put a backup into a state directory that no daemon uses."""
    from pathlib import Path

    from brokerd.core.typed import ConfigError
    from brokerd.edge.backup import NotRestored
    from brokerd.edge.backup import restore as put_back
    from brokerd.installing import state_in_use

    try:
        state = state_in_use(arguments.state_dir, arguments.config)
        kept = put_back(Path(arguments.file), state, force=arguments.force)
    except (ConfigError, NotRestored) as error:
        raise Failed(plain(str(error))) from None
    except OSError as error:
        raise Failed(f"{plain(str(error.filename))}: {error.strerror}; nothing was restored") from None
    if kept is not None:
        write(f"the store that was there is kept: {plain(str(kept))}")
    own = "--user " if state.is_relative_to(Path.home()) and os.geteuid() else ""
    write(called(f"restored to {plain(str(state))}; systemctl {own}{NEXT}"))
    return 0
