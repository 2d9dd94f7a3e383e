# The real daemon with a point at which it kills itself: python -m tests.stress.torture.daemon POINT:N ARGUMENTS.
# At the N-th exchange that spends and comes to POINT it sends itself SIGKILL. The product knows nothing of this.
from __future__ import annotations

import os
import re
import signal
import sys
import threading
from typing import Any, NoReturn

import trio

from brokerd.core.exchange.steps import Request, Response
from brokerd.daemon import main as daemon
from brokerd.edge.http.client import HttpClient
from brokerd.edge.http.connection import Attempt
from brokerd.edge.store.database import Database
from brokerd.edge.store.store import SqliteStore

# In the order in which a renewal comes to them.
POINTS = ("before-journal", "before-send", "after-send", "after-answer", "before-commit", "after-commit")
DIED = re.compile(r"^torture: died (\S+) of (\S+)$", re.MULTILINE)  # what is said with the last breath
SPENDS = "renew "  # how broker/single_flight.py names the tasks of exchanges that spend, before the grant's name


class Failpoint:
    """One point and how many exchanges have still to come to it."""

    def __init__(self, words: str) -> None:
        self.point, _, number = words.partition(":")
        assert self.point in POINTS, f"expected one of {', '.join(POINTS)}, found {self.point}"
        self.left = int(number)
        self._lock = threading.Lock()  # the store's thread comes by as well

    def passed(self, point: str, grant: str) -> None:
        if point != self.point:
            return
        with self._lock:
            self.left -= 1
            if self.left == 0:
                die(point, grant)


def die(point: str, grant: str) -> NoReturn:
    os.write(2, f"torture: died {point} of {grant}\n".encode())
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives SIGKILL")


def spending() -> str | None:
    """The grant whose token this task is about to spend, if any."""
    name = trio.lowlevel.current_task().name
    return name.removeprefix(SPENDS) if name.startswith(SPENDS) else None


def arm(failpoint: Failpoint) -> None:
    """Lay the failpoint around the functions of the product that a renewal passes through."""
    begin, send_all, send = SqliteStore.begin, HttpClient._send_all, HttpClient.send
    end_attempt, commit = Database.end_attempt, Database.commit
    concluding: list[str] = []  # in the transaction under way; the store's thread alone has to do with it

    async def begin_(self: SqliteStore, grant: str, *rest: Any) -> None:
        failpoint.passed("before-journal", grant)
        await begin(self, grant, *rest)

    async def send_all_(self: HttpClient, stream: trio.abc.SendStream, data: bytes, attempt: Attempt) -> None:
        grant = spending()
        if grant is not None:
            assert not attempt.sent, "a byte of the request had left before it was sent"
            failpoint.passed("before-send", grant)
        await send_all(self, stream, data, attempt)
        if grant is not None:
            assert attempt.sent, "the request was sent and the kernel took no byte of it"
            failpoint.passed("after-send", grant)

    async def send_(self: HttpClient, request: Request) -> Response:
        answer = await send(self, request)
        if grant := spending():
            failpoint.passed("after-answer", grant)
        return answer

    def end_attempt_(self: Database, grant: str, fingerprint: str) -> None:
        end_attempt(self, grant, fingerprint)
        concluding.append(grant)

    def commit_(self: Database) -> None:
        grants = list(concluding)
        concluding.clear()
        for grant in grants:
            failpoint.passed("before-commit", grant)
        commit(self)
        for grant in grants:
            failpoint.passed("after-commit", grant)

    for owner, name, wrapped in (
        (SqliteStore, "begin", begin_),
        (HttpClient, "_send_all", send_all_),
        (HttpClient, "send", send_),
        (Database, "end_attempt", end_attempt_),
        (Database, "commit", commit_),
    ):
        setattr(owner, name, wrapped)


def main() -> None:
    arm(Failpoint(sys.argv.pop(1)))
    daemon.main()


if __name__ == "__main__":
    main()
