# The commands keygen and version. keygen needs no daemon; version asks the daemon if it runs.
from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from brokerd_client import Broker, BrokerError

from brokerd import __version__
from brokerd.ctl.as_owner import as_owner_of
from brokerd.ctl.terminal import Failed, plain, write
from brokerd.edge.store.key_file import create


def keygen(arguments: Namespace) -> int:
    """Make a key file. As root, it is made as the user who controls its folder."""
    path = Path(arguments.file)
    return as_owner_of(path.parent, lambda: _made(path), is_state=True)


def _made(path: Path) -> int:
    try:
        create(path)
    except FileExistsError:
        raise Failed(f"{plain(str(path))} exists already and was not changed; name another file") from None
    except OSError as error:
        raise Failed(f"cannot write {plain(str(path))}: {error.strerror}; name a file in a writable folder") from None
    write(f"{plain(str(path))}: made; keep a copy somewhere else: without the key nobody can read the store")
    return 0


def version(broker: Broker, _arguments: Namespace) -> int:
    """Print both versions."""
    write(f"brokerctl {__version__}")
    try:
        hello = broker.call("hello")
        write(f"brokerd {plain(hello['server'])}, protocol {hello['protocol']}")
    except BrokerError as error:
        write(f"brokerd did not answer: {plain(error.message)}")
    return 0
