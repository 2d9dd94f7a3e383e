# Whose a loopback TCP connection is, asked of the real kernel.
from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from brokerd.edge.peer.tcp_owner import UnknownOwner, uid_of_client


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end and the client's end of a connection."""
    family, host = request.param
    with socket.create_server((host, 0), family=family) as listener, socket.socket(family) as client:
        client.connect(listener.getsockname()[:2])
        ours, _ = listener.accept()
        with ours:
            yield ours, client


def test_the_kernel_knows_whose_it_is(pair: tuple[socket.socket, socket.socket]) -> None:
    assert uid_of_client(pair[0]) == os.geteuid()


def test_a_client_that_has_gone_is_nobody(pair: tuple[socket.socket, socket.socket]) -> None:
    """The kernel shows root for a socket that no process has open."""
    ours, client = pair
    client.close()
    with pytest.raises(UnknownOwner, match="closed"):
        uid_of_client(ours)


def test_a_client_that_ends_its_sending_is_still_there(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, client = pair
    client.shutdown(socket.SHUT_WR)
    assert uid_of_client(ours) == os.geteuid()
