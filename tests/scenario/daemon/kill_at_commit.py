# The real daemon, which kills itself at a commit of a key rotation. Its first argument is N: just after the N-th commit
# of the rotation is durable; or -N: just before it.
from __future__ import annotations

import os
import signal
import sys

from brokerd.broker.key_management import KeyManager
from brokerd.daemon import main as daemon
from brokerd.edge.store import resealing
from brokerd.edge.store.database import Database


def arm(point: int) -> None:
    resealing.GROUP = 10
    rotate, commit = KeyManager.rotate, Database.commit
    passed = [0, False]

    async def rotate_(self, *arguments, **settings):  # type: ignore[no-untyped-def]
        passed[1] = True
        return await rotate(self, *arguments, **settings)

    def commit_(self: Database) -> None:
        passed[0] += passed[1] and self.is_changed
        if passed[0] == -point:
            os.kill(os.getpid(), signal.SIGKILL)
        commit(self)
        if passed[0] == point:
            os.kill(os.getpid(), signal.SIGKILL)

    KeyManager.rotate, Database.commit = rotate_, commit_  # type: ignore[method-assign]


def main() -> None:
    arm(int(sys.argv.pop(1)))
    daemon.main()
