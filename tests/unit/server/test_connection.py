# One client's connection: what its user is charged for the bytes that leave.
from __future__ import annotations

import socket
from unittest.mock import Mock

import pytest
import trio

from brokerd.core.access.admission import ANSWERED, BURST, Account
from brokerd.server.rpc import RpcConnection


@pytest.mark.parametrize(("size", "requests"), [(200, 0.0), (ANSWERED, 0.0), (8 * ANSWERED, 8.0)])
async def test_what_is_sent_is_charged_by_its_size(autojump_clock: object, size: int, requests: float) -> None:
    """A token may have 256 KiB, which costs more than its request."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * size + 4_096)
        ours.setblocking(False)
        account = Account(rate=1.0)
        account.charge(BURST, trio.current_time())
        connection = RpcConnection(ours, Mock(), account, Mock())
        connection._outbox += b"x" * size
        assert connection._send()
        assert account.delay(trio.current_time()) == pytest.approx(requests)


async def test_what_is_made_and_never_read_is_charged_too(autojump_clock: object) -> None:
    ours, theirs = socket.socketpair()
    account = Account(rate=1.0)
    account.charge(BURST, trio.current_time())
    connection = RpcConnection(ours, Mock(), account, Mock())
    connection._outbox += b"x" * 8 * ANSWERED
    theirs.close()
    connection.close()
    assert account.delay(trio.current_time()) == pytest.approx(8.0)


async def test_what_a_user_leaves_unread_counts_over_all_connections_until_they_end(autojump_clock: object) -> None:
    account, pairs = Account(most_unread=5 * ANSWERED), [socket.socketpair() for _ in range(3)]
    connections = [RpcConnection(ours, Mock(), account, Mock()) for ours, _ in pairs]
    for connection in connections:
        connection._outbox += b"x" * 2 * ANSWERED
    assert [connection._count() for connection in connections] == [True, True, False]
    assert [len(connection._outbox) // ANSWERED for connection in connections] == [2, 2, 0]
    for connection in connections:
        connection.close()
    assert account.unread == 0
    for _, theirs in pairs:
        theirs.close()
