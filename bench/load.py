# The load: a process of its own with raw sockets, one thread and no decoding on the way, so that it is not what is
# measured. `python -m bench.load [UID]` takes Loads as lines of JSON on stdin, and prints a Measured for each.
from __future__ import annotations

import json
import os
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass

import msgpack

WARM_UP = 0.1  # of the time, at the beginning, that is not counted
SILENCE = 10.0  # seconds without any answer after which the server is taken for dead
READ = 64 * 1024  # bytes


@dataclass(frozen=True)
class Load:
    """`clients` clients that each ask again as soon as they were answered, on the connection that they have or each
    time on a fresh one, for `seconds`. `http`: over HTTP, at that socket; `target`: that path, not
    the token's. `json`: that request, to a server that answers one object of JSON. `ca_file`: over TLS; `socket` is a
    host and a port then."""

    socket: str
    grant: str
    clients: int
    fresh: bool
    seconds: float
    http: bool = False
    target: str = ""
    json: str = ""
    ca_file: str = ""


@dataclass(frozen=True)
class Measured:
    """Latencies in seconds, from before the request (and its connection) to the whole answer. `answers`: all that came,
    while warming up too. `busy`: the part of the time that the load itself was computing."""

    per_second: float
    p50: float
    p99: float
    answers: int
    busy: float


def main() -> None:
    for uid in map(int, sys.argv[1:]):
        os.setgroups(())
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    for line in sys.stdin:
        print(json.dumps(asdict(measure(Load(**json.loads(line))))), flush=True)


def measure(load: Load) -> Measured:
    """Raises RuntimeError if the server does not answer with a token."""
    if load.http:
        target = load.target or f"/v1/token/{load.grant}?wait=10"
        request = b"GET %b HTTP/1.1\r\nHost: brokerd\r\n\r\n" % target.encode()
        size = _size_over_http(load, request)
    elif load.json:
        request = load.json.encode()
        size = _size_of_json(load.socket, request)
    else:
        request = msgpack.packb([0, 1, "get", [{"grant": load.grant, "wait": 10.0}]])
        size = len(ask(load.socket, request))  # of every answer: the same token
    latencies: list[float] = []
    answers = _answers(load, request, size, latencies.append)
    _run(answers, load.seconds * WARM_UP)
    before = len(latencies)
    latencies.clear()
    began, worked = time.perf_counter(), time.process_time()
    _run(answers, load.seconds)
    while not latencies:  # on a busy machine
        next(answers)
    took, worked = time.perf_counter() - began, time.process_time() - worked
    answers.close()
    latencies.sort()
    number = len(latencies)
    return Measured(
        number / took, latencies[number // 2], latencies[number * 99 // 100], before + number, worked / took
    )


def ask(path: str, request: bytes) -> bytes:
    """One whole answer to one request. Raises RuntimeError if it is an error."""
    unpacker, data = msgpack.Unpacker(), b""
    with _connect(path) as sock:
        sock.sendall(request)
        while more := sock.recv(READ):
            data += more
            unpacker.feed(more)
            for _, _, error, _ in unpacker:
                if error is not None:
                    raise RuntimeError(f"expected a result, found the error {error}")
                return data
    raise RuntimeError("the server hung up")


def _size_over_http(load: Load, request: bytes) -> int:
    """Of every answer: the same token, and a number of seconds that has as many digits. Raises RuntimeError."""
    data = b""
    with _connect(load.socket, load.ca_file) as sock:
        sock.sendall(request)
        while b"\r\n\r\n" not in data:
            if not (more := sock.recv(READ)):
                raise RuntimeError("the server hung up")
            data += more
    head = data.partition(b"\r\n\r\n")[0]
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"expected 200, found {head.splitlines()[0]!r}")
    (length,) = (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return len(head) + 4 + length


def _size_of_json(path: str, request: bytes) -> int:
    """Of every answer: the same token. Raises RuntimeError."""
    data = b""
    with _connect(path) as sock:
        sock.sendall(request)
        while not data.endswith(b"}"):
            if not (more := sock.recv(READ)):
                raise RuntimeError("the server hung up")
            data += more
    if "access_token" not in json.loads(data):
        raise RuntimeError("expected a token, found another answer")
    return len(data)


def _run(answers: Iterator[None], seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        next(answers)


def _answers(load: Load, request: bytes, size: int, took: Callable[[float], None]) -> Generator[None, None, None]:
    """Take what has come and ask again; yields after every look at the sockets."""
    clock, poll = time.perf_counter, select.epoll()
    clients: dict[int, socket.socket] = {}
    since: dict[int, float] = {}
    missing: dict[int, int] = {}

    def connect() -> int:
        sock = _connect(load.socket, load.ca_file)
        fd = sock.fileno()
        clients[fd] = sock
        poll.register(fd, select.EPOLLIN)
        return fd

    def start(fd: int | None) -> None:
        began = clock()
        if fd is None:
            fd = connect()
        clients[fd].send(request)
        since[fd], missing[fd] = began, size

    for _ in range(load.clients):
        start(None)
    try:
        while True:
            ready = poll.poll(SILENCE)
            if not ready:
                raise RuntimeError(f"expected an answer within {SILENCE:g} s")
            for fd, _ in ready:
                data = clients[fd].recv(READ)
                if not data:
                    raise RuntimeError("the server hung up")
                missing[fd] -= len(data)
                if missing[fd] > 0:
                    continue
                took(clock() - since[fd])
                if load.fresh:
                    clients.pop(fd).close()
                    start(None)
                else:
                    start(fd)
            yield
    finally:
        poll.close()
        for sock in clients.values():
            sock.close()


def _connect(path: str, ca_file: str = "") -> socket.socket:
    """An answer over TLS must be one record: whoever waits for the socket does not see what TLS holds back."""
    if ca_file:
        host, _, port = path.partition(":")
        return ssl.create_default_context(cafile=ca_file).wrap_socket(
            socket.create_connection((host, int(port))), server_hostname=host
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


if __name__ == "__main__":
    main()
