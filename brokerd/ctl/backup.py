# The commands backup and restore. The daemon hands a copy of its store over, and writes no file for anybody.
from __future__ import annotations

import contextlib
import os

from brokerd.ctl.terminal import Failed, called, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from brokerd_client import Broker

NEXT = "start brokerd, then brokerctl adopt: until then no refresh token is sent"


def backup(broker: Broker, arguments: Namespace) -> int:
    """Write a consistent copy of the store, while the daemon runs. Root writes it as the user who decides what is found
    in its folder. The daemon hands the copy to root alone, so it is fetched before."""
    from pathlib import Path

    from brokerd.ctl.acting import as_owner_of

    path = Path(arguments.file)
    with os.fdopen(os.memfd_create("backup"), "w+b") as copy:
        size = _copy(broker, copy)
        copy.seek(0)
        return as_owner_of(path.parent, lambda: _written(path, copy, size), is_state=True)


def _written(path: Path, copy: BinaryIO, size: int) -> int:
    import shutil

    from brokerd.edge.new_file import new_file

    try:
        with new_file(path) as file:
            shutil.copyfileobj(copy, file)
    except FileExistsError:
        raise Failed(f"{plain(str(path))} is there already and was left as it is; name another file") from None
    except OSError as error:
        raise Failed(f"{plain(str(path))} cannot be made: {error.strerror}; name a file in a writable folder") from None
    write(
        f"{plain(str(path))}: {size} bytes; it cannot be opened without the key; keep a copy of the key somewhere else"
    )
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
    """Put a backup into a state directory that no daemon uses. Root does it as the user whose directory it is, and
    reads the configuration that says where that is as its owner."""
    from pathlib import Path

    from brokerd.ctl.acting import as_owner_of
    from brokerd.edge.backup import content
    from brokerd.installing import in_use

    with _explained():
        data = content(Path(arguments.file))
    if arguments.state_dir is not None:
        return _put_back(data, arguments)
    return as_owner_of(Path(in_use(arguments.config)[0]), lambda: _put_back(data, arguments))


def _put_back(data: bytes, arguments: Namespace) -> int:
    from brokerd.ctl.acting import as_owner_of
    from brokerd.installing import state_in_use

    with _explained():
        folder = state_in_use(arguments.state_dir, arguments.config)
        return as_owner_of(folder, lambda: _restored(data, folder, force=arguments.force), is_state=True, make=True)


def _restored(data: bytes, folder: Path, *, force: bool) -> int:
    from pathlib import Path

    from brokerd.edge.backup import put_back

    with _explained():
        kept = put_back(data, folder, force=force)
    if kept is not None:
        write(f"the store that was there is kept: {plain(str(kept))}")
    own = "--user " if folder.is_relative_to(Path.home()) and os.geteuid() else ""
    write(called(f"restored to {plain(str(folder))}; systemctl {own}{NEXT}"))
    return 0


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raises Failed."""
    from brokerd.core.typed import ConfigError
    from brokerd.edge.backup import NotRestored

    try:
        yield
    except (ConfigError, NotRestored) as error:
        raise Failed(plain(str(error))) from None
    except OSError as error:
        raise Failed(f"{plain(str(error.filename))}: {error.strerror}; nothing was restored") from None
