# The commands backup and restore. The daemon sends a copy of its store and writes no file itself; brokerctl does.
from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from brokerd_client import Broker

from brokerd.core.validation import ConfigError
from brokerd.ctl.as_owner import as_owner_of
from brokerd.ctl.terminal import Failed, called, plain, write
from brokerd.edge.files.new_file import new_file
from brokerd.edge.store.backup import NotRestored, content, header, put_back
from brokerd.setup.layout import in_use, state_in_use

NEXT = "start brokerd, then brokerctl adopt: until then no refresh token is sent"


def backup(broker: Broker, arguments: Namespace) -> int:
    """Write a consistent copy of the store while the daemon runs. As root, the file is written as the user who controls
    its folder. The copy is fetched before that, because the daemon gives it to root only."""
    path = Path(arguments.file)
    with os.fdopen(os.memfd_create("backup"), "w+b") as copy:
        size = _copy(broker, copy)
        copy.seek(0)
        return as_owner_of(path.parent, lambda: _written(path, copy, size), is_state=True)


def _written(path: Path, copy: BinaryIO, size: int) -> int:
    try:
        with new_file(path) as file:
            shutil.copyfileobj(copy, file)
    except FileExistsError:
        raise Failed(f"{plain(str(path))} exists already and was not changed; name another file") from None
    except OSError as error:
        raise Failed(f"cannot write {plain(str(path))}: {error.strerror}; name a file in a writable folder") from None
    keep = "nobody can open it without the key: keep a copy of the key somewhere else"
    write(f"{plain(str(path))}: {size} bytes; {keep}")
    return 0


def _copy(broker: Broker, file: BinaryIO) -> int:
    size, digest, found, done = 1, "", hashlib.sha256(), 0

    def requests() -> Iterator[tuple[str, dict[str, int]]]:
        while done < size:
            yield "backup", {"offset": done}

    for answer in broker.call_on_one(requests()):
        if not done:
            size, digest = answer["size"], answer["sha256"]
            file.write(header(size, digest))
        data = base64.b64decode(answer["data"])
        if not data:
            break
        file.write(data)
        found.update(data)
        done += len(data)
    if found.hexdigest() != digest:
        raise Failed("the copy is damaged: its checksum differs from what brokerd said; try again", 4)
    return int(size)


def restore(arguments: Namespace) -> int:
    """Put a backup into a state directory that no daemon uses. As root, the directory is written as its owner, and the
    configuration that names it is read as the configuration's owner."""
    with _explained():
        data = content(Path(arguments.file))
    if arguments.state_dir is not None:
        return _put_back(data, arguments)
    return as_owner_of(Path(in_use(arguments.config)[0]), lambda: _put_back(data, arguments))


def _put_back(data: bytes, arguments: Namespace) -> int:
    with _explained():
        folder = state_in_use(arguments.state_dir, arguments.config)
        return as_owner_of(folder, lambda: _restored(data, folder, force=arguments.force), is_state=True, make=True)


def _restored(data: bytes, folder: Path, *, force: bool) -> int:
    with _explained():
        kept = put_back(data, folder, force=force)
    if kept is not None:
        write(f"the old store was kept as {plain(str(kept))}")
    own = "--user " if folder.is_relative_to(Path.home()) and os.geteuid() else ""
    write(called(f"restored to {plain(str(folder))}; systemctl {own}{NEXT}"))
    return 0


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Raises Failed."""
    try:
        yield
    except (ConfigError, NotRestored) as error:
        raise Failed(plain(str(error))) from None
    except OSError as error:
        raise Failed(f"{plain(str(error.filename))}: {error.strerror}; nothing was restored") from None
