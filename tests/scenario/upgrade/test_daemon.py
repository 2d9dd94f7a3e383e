# The real daemon on a state directory of the schema before: it goes on with what is there and says what it does, to the
# service manager too, which would otherwise think that its start takes too long.
from __future__ import annotations

import socket
import sqlite3
from contextlib import closing

from brokerd.edge.store import schema
from tests.scenario.daemon.harness import FIVE, Brokerd, Serving, at
from tests.servers import OAuth2


async def test_an_upgrade_asks_no_provider_and_says_what_it_does(brokerd: Brokerd, serving: Serving) -> None:
    brokerd.configure({"app": FIVE["oauth2-password"]}, {"oauth2": at(await serving(OAuth2()))})
    await brokerd.start()
    value = await brokerd.get("app")
    await brokerd.stop()
    with closing(sqlite3.connect(brokerd.state / "brokerd.db")) as connection, connection:
        connection.execute("DROP TABLE history")
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (schema.VERSION - 1,))
    asked = brokerd.log.count("operation=")
    assert asked
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as manager:
        manager.bind(str(brokerd.folder / "notify"))
        brokerd.within = ("env", f"NOTIFY_SOCKET={brokerd.folder / 'notify'}")
        await brokerd.start()
        said = manager.recv(4096).decode()
    words = f"the store from schema {schema.VERSION - 1} to {schema.VERSION}"
    assert said == f"STATUS=bringing {words}\nEXTEND_TIMEOUT_USEC=60000000"
    about = f"before={schema.VERSION - 1} after={schema.VERSION} "
    assert f'event=store_upgraded message="the store was upgraded" {about}' in brokerd.log
    assert await brokerd.get("app", wait=0) == value
    assert brokerd.log.count("operation=") == asked
