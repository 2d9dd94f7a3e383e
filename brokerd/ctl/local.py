# The commands that need no daemon: keygen, and version, which asks it if there is one.
from __future__ import annotations

from brokerd_client import BrokerError

from brokerd.ctl.terminal import Failed, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from brokerd_client import Broker


def keygen(arguments: Namespace) -> int:
    """Make a key file. Root makes it as the user who decides what is found in its folder."""
    from pathlib import Path

    from brokerd.ctl.acting import as_owner_of

    path = Path(arguments.file)
    return as_owner_of(path.parent, lambda: _made(path), is_state=True)


def _made(path: Path) -> int:
    from brokerd.edge.keys import create

    try:
        create(path)
    except FileExistsError:
        raise Failed(f"{plain(str(path))} is there already and was left as it is; name another file") from None
    except OSError as error:
        raise Failed(f"{plain(str(path))} cannot be made: {error.strerror}; name a file in a writable folder") from None
    write(f"{plain(str(path))}: made; keep a copy away from the store, which nobody can read without it")
    return 0


def version(broker: Broker, _arguments: Namespace) -> int:
    """Print both versions."""
    from brokerd import __version__

    write(f"brokerctl {__version__}")
    try:
        hello = broker.call("hello")
        write(f"brokerd {plain(hello['server'])}, protocol {hello['protocol']}")
    except BrokerError as error:
        write(f"brokerd did not answer: {plain(error.message)}")
    return 0
