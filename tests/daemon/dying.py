# The real daemon that kills itself at a commit of a rotation: its first argument is N, the N-th commit since that
# began, when it is durable; or -N, just before. The product knows nothing of this.
from __future__ import annotations

import os
import signal
import sys

from brokerd import daemon
from brokerd.custody import Custody
from brokerd.edge import resealing
from brokerd.edge.database import Database


def arm(point: int) -> None:
    resealing.GROUP = 10
    rotate, commit = Custody.rotate, Database.commit
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

    Custody.rotate, Database.commit = rotate_, commit_  # type: ignore[method-assign]


def main() -> None:
    arm(int(sys.argv.pop(1)))
    daemon.main()
