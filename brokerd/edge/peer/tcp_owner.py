# Whose a loopback TCP connection is: the kernel's answer to who made the socket at its other end (sock_diag(7)). One
# request for one connection, whatever number of connections there are.
from __future__ import annotations

import socket
import struct

SOCK_DIAG_BY_FAMILY, NETLINK_SOCK_DIAG = 20, 4
NLM_F_REQUEST, NLMSG_ERROR = 1, 2
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBxI")  # inet_diag_req_v2, without its socket: family, protocol, extensions, states
_SOCKET = struct.Struct(">HH16s16s")  # inet_diag_sockid: source and destination port, source and destination address
_COOKIE = struct.Struct("=III")  # interface, and the cookie that says "any"
_MESSAGE = struct.Struct(
    "=BBBB48xIIIII"
)  # inet_diag_msg: family, state, timer, retries, …, expires, queues, uid, inode
ANY_COOKIE = (0, 0xFFFFFFFF, 0xFFFFFFFF)


class UnknownOwner(Exception):
    """The kernel does not say whose the connection is; the text says why."""


def uid_of_client(connection: socket.socket) -> int:
    """The user that made the socket at the other end of an accepted connection. Only a socket that is still open
    counts: for one that its process has closed, the kernel shows root. Raises UnknownOwner."""
    theirs, ours = connection.getpeername(), connection.getsockname()
    family = connection.family
    query = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    query += _SOCKET.pack(theirs[1], ours[1], _packed(family, theirs[0]), _packed(family, ours[0]))
    query += _COOKIE.pack(*ANY_COOKIE)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.bind((0, 0))
        kernel.send(_HEADER.pack(_HEADER.size + len(query), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0) + query)
        answer = kernel.recv(8192)
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind != SOCK_DIAG_BY_FAMILY:
        raise UnknownOwner("its other end is not a socket of this machine, or is closed")
    *_, uid, inode = _MESSAGE.unpack_from(answer, _HEADER.size)
    if not inode:
        raise UnknownOwner("its other end is closed")
    return int(uid)


def _packed(family: int, address: str) -> bytes:
    return socket.inet_pton(family, address.partition("%")[0]).ljust(16, b"\0")
