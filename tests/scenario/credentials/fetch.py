# Fetches a credential as systemd does: `python -I -S fetch.py SOCKET OPTIONS`, started as root. OPTIONS in JSON:
# `cgroup` (a folder to enter first), `uid`, `address` and `said` in hexadecimal (the address that it binds, and what it
# sends), `times` (so many connections at once, each with an address of its own). It prints "connected", then all that
# came on the connections, in hexadecimal, or the error.
import json
import os
import socket
import sys
from contextlib import ExitStack
from pathlib import Path


def main(path: str, options: str) -> None:
    wanted = json.loads(options)
    if wanted.get("cgroup"):
        Path(wanted["cgroup"], "cgroup.procs").write_text("0")
    if uid := wanted.get("uid"):
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    with ExitStack() as open_sockets:
        made = []
        for number in range(wanted.get("times", 1)):
            sock = open_sockets.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            if address := bytes.fromhex(wanted.get("address", "")):
                sock.bind(address.replace(b"%d", b"%x" % number))
            sock.connect(path)
            made.append(sock)
        print("connected", flush=True)
        print(",".join(read(sock, bytes.fromhex(wanted.get("said", ""))) for sock in made))


def read(sock: socket.socket, said: bytes) -> str:
    found = b""
    try:
        if said:
            sock.sendall(said)
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(65_536):
            found += data
    except OSError as error:
        return error.strerror
    return found.hex()


main(*sys.argv[1:])
