# How many connections wait to be accepted (server/listen_queue.py), at the real kernel.
from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

from brokerd.server.listen_queue import SHORT, ListenQueue


def waiting(path: Path, most: int) -> int:
    """So many can connect while nobody accepts."""
    with ExitStack() as stack:
        for number in range(most):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            try:
                client.connect(str(path))
            except BlockingIOError:
                return number
        return most


def accept_all(listener: socket.socket) -> None:
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return


def test_it_is_short_while_it_is_flooded_and_long_again_afterwards(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)  # as a brokerd may have left it that was killed
        listener.setblocking(False)
        queue = ListenQueue(listener)
        for turn in (queue.lengthen, queue.shorten, queue.shorten, queue.lengthen):
            turn()
            there = waiting(tmp_path / "s", 10 * SHORT)
            assert there == (SHORT + 1 if turn == queue.shorten else 10 * SHORT)
            accept_all(listener)


def test_a_listener_that_was_closed_has_no_queue(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        queue = ListenQueue(listener)
    queue.lengthen()
