# A caller that is another user: `python as_user.py SOCKET UID GID [GROUP …]` becomes that user and connects. Each line
# of its stdin is a JSON [method, params] that it sends. Each answer is a line of JSON: a result or an error's map.
import grp  # noqa: F401 - the client imports it late, when this user may not read a Python that is root's alone
import json
import os
import sys

import msgpack  # noqa: F401 - as grp
from brokerd_client.blocking import Broker
from brokerd_client.errors import BrokerError


def main() -> None:
    socket, uid, gid, *groups = sys.argv[1:]
    os.setgroups([int(group) for group in groups])
    os.setresgid(int(gid), int(gid), int(gid))
    os.setresuid(int(uid), int(uid), int(uid))
    with Broker(socket) as broker:
        for line in sys.stdin:
            method, params = json.loads(line)
            try:
                answer = broker.call(method, **params)
            except BrokerError as error:
                answer = error.as_map()
            print(json.dumps(answer), flush=True)


main()
