# Makes many connections as one user: `python many_connections.py SOCKET UID` becomes that user. Each line of stdin is
# how many connections to make. Each connection says hello. The answer is a line of JSON,
# {"connected": …, "refused": [errors]}. The connections stay open until stdin ends.
import contextlib
import json
import os
import resource
import socket
import sys

import msgpack

HELLO = msgpack.packb([0, 1, "hello", []])


def main() -> None:
    path, uid = sys.argv[1], int(sys.argv[2])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kept = []
    for line in sys.stdin:
        connected, refused = 0, []
        for _ in range(int(line)):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(path)
            with contextlib.suppress(BrokenPipeError):  # what was said before can still be read
                sock.send(HELLO)
            _, number, error, _ = msgpack.unpackb(sock.recv(65_536))
            if number is None:
                refused.append(error)
                sock.close()
            else:
                connected += 1
                kept.append(sock)
        print(json.dumps({"connected": connected, "refused": refused}), flush=True)


main()
