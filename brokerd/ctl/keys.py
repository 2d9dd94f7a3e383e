# The commands for the daemon's keys: lock, unlock, key rotate. A passphrase is read where nobody sees it.
from __future__ import annotations

import sys

from brokerd.ctl.terminal import Failed, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace

    from brokerd_client import Broker

LONGEST = 1_024  # bytes of a passphrase


def lock(broker: Broker, _arguments: Namespace) -> int:
    """Drop everything until unlock."""
    write("locked; nothing is served until: brokerctl unlock" if broker.call("lock")["locked"] else "it was locked")
    return 0


def unlock(broker: Broker, arguments: Namespace) -> int:
    """Serve again. A passphrase is asked for only where the key is one."""
    from brokerd_client import BrokerError

    params: dict[str, object] = {"new": True} if arguments.new else {}
    try:
        done = broker.call("unlock", **params)
    except BrokerError as error:
        if error.code != "locked":  # it wants a passphrase
            raise
        done = broker.call("unlock", passphrase=read_passphrase(twice=arguments.new), **params)
    write("unlocked" if done["unlocked"] else "brokerd was not locked")
    return 0


def rotate(broker: Broker, arguments: Namespace) -> int:
    """Replace the key, and with --full what it wraps."""
    params: dict[str, object] = {"full": True} if arguments.full else {}
    if arguments.passphrase:
        params["passphrase"] = read_passphrase(twice=True)
    done = broker.call("rotate_key", **params)
    if done["rewrapped"]:
        write("the store is sealed with the new key; keep the old one for as long as you keep backups from before")
    if arguments.full:
        number = done["reencrypted"]
        write(f"{number} record{'' if number == 1 else 's'} sealed anew under a new data key")
    if damaged := done["damaged"]:
        raise Failed(f"{damaged} of them could not be opened and were left as they are; see brokerctl status")
    return 0


def read_passphrase(*, twice: bool) -> str:
    """From the terminal, unseen, or the first line of stdin."""
    if sys.stdin is None:
        raise Failed("expected the passphrase on stdin, which is closed")
    if sys.stdin.isatty():
        from getpass import getpass

        try:
            text = getpass("Passphrase (not shown): ")
            if twice and getpass("Once more: ") != text:
                raise Failed("the two are not the same; nothing was changed")
        except EOFError:
            text = ""
    else:
        data = sys.stdin.buffer.readline(LONGEST + 1)
        try:
            text = data.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise Failed("expected the passphrase in UTF-8 on stdin, found other bytes") from None
    if not text or len(text.encode()) > LONGEST:
        raise Failed(f"expected a passphrase of 1 to {LONGEST} bytes; nothing was changed")
    return text
