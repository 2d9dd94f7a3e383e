# The commands for the daemon's keys: lock, unlock, key rotate. A passphrase is never shown.
from __future__ import annotations

import sys
from argparse import Namespace

from brokerd_client import Broker, BrokerError

from brokerd.ctl.terminal import Failed, at_terminal, called, decoded, type_unseen, write

LONGEST = 1_024  # bytes of a passphrase


def lock(broker: Broker, _arguments: Namespace) -> int:
    """Lock the daemon."""
    is_new = broker.call("lock")["locked"]
    write(called("locked; nothing is served until: brokerctl unlock") if is_new else "it was locked already")
    return 0


def unlock(broker: Broker, arguments: Namespace) -> int:
    """Unlock the daemon. Asks for a passphrase only if the key is one."""
    params: dict[str, object] = {"new": True} if arguments.new else {}
    try:
        done = broker.call("unlock", **params)
    except BrokerError as error:
        if error.code != "locked":  # it needs a passphrase
            raise
        done = broker.call("unlock", passphrase=read_passphrase(twice=arguments.new), **params)
    write("unlocked" if done["unlocked"] else "brokerd was not locked")
    return 0


def rotate(broker: Broker, arguments: Namespace) -> int:
    """Replace the key, and with --full also the data key."""
    params: dict[str, object] = {"full": True} if arguments.full else {}
    if arguments.passphrase:
        params["passphrase"] = read_passphrase(twice=True)
    done = broker.call("rotate_key", **params)
    if done["rewrapped"]:
        write("the store is encrypted with the new key; older backups still need the old key: keep it as long as them")
    if arguments.full:
        number = done["reencrypted"]
        write(f"{number} record{'' if number == 1 else 's'} encrypted again with a new data key")
    if damaged := done["damaged"]:
        raise Failed(f"{damaged} of them could not be opened and were not changed; see brokerctl status")
    return 0


def read_passphrase(*, twice: bool) -> str:
    """From the terminal, without showing it, or else the first line of stdin."""
    if sys.stdin is None:
        raise Failed("expected the passphrase on stdin, which is closed")
    if at_terminal():
        text = type_unseen("Passphrase (not shown): ")
        if twice and type_unseen("Once more: ") != text:
            raise Failed("the two passphrases differ; nothing was changed")
    else:
        text = decoded(sys.stdin.buffer.readline(LONGEST + 1), "the passphrase")
    if not text or len(text.encode()) > LONGEST:
        raise Failed(f"expected a passphrase of 1 to {LONGEST} bytes; nothing was changed")
    return text
