# What the daemon imports when it is ready already: it takes long, and most installations need it late or never. It must
# not wait until it is needed, because an upgrade may have replaced the files by then.
from __future__ import annotations

from importlib import import_module

import trio

LATE = ("brokerd.core.exchange.signing_keys", "cryptography.x509")


async def import_late() -> None:
    """In a thread, so that callers do not wait for it."""
    for name in LATE:
        await trio.to_thread.run_sync(import_module, name)
