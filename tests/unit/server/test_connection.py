# One client's connection: what its user is charged for the bytes that leave, and descriptors that go with answers.
from __future__ import annotations

import os
import socket
from unittest.mock import AsyncMock, Mock

import pytest
import trio

from brokerd.core.access.admission import ANSWERED, BURST, Account
from brokerd.server.methods.method import AnswerWithDescriptor
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


@pytest.mark.parametrize("changed", [True, False])
async def test_what_the_socket_did_not_take_is_for_the_rights_of_that_moment(changed: bool) -> None:
    """A reload may come before the task has its turn that sends the rest (law 9)."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        ours.setblocking(False)
        dispatcher = Mock(look_again=AsyncMock(return_value=True), rights_of=Mock(return_value="rights"))
        connection = RpcConnection(ours, Mock(), Account(), Mock(dispatcher=dispatcher))
        connection._session = Mock()
        assert not connection._send_alone(b"x" * 100_000)
        taken = 100_000 - len(connection._outbox)
        dispatcher.rights_of.return_value = "others" if changed else "rights"
        came = await trio.to_thread.run_sync(theirs.recv, 100_000)
        async with trio.open_nursery() as nursery:
            if not changed:
                nursery.start_soon(trio.to_thread.run_sync, theirs.recv, 100_000 - len(came), socket.MSG_WAITALL)
            assert await connection._flush() is not changed
        assert (len(came), theirs.recv(1) if changed else b"") == (taken, b"")


def opened() -> int:
    return os.open(os.devnull, os.O_RDONLY)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("room", [2_304, 200_000], ids=["in pieces", "at once"])
async def test_a_descriptor_goes_with_the_first_byte_of_its_answer(autojump_clock: object, room: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        ours.setblocking(False)
        theirs.setblocking(False)
        connection = RpcConnection(ours, Mock(), Account(), Mock())
        descriptors, begins = [opened(), opened(), opened()], list[int]()
        for number, descriptor in enumerate(descriptors):
            connection._outbox += b"x" * (5_000 if number < 2 else 0)
            begins.append(len(connection._outbox))
            connection._outbox += connection._packed_result(number, AnswerWithDescriptor("y" * 3_000, descriptor))
        whole, received, came = bytes(connection._outbox), b"", list[range]()
        while len(received) < len(whole):
            connection._send()
            data, found, _, _ = socket.recv_fds(theirs, 700, 4)
            assert len(found) <= 1
            if found:
                came.append(range(len(received), len(received) + len(data)))
                os.close(found[0])
            received += data
        assert received == whole
        assert [begin in piece for begin, piece in zip(begins, came, strict=True)] == [True] * 3
        assert not any(map(is_open, descriptors))
        assert connection._descriptors == ()


async def test_an_answer_that_is_dropped_takes_its_descriptor_along(autojump_clock: object) -> None:
    """Otherwise it would go with the next bytes, such as the refusal of another process."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = RpcConnection(ours, Mock(), Account(), Mock())
        descriptor = opened()
        connection._outbox += connection._packed_result(1, AnswerWithDescriptor("y", descriptor))
        connection._drop()
        assert not is_open(descriptor)
        connection._outbox += b"refused"
        assert connection._send()
        data, found, _, _ = socket.recv_fds(theirs, 700, 4)
        assert (data, found) == (b"refused", [])


async def test_a_connection_that_ends_closes_what_it_did_not_send(autojump_clock: object) -> None:
    ours, theirs = socket.socketpair()
    connection = RpcConnection(ours, Mock(), Account(), Mock())
    descriptor = opened()
    connection._outbox += connection._packed_result(1, AnswerWithDescriptor("y", descriptor))
    theirs.close()
    connection.close()
    assert not is_open(descriptor)
